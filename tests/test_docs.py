"""The papers of the project: examples in the READMEs run, links lead somewhere, the citation is valid."""

import re
from pathlib import Path

import pytest
import yaml

import hf_attnviz as av

ROOT = Path(__file__).parent.parent
READMES = ["README.md", "README.zh.md"]


@pytest.mark.parametrize("name", READMES)
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python block runs as it stands; a comment that shows a tuple shows what comes out."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    try:
        for block in blocks:
            names: dict[str, object] = {}
            exec(compile(block, name, "exec"), names)
            shown = re.findall(r"^(trace\.\S+)  # (\(.*\))$", block, re.MULTILINE)
            assert shown
            for expression, value in shown:
                assert eval(expression, names) == eval(value), expression
    finally:
        av.language._chosen.clear()
    assert (tmp_path / "page.html").stat().st_size > 100_000
    assert (tmp_path / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_what_is_named_is_there(name: str) -> None:
    """Each name of the front door, each verb of the Makefile, each command and option."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for attribute in re.findall(r"\bav\.(\w+)", text):
        assert attribute in av.__all__, f"{name} names av.{attribute}"
    verbs = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for verb in re.findall(r"(?:`|^\$ )make (\w+)", text, re.MULTILINE):
        assert verb in verbs, f"{name} names make {verb}"
    words = (ROOT / "hf_attnviz" / "cli.py").read_text(encoding="utf-8")
    for command in re.findall(r"^\$ attnviz (?:--lang \w+ )?(\w+)", text, re.MULTILINE):
        assert f"def {command}(" in words or f'name="{command}"' in words, f"{name} names attnviz {command}"


def test_the_citation_is_valid_and_names_this_project() -> None:
    """The fields that the Citation File Format 1.2.0 requires, and the version and date of this release."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"].startswith("hf_attnviz")
    assert citation["version"] == av.__version__
    assert all(author.keys() <= {"name", "given-names", "family-names", "orcid"} for author in citation["authors"])
    released = str(citation["date-released"])
    assert f"## {av.__version__}, {released}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{av.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_nothing_reaches_outside_the_project() -> None:
    """The project stands alone: nothing in it points to the folders that stood beside it where it was written."""
    for path in ROOT.rglob("*"):
        if (
            path.suffix in (".py", ".md", ".toml", ".sh")
            and not {".venv", ".venv-timm", ".git"} & set(path.parts)
            and path.is_file()
        ):
            if path == Path(__file__):
                continue
            text = path.read_text(encoding="utf-8")
            assert "../shared" not in text, path
            assert "/work/" not in text, path
