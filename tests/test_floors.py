"""The house has floors: what may import what. Read from the code's own imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_attnviz"

# room -> the rooms it may import from (a room is a top-level module or subpackage of hf_attnviz)
GROUND = {"axes", "errors", "language", "legible", "optional", "progress", "role_names", "storage"}
TRAVELS = {"attention_map", "decomposition", "labels", "packed", "reduced", "result", "trace", "trace_file", "view"}
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(TRAVELS, GROUND | TRAVELS),
    "reducing": GROUND | TRAVELS | {"functional"},
    "capturing": GROUND | TRAVELS | {"reducing"},
    "functional": GROUND | TRAVELS,
    "analysis": GROUND | TRAVELS | {"functional"},
    "views": GROUND | TRAVELS,
    "zoo": GROUND | TRAVELS,
    "explaining": GROUND | TRAVELS | {"capturing", "functional", "analysis", "views"},
    "drawing": GROUND | TRAVELS | {"analysis", "views"},
    "reporting": GROUND | TRAVELS | {"analysis", "views", "drawing"},
    "benchmarking": GROUND | TRAVELS | {"capturing", "functional", "analysis", "reducing"},
    "cli": {"__init__", "asked", "cli_bench", "printing"},
    "cli_bench": {"__init__", "printing"},
    "asked": {"__init__"},
    "printing": {"__init__"},
    "__main__": {"cli"},
    "__init__": {"*"},
}
ONLY_IN = {  # an outside package -> the only places that may know it
    "transformers": {
        "hf_attnviz/benchmarking",
        "hf_attnviz/capturing",
        "hf_attnviz/zoo",
        "apps/compare_with_peers.py",
        "apps/measure_gpu.py",
        "apps/measure_views.py",
    },
    "nnsight": {"hf_attnviz/benchmarking/peers.py", "apps/compare_with_peers.py"},
    "transformer_lens": {"hf_attnviz/benchmarking/peers.py", "apps/compare_with_peers.py"},
    "gradio": {"apps"},
    "bertviz": {"hf_attnviz/views", "apps/measure_views.py"},
    "typer": {"hf_attnviz/cli.py", "hf_attnviz/cli_bench.py"},
    "matplotlib": {"hf_attnviz/views"},
    "jinja2": {"hf_attnviz/views"},
    "captum": {"hf_attnviz/benchmarking/peers.py", "hf_attnviz/explaining"},
    "tqdm": {"hf_attnviz/progress.py"},
}


def imports(path: Path) -> list[str]:
    """The absolute names imported anywhere in a file, type checking included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found += [f"{module}.{alias.name}" if module == "hf_attnviz" else module for alias in node.names]
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("path", files(PACKAGE), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_downward_only(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    room = parts[0]
    allowed = MAY_IMPORT[room] | {room}
    for name in imports(path):
        if not name.startswith("hf_attnviz"):
            continue
        target = [*name.split("."), "__init__"][1]
        if "*" in allowed or target in allowed:
            continue
        pytest.fail(f"{path.relative_to(ROOT)} imports {name}; {room} may import {sorted(allowed)}")


@pytest.mark.parametrize("outside", ONLY_IN)
def test_an_outside_package_is_known_in_its_room_only(outside: str) -> None:
    for path in files(PACKAGE) + files(ROOT / "apps"):
        place = str(path.relative_to(ROOT))
        if any(name.split(".")[0] == outside for name in imports(path)):
            assert any(place.startswith(room) for room in ONLY_IN[outside]), f"{place} imports {outside}"


def test_apps_use_the_front_door_only() -> None:
    for path in files(ROOT / "apps"):
        inner = [name for name in imports(path) if name.startswith("hf_attnviz.")]
        assert not inner, f"{path.relative_to(ROOT)} imports {inner}"


def test_importing_does_nothing_and_is_quick_to_load() -> None:
    """No heavy package, no print; measured by what is loaded, not by a clock."""
    code = (
        "import sys, hf_attnviz; "
        "heavy = {'torch', 'transformers', 'matplotlib', 'gradio', 'bertviz', 'scipy', 'pandas'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_name_of_the_front_door_opens() -> None:
    import hf_attnviz as av

    for name in av.__all__:
        assert getattr(av, name) is not None
    with pytest.raises(AttributeError, match="head_view"):
        av.haed_view  # noqa: B018 - the look-up is the test


def test_capture_stays_a_function_whatever_is_imported_first() -> None:
    code = "import hf_attnviz.capturing.recording, hf_attnviz as av; assert callable(av.capture) and callable(av.load)"
    subprocess.run([sys.executable, "-c", code], check=True)
