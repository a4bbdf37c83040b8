"""The tutorial runs, and its exported page shows in a real browser, without a network, what the numbers say.

The page's own template asks for libraries of others (MathJax, require.js): what our frames ask for and complain of is
told apart from that.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hf_attnviz as av

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "apps" / "notebooks" / "attention.ipynb"
TEXT = "我爱吃北京烤鸭"


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_no_output_is_kept_and_every_paragraph_speaks_both_languages():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells())
    for cell in cells():
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            assert any("\u4e00" <= c <= "\u9fff" for c in text) and any(c.isascii() and c.isalpha() for c in text)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that ``jupyter nbconvert --execute --to html`` writes."""
    pytest.importorskip("nbconvert")
    pytest.importorskip("ipykernel")
    folder = tmp_path_factory.mktemp("notebook")
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "html",
        "--execute",
        str(NOTEBOOK),
        "--output-dir",
        str(folder),
    ]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    places = {name: str(folder / name) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    offline = {"HF_HUB_OFFLINE": "1", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONPATH": paths}
    done = subprocess.run(command, env=os.environ | places | offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "attention.html"


@pytest.fixture
def notebook(chromium, exported: Path) -> Iterator:
    """The exported page, open; what a frame asks of the network or complains of fails the test."""
    context = chromium.new_context(viewport={"width": 1200, "height": 1000}, locale="en-US")
    context.set_offline(True)
    page, complaints = context.new_page(), []

    def asked(request) -> None:
        if request.frame != page.main_frame:
            complaints.append(request.url)

    page.on("request", asked)
    page.on("console", lambda said: complaints.append(said.text) if "cdnjs.cloudflare.com" not in _of(said) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(exported.as_uri())
    for frame in page.frames[1:]:
        frame.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
    yield page
    context.close()
    assert not complaints, complaints


def _of(said) -> str:
    """Where a message comes from, and what it says."""
    return f"{said.location.get('url', '')} {said.text}"


def translated() -> av.Trace:
    loaded = av.load_model("translator")
    with av.capture(loaded.model, loaded.processor) as recording:
        loaded.model.generate(**loaded.processor(TEXT, return_tensors="pt"), max_new_tokens=12)
    return recording.trace


def titled(page, words: str):
    """The frame whose page has this title."""
    return next(frame for frame in page.frames[1:] if words in frame.title())


@pytest.mark.browser
def test_each_frame_shows_its_tokens_and_its_numbers(notebook):
    trace = translated()
    assert len(notebook.frames) == 6
    shown = titled(notebook, "Attention by head").inner_text("main")
    for token in ("我", "爱", "吃", "北京", "烤鸭", "→ Peking", "→ duck"):
        assert token in shown
    matrices = titled(notebook, "Heat maps")
    matrices.focus("#figure")
    notebook.keyboard.press("ArrowDown")
    notebook.keyboard.press("ArrowRight")
    weight = float(f"{trace.cross.maps[-1].weights[0, 1, 1]:.4g}")
    assert matrices.inner_text("#readout") == f"Head 0 · Queries → love (1) · Keys 爱 (1) · {weight:g}"
    statistics = titled(notebook, "Head statistics")
    statistics.focus("#heat")
    notebook.keyboard.press("ArrowDown")
    entropy = float(av.head_statistics(trace, stack="cross").select(statistic="entropy").values[1, 0])
    assert f"· {float(f'{entropy:.4g}'):g} " in statistics.inner_text("#readout")


@pytest.mark.browser
def test_two_frames_on_one_page_do_not_disturb_each_other(notebook):
    first, second = titled(notebook, "Attention by head"), titled(notebook, "Head statistics")
    before = [second.inner_text("body"), second.evaluate("document.documentElement.dataset.theme")]
    first.click("#switch-language")
    first.click("#switch-theme")
    first.select_option("select", index=0)
    assert first.evaluate("document.documentElement.lang") == "zh"
    assert second.evaluate("document.documentElement.lang") == "en"
    assert [second.inner_text("body"), second.evaluate("document.documentElement.dataset.theme")] == before
    second.select_option("#axis-0", index=3)
    assert "各头的注意力" in first.inner_text("h1")
    assert notebook.evaluate("typeof attnviz") == "undefined"
    assert notebook.evaluate("document.documentElement.lang") == "en"


@pytest.mark.browser
def test_a_frame_is_as_high_as_its_page(notebook):
    for frame in notebook.frames[1:]:
        content, height = frame.evaluate("[document.body.getBoundingClientRect().height, innerHeight]")
        assert content <= height <= 1.5 * content, frame.title()
