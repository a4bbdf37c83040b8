"""The wheel holds what an installed package needs, and no more."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    code = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = folder.iterdir()
    return zipfile.ZipFile(path)


def test_everything_that_is_read_while_running_is_there(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = ROOT / "hf_attnviz"
    wanted = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py")}
    for part in ("views/templates", "views/assets", "zoo/models/induction", "zoo/models/translator"):
        wanted |= {path.relative_to(ROOT).as_posix() for path in (package / part).iterdir()}
    wanted |= {f"hf_attnviz_demo/{name}.py" for name in ("__init__", "app", "service", "words")}
    known = {
        "hf_attnviz/py.typed",
        "hf_attnviz/views/assets/LICENSES.txt",
        "hf_attnviz/views/templates/page.html",
        "hf_attnviz/zoo/models/induction/model.safetensors",
        "hf_attnviz/zoo/models/translator/tokenizer.json",
    }
    assert known <= names
    assert wanted <= names, sorted(wanted - names)


def test_nothing_else_is_installed(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    (about,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"hf_attnviz", "hf_attnviz_demo", about}
    assert {f"{about}/licenses/{name}" for name in ("LICENSE", "hf_attnviz/views/assets/LICENSES.txt")} <= set(
        wheel.namelist()
    )
    assert not [name for name in wheel.namelist() if "__pycache__" in name or name.endswith((".pyc", ".orig"))]


def test_its_doors(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    doors = configparser.ConfigParser()
    doors.read_string(wheel.read(name).decode())
    assert {section: dict(doors[section]) for section in doors.sections()} == {
        "console_scripts": {"attnviz": "hf_attnviz.cli:main"},
        "hf_attnviz.apps": {"demo": "hf_attnviz_demo.app:serve"},
    }
