"""The house has floors: what may import what. Read from the code's own imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_attnviz"

# room -> the rooms it may import from (a room is a top-level module or subpackage of hf_attnviz)
GROUND = {"axes", "errors", "language", "legible", "optional", "progress", "role_names", "stack_names", "storage"}
TRAVELS = {
    "attention_map",
    "decomposition",
    "labels",
    "packed",
    "reduced",
    "result",
    "trace",
    "tidying",
    "trace_file",
    "view",
    "words",
}
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
    "cli": {"__init__", "asked", "cli_bench", "cli_options", "cli_print", "cli_words", "cli_zoo", "printing"},
    "cli_bench": {"__init__", "cli_words", "printing"},
    "cli_options": {"cli_words"},
    "cli_print": {"__init__", "asked", "cli_options", "cli_words", "printing"},
    "cli_words": set(),
    "cli_zoo": {"__init__", "cli_words", "printing"},
    "asked": {"__init__"},
    "printing": {"__init__"},
    "__main__": {"cli"},
    "__init__": {"*"},
}
BY_THE_WAY = {("hf_attnviz/trace.py", "hf_attnviz.views.original")}  # trace.to_bertviz(): imported when it is called
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
    "typer": {f"hf_attnviz/cli{room}.py" for room in ("", "_bench", "_options", "_print", "_zoo")},
    "bertviz": {"hf_attnviz/views", "apps/measure_views.py"},
    "matplotlib": {"hf_attnviz/views"},
    "jinja2": {"hf_attnviz/views"},
    "captum": {"hf_attnviz/benchmarking/peers.py", "hf_attnviz/explaining"},
    "tqdm": {"hf_attnviz/progress.py"},
    "rich": {
        "hf_attnviz/benchmarking/told.py",
        "hf_attnviz/benchmarking/table.py",
        *(f"hf_attnviz/cli{room}.py" for room in ("", "_words", "_zoo")),
        "hf_attnviz/printing.py",
        "hf_attnviz/views/shades.py",
        "hf_attnviz/views/typesetting.py",
    },
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
        if "*" in allowed or target in allowed or (str(path.relative_to(ROOT)), name) in BY_THE_WAY:
            continue
        pytest.fail(f"{path.relative_to(ROOT)} imports {name}; {room} may import {sorted(allowed)}")


def test_what_is_imported_by_the_way_is_imported_inside_a_function() -> None:
    for place, name in BY_THE_WAY:
        top = ast.parse((ROOT / place).read_text(encoding="utf-8")).body
        assert name in imports(ROOT / place)
        assert not [node for node in top if isinstance(node, ast.ImportFrom) and node.module == name]


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
