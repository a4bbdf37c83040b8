"""Files for papers: as wide as was asked for, with letters that can be read, and nothing in them that was not drawn."""

import io
import itertools
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from matplotlib.text import Text as Letters
from PIL import Image

from hf_attnviz.errors import ArgumentError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.view import COLUMNS
from hf_attnviz.views import evolution_view, figures, heatmap
from hf_attnviz.views.fitting import LEAST_LETTERS, MOST_LETTERS, wrapped
from tests.views.builders import a_map, rows

LONG = "A title that is far too long for one line of one column: some-organisation/some-model-of-many-parameters"


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def square(size: int, labels=None):
    labels = tuple(labels or (f"token{i}" for i in range(size)))
    return heatmap(
        Result(rows(1, size, size, 0)[0], (Axis("query", labels), Axis("key", labels)), "m", unit="share"), title=LONG
    )


def heads(count: int):
    texts = ["我", "爱", "吃", "北京", "烤鸭", "a_very_long_token_indeed"] * 3
    return heatmap(a_map(Labels.plain(texts), Labels.plain(texts), heads=count))


def steps():
    axes = (
        Axis("statistic", ("entropy", "sink", "confidence", "drift")),
        Axis("step", tuple(f"{i} → word{i}" for i in range(30))),
        Axis("layer", tuple(map(str, range(6)))),
    )
    return evolution_view(Result(torch.rand(4, 30, 6), axes, "evolution over decoding steps"))


VIEWS = {"many tokens": lambda: square(60), "heads": lambda: heads(2), "steps": steps, "small": lambda: square(2)}


def drawn(view, width):
    """The figure itself, as it goes into the file."""
    figure = figures.laid_out(view.figures["svg"].args[0], width)
    figure.savefig(io.BytesIO(), format="png", dpi=100)
    return figure


def beyond(axis):
    """Ticks outside of what is seen, which matplotlib keeps and does not draw."""
    low, high = sorted(axis.get_view_interval())
    return [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]


def inches_of(path: Path) -> float:
    data = path.read_bytes()
    if path.suffix == ".svg":
        return float(re.search(rb'<svg [^>]*?width="([\d.]+)pt"', data)[1]) / 72
    if path.suffix == ".pdf":
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", data)
        return float(box[1]) / 72
    return Image.open(io.BytesIO(data)).width / 100


@pytest.mark.parametrize("name", VIEWS)
def test_a_figure_is_as_wide_as_a_column_and_its_letters_can_be_read(name):
    for width in COLUMNS.values():
        figure = drawn(VIEWS[name](), width)
        assert figure.get_size_inches()[0] == width
        unseen = {tick.label1 for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in beyond(axis)}
        letters = [one for one in figure.findobj(Letters) if one.get_text() and one.get_visible() and one not in unseen]
        assert letters
        assert {LEAST_LETTERS <= text.get_size() <= MOST_LETTERS for text in letters} == {True}
        for text in letters:
            box = text.get_window_extent()
            assert box.x0 > -2, text
            assert box.x1 < figure.bbox.width + 2, text


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_the_file_has_the_width_that_was_asked_for(tmp_path, kind):
    view = square(4)
    for options, width in (({"columns": 1}, 3.25), ({"columns": 2}, 6.75), ({"width": 5.1}, 5.1)):
        path = view.save(tmp_path / f"x.{kind}", **options, dpi=100)
        assert inches_of(path) == pytest.approx(width, abs=0.01)
    assert inches_of(view.save(tmp_path / f"y.{kind}", dpi=100)) == pytest.approx(3.2, abs=0.01)


@pytest.mark.parametrize("width", [None, *COLUMNS.values()])
def test_no_label_touches_the_next_and_few_are_dropped(width):
    figure = drawn(square(60), width)
    axes = figure.axes[0]
    for axis, side in ((axes.xaxis, 0), (axes.yaxis, 1)):
        shown = [tick.label1 for tick in axis.get_major_ticks() if tick.label1.get_visible()]
        middles = sorted(sum(box.get_window_extent().get_points()[:, side]) / 2 for box in shown)
        gaps = [after - before for before, after in itertools.pairwise(middles)]
        assert min(gaps) >= 0.85 * 8 / 72 * figure.dpi  # letters of eight points
        assert len(shown) >= 10


def test_panels_without_room_beside_each_other_stand_one_below_the_other():
    across = {width: drawn(heads(3), width).axes[0].get_gridspec().ncols for width in (None, 3.25)}
    assert across == {None: 2, 3.25: 1}
    with pytest.raises(ArgumentError, match="larger width"):
        drawn(steps(), 1.0)


def test_a_title_keeps_off_a_legend():
    figure = drawn(steps(), 3.25)
    assert not figure._suptitle.get_window_extent().overlaps(figure.legends[0].get_window_extent())


def test_lines_break_at_blanks_and_between_han_characters():
    assert wrapped("one two three", 8, len) == "one two\nthree"
    assert wrapped("我爱吃北京烤鸭", 3, len) == "我爱吃\n北京烤\n鸭"
    assert wrapped("x" * 20, 5, len, most=2) == "xxxxx\nxxxx…"
    assert wrapped("", 5, len) == ""


def test_what_cannot_be_asked_for_is_refused(tmp_path):
    view = square(3)
    for options, said in (
        ({"columns": 3}, "columns of 1 or 2"),
        ({"columns": 1, "width": 4}, "got both"),
        ({"width": 0.1}, "from 1 to 60"),
        ({"width": float("nan")}, "from 1 to 60"),
        ({"dpi": 1e6}, "dpi from"),
    ):
        with pytest.raises(ArgumentError, match=said):
            view.save(tmp_path / "x.svg", **options)
    with pytest.raises(ArgumentError, match="svg, png, pdf"):
        view.save(tmp_path / "x.html", columns=1)
    assert not list(tmp_path.iterdir())


def test_what_the_reader_set_in_matplotlib_changes_nothing():
    plain = square(3).figures["svg"]()
    before = dict(mpl.rcParams)
    try:
        mpl.rcParams.update({"text.usetex": True, "font.size": 30, "text.color": "white", "svg.fonttype": "none"})
        set_before = dict(mpl.rcParams)
        assert square(3).figures["svg"]() == plain  # the same to the byte, also from one time to the next
        assert dict(mpl.rcParams) == set_before
    finally:
        mpl.rcParams.update(before)


HOSTILE = [
    "$x_1$ $\\frac{$ \\alpha",
    "</svg><script>ran()</script>",
    "\" onload='ran()' x=\"&lt;b&gt;",
    "nul\x00 bell\x07 c1\x9b",
    "\x1b[31mred\x1b[0m",
    "over\u202eride\u2066",
    "lone \ud800 \udfff",
    "not a character \uffff\ufffe\U0010ffff",
    "--> <!-- ]]>",
    "_starts with an underscore",
]


DRAWN = {"svg", "metadata", "RDF", "Work", "type", "format", "creator", "Agent", "title", "defs", "style"} | {
    "g", "path", "use", "image", "clipPath", "rect", "pattern"
}  # fmt: skip


def hostile():
    labels = tuple(HOSTILE)
    axes = (Axis("layer", ("0", HOSTILE[0])), Axis("query", labels), Axis("key", labels))
    return heatmap(Result(torch.rand(2, len(labels), len(labels)), axes, "m", unit=HOSTILE[1]), title=" ".join(HOSTILE))


@pytest.mark.parametrize("width", [None, 3.25])
def test_hostile_text_is_letters_in_an_svg(width):
    tree = ET.fromstring(hostile().figures["svg"](width=width))
    names = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert names <= DRAWN, names
    for element in tree.iter():
        assert not [name for name in element.attrib if name.lower().startswith("on")]
        for name, value in element.attrib.items():
            if name.endswith("href"):
                assert value.startswith(("#", "data:image/png;base64,")), value
    assert "$x_1$" in tree.find("{*}title").text


def test_hostile_text_is_letters_in_a_pdf_and_a_png(tmp_path):
    data = hostile().figures["pdf"](width=6.75)
    for word in (b"/JavaScript", b"/JS", b"/Launch", b"/OpenAction", b"/URI"):
        assert word not in data
    assert Image.open(io.BytesIO(hostile().figures["png"](width=6.75))).width == 1350


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is missing: apt-get install poppler-utils")
def test_words_of_a_pdf_can_be_searched_and_its_fonts_are_embedded(tmp_path):
    path = heads(1).save(tmp_path / "x.pdf", columns=2)
    said = subprocess.run(["pdftotext", path, "-"], capture_output=True, check=True)
    assert "北京" in said.stdout.decode()
    assert not said.stderr
    assert "<script>" in read(hostile().save(tmp_path / "y.pdf"))
    fonts = subprocess.run(["pdffonts", path], capture_output=True, text=True, check=True).stdout.splitlines()[2:]
    assert fonts
    assert all(re.search(r"\byes (yes|no) +yes\b", line) for line in fonts), fonts


def read(path: Path) -> str:
    return subprocess.run(["pdftotext", path, "-"], capture_output=True, check=True).stdout.decode()


def test_letters_of_a_pdf_are_truetype_where_the_fonts_are():
    data = square(3).figures["pdf"]()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
    assert b"/CIDFontType2" in data or any(b"/CIDFontType2" in zlib.decompress(s) for s in streams)
    assert b"/Type3" not in data
