"""On CI a test that a missing part would skip fails: seen with a tiny run of pytest beside this very conftest."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {
    "test_whole.py": 'import pytest\npytest.importorskip("no_such_package")\ndef test_never():\n    pass\n',
    "test_parts.py": """
import pytest

@pytest.fixture
def missing():
    pytest.skip("the part is missing")

def test_a_fixture_skips(missing): pass
def test_the_body_skips(): pytest.skip("the part is missing")
@pytest.mark.skip
def test_a_mark_skips(): pass
@pytest.mark.parametrize("nothing", [])
def test_of_nothing(nothing): pass
def test_without_chromium(chromium): pass
@pytest.mark.xfail
def test_fails_as_expected(): assert False
def test_passes(): pass
""",
}


@pytest.mark.parametrize(
    ("ci", "expected"),
    [
        ("true", {"failed": 1, "passed": 1, "xfailed": 1, "errors": 5}),
        (None, {"passed": 1, "skipped": 6, "xfailed": 1}),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_skipped_on_ci(tmp_path: Path, ci: str | None, expected: dict[str, int], workers: int) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    for name, source in FILES.items():
        (tmp_path / name).write_text(source)
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    environment |= {"PATH": "/nowhere"} | ({} if ci is None else {"CI": ci})
    run = subprocess.run(
        [sys.executable, "-m", "pytest", f"-n{workers}", "--continue-on-collection-errors", "--rootdir", tmp_path,
         "-c", os.devnull, "-p", "no:cacheprovider", tmp_path],
        capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=tmp_path,
    )  # fmt: skip
    found = {words: int(number) for number, words in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}
    counts = {("errors" if name == "error" else name): number for name, number in found.items()}
    assert counts == expected, run.stdout + run.stderr
    assert run.returncode == (0 if ci is None else 1)
    assert ("on CI nothing may be missing" in run.stdout) == (ci is not None)
