"""What is printed in a terminal: the shade of each number, in lines that fit, with colours and without."""

import io
import math
import re

import numpy as np
import pytest
import torch
from rich.cells import cell_len

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError
from hf_attnviz.labels import Labels
from hf_attnviz.language import set_language
from hf_attnviz.result import Axis, Result
from tests.views.builders import a_map, rows

ANSI = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = ["[red]hot[/]", "\x1b[31mz", "a\u202eb", "x\x00y", "\u2028", "$x_1$", "<b>"]
WIDTHS = (40, 80, 120)


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    set_language("en")


class Screen(io.StringIO):
    """A terminal, as far as Python can tell."""

    def isatty(self) -> bool:
        return True


def printed(draw, *data, file=None, **options) -> str:
    file = file or io.StringIO()
    draw(*data, file=file, **options)
    return file.getvalue()


def shade_of(value: float, largest: float) -> str:
    """By arithmetic of its own: from 1/20, 1/4, 1/2 and 3/4 of the largest."""
    twentieths = math.floor(20 * abs(value) / largest + 1e-9)
    return "█" if twentieths >= 15 else "▓" if twentieths >= 10 else "▒" if twentieths >= 5 else " ░"[twentieths >= 1]


def cells_of(text: str, count: int, across: int, room: int) -> list[list[str]]:
    """The two characters of each cell of the last matrix of `count` rows."""
    lines = [line for line in ANSI.sub("", text).splitlines() if re.match(r"r\d+ ", line)]
    assert len(lines) == count
    return [[line[room + 2 * n : room + 2 * n + 2] for n in range(across)] for line in lines]


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
def test_each_cell_has_the_shade_of_its_number(width: int, colour: bool) -> None:
    values = torch.rand(7, 18, generator=torch.Generator().manual_seed(3))
    names = [f"r{n}" for n in range(7)]
    text = printed(av.print_heatmap, values, rows=names, width=width, colour=colour)
    wanted = [[shade_of(value, float(values.max())) * 2 for value in row] for row in values.tolist()]
    assert cells_of(text, 7, 18, 3) == wanted
    assert bool(ANSI.search(text)) == colour


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [80, 120])
def test_numbers_stand_beside_their_shades_where_there_is_room(width: int, colour: bool) -> None:
    values = torch.rand(5, 6, generator=torch.Generator().manual_seed(3))
    text = ANSI.sub("", printed(av.print_heatmap, values, rows=["r"] * 5, width=width, colour=colour))
    lines = [line for line in text.splitlines() if line.startswith("r ")]
    found = [re.findall(r"([0-9.]+) ([ ░▒▓█])", line) for line in lines]
    largest = float(values.max())
    assert found == [[(f"{v:.3g}", shade_of(v, largest)) for v in row] for row in values.tolist()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [3, 30, 300])
def test_no_line_is_wider_than_the_terminal(width: int, size: int) -> None:
    labels = [("北京烤鸭和一个很长的词", "cat", "👩‍👩‍👧", "e\u0301te\u0301")[n % 4] for n in range(size)]
    values = rows(1, size, size, 1)[0]
    for language in ("en", "zh"):
        set_language(language)
        for draw, more in (
            (av.print_heatmap, {"rows": labels, "columns": labels}),
            (av.print_bars, {"labels": labels}),
        ):
            text = printed(draw, values if draw is av.print_heatmap else values[0], width=width, **more)
            assert max(map(cell_len, text.splitlines())) <= width
        assert max(map(cell_len, printed(av.print_tokens, labels, values[0], width=width).splitlines())) <= width


def test_what_does_not_fit_is_folded_or_pooled_and_that_is_said() -> None:
    values = torch.rand(4, 30, generator=torch.Generator().manual_seed(0))
    folded = printed(av.print_heatmap, values, rows=["r0", "r1", "r2", "r3"], width=40)
    assert "columns 0 to 14 of 30" in folded
    assert "columns 15 to 29 of 30" in folded
    blocks = folded.split("columns 15 to 29")
    for number, block in enumerate(blocks):
        part = values[:, 15 * number : 15 * number + 15].tolist()
        assert cells_of(block, 4, 15, 3) == [[shade_of(v, float(values.max())) * 2 for v in row] for row in part]
    values = torch.rand(90, 200, generator=torch.Generator().manual_seed(0))
    pooled = printed(av.print_heatmap, values, width=80)
    assert "90 × 200 cells do not fit. Each cell shows the largest of up to 3 × 6 neighbours" in " ".join(
        pooled.split()
    )
    first = next(line for line in pooled.splitlines() if line.startswith("87 "))
    wanted = [shade_of(float(values[87:, n : n + 6].max()), float(values.max())) for n in range(0, 200, 6)]
    assert first[3:].rstrip() == "".join(shade * 2 for shade in wanted).rstrip()


def test_below_zero_and_undefined_are_told_without_colour() -> None:
    values = torch.tensor([[1.0, -1.0, float("nan")] * 6])
    text = printed(av.print_heatmap, values, rows=["r0"], width=40)
    assert cells_of(text, 1, 18, 3) == [["██", "-█", "??"] * 6]
    assert "a minus: below zero" in text
    assert "? is undefined (NaN): 6" in text


def test_colours_are_for_terminals_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.eye(3)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[38" in printed(av.print_heatmap, values, file=Screen())
    assert "\x1b" not in printed(av.print_heatmap, values)  # a pipe
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38" not in printed(av.print_heatmap, values, file=Screen())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    plain = printed(av.print_heatmap, values, file=Screen(), title="t")
    assert "\x1b" not in plain
    assert "█" in plain


def test_an_encoding_without_shades_has_others() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    av.print_heatmap(torch.tensor([[0.1, 0.3, 0.6, 1.0] * 5]), rows=["北"], file=file, width=60)
    text = raw.getvalue().decode("ascii")
    assert "..::**##" in text
    assert "\\u5317" in text


def test_an_attention_map_brings_labels_and_one_head_is_chosen() -> None:
    found = a_map(Labels.plain(["我", "爱", "吃"]), Labels.plain(["我", "爱", "吃"]), heads=2)
    text = printed(av.print_heatmap, found, head=1, width=80)
    assert "encoder · layer 0 · head 1" in text
    for name, row in zip(["我", "爱", "吃"], found.weights[1].tolist(), strict=True):
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert re.findall(r"[0-9.]+", line) == [f"{v:.3g}" for v in row]
    mean = printed(av.print_heatmap, found, width=80)
    assert f"{float(found.weights[:, 2, 1].double().mean()):.3g}" in mean
    with pytest.raises(UnknownNameError, match="no head 2"):
        av.print_heatmap(found, head=2)


def test_tokens_stand_as_a_text_with_their_shades() -> None:
    labels = Labels(("un", "kind", "cat", "我", "爱"), (None,) * 5, (0, 0, 1, 2, 3), ())
    text = printed(av.print_tokens, labels, [1.0, 0.6, -0.3, 0.1, float("nan")], width=40)
    assert text.splitlines()[0] == "un█kind▓ cat-▒我░爱?"
    assert "largest: un (0) 1, kind (1) 0.6, cat (2) -0.3" in " ".join(text.split())


def test_tokens_of_a_map_are_a_row_or_the_mean() -> None:
    found = a_map(Labels.plain(["a", "b"]), Labels.plain(["a", "b"]), heads=2)
    row = found.weights[0, 1].tolist()
    largest = max(row)
    said = printed(av.print_tokens, found, query=1, head=0, width=80)
    assert "query b (1)" in said
    assert f"a{shade_of(row[0], largest)} b{shade_of(row[1], largest)}" in said.replace("\n", "")
    assert f"{float(found.weights.mean((0, 1)).max()):.3g}" in printed(av.print_tokens, found, width=80)
    result = Result(found.weights[0], (Axis("query", ("a", "b")), Axis("key", ("a", "b"))), "attention rollout")
    assert "Attention rollout · query b (1)" in printed(av.print_tokens, result, query=1, width=80)
    with pytest.raises(UnknownNameError, match="no query 2"):
        av.print_tokens(found, query=2)
    with pytest.raises(ShapeError, match="each of 2 tokens"):
        av.print_tokens(["a", "b"], [1.0])


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_as_long_as_their_numbers(width: int) -> None:
    numbers = [0.0, 1.0, 2.5, 4.0]
    text = printed(av.print_bars, numbers, labels=["a", "b", "c", "北京"], width=width)
    longest = width - 4 - 3 - 2
    bars = {"░": 0.25, "▒": 0.5, "▓": 0.75, "█": 1.0}
    for line, value in zip(text.splitlines(), numbers, strict=True):
        length = sum(bars.get(letter, 0) for letter in line)
        assert abs(length - longest * value / 4) <= 0.125
    both = printed(av.print_bars, [1.0, -1.0], labels=["a", "b"], width=width).splitlines()
    assert both[0].index("█") == both[1].rindex("█") + 1


def test_bars_of_an_evolution() -> None:
    values = torch.rand(2, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    axes = (
        Axis("statistic", ("entropy", "span")), Axis("step", ("0 → I", "1 → love", "2 → duck")),
        Axis("layer", ("0", "1")), Axis("head", tuple("0123")),
    )  # fmt: skip
    result = Result(values, axes, "evolution over decoding steps")
    text = printed(av.print_bars, result, statistic="span", width=80)
    assert "mean over layers and heads" in text
    for line, name, mean in zip(text.splitlines()[1:], axes[1].labels, np.asarray(values[1].mean((1, 2))), strict=True):
        assert line.split("█")[0].split() == [*name.split(), f"{mean:.3g}"]
    with pytest.raises(UnknownNameError, match="entropy, span"):
        av.print_bars(result)
    with pytest.raises(ArgumentError, match=r"select\(statistic=…, step=…\)"):
        av.print_heatmap(result)


@pytest.mark.parametrize("colour", [True, False])
def test_text_of_others_is_text(colour: bool) -> None:
    size = len(HOSTILE)
    values = torch.eye(size)
    options = {"width": 200, "colour": colour, "title": "".join(HOSTILE)}
    several = [
        printed(av.print_heatmap, values, rows=HOSTILE, columns=HOSTILE, **options),
        printed(av.print_tokens, HOSTILE, [1.0] * size, **options),
        printed(av.print_bars, [1.0] * size, labels=HOSTILE, **options),
    ]
    for text in several:
        bare = ANSI.sub("", text)
        assert "[red]hot[/]" in bare
        assert "⟨U+001B⟩[31mz" in bare
        assert "a⟨U+202E⟩b" in bare
        assert "x⟨U+0000⟩y" in bare
        assert not set(bare) & set("\x1b\x00\u202e\u2028")


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(ArgumentError, match="24 columns or more, got 10"):
        av.print_heatmap(torch.eye(2), width=10)
    with pytest.raises(ArgumentError, match=r"weights\[0\]"):
        av.print_heatmap(torch.zeros(2, 2, 2))
    with pytest.raises(ShapeError, match="expected 2 rows"):
        av.print_heatmap(torch.eye(2), rows=["a"])
    with pytest.raises(ArgumentError, match="along one axis") as refused:
        av.print_bars(torch.eye(2))
    set_language("zh")
    assert "应为沿单个轴的数值" in str(refused.value)
