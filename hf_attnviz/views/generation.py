"""A generation, step by step: keys × steps as a heat map, the text in the colours of one step, statistics as lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.axes import KEY, LAYER, STEP
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.trace import AttentionStack
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed, weight_note, weight_numbers
from hf_attnviz.views.evolution import mean_over_heads
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.sources import source_line
from hf_attnviz.views.words import axis_word, statistic_words

MEAN: Final = -1  # in the place of a head: the mean over the heads of its layer
MOST_CELLS: Final = 6_400_000  # of one page: with them it stays below some 8 MB
_DRAWN: Final = ("entropy", "drift", "lookback_ratio")  # lines of a figure on paper
_MOST_LABELS: Final = 40  # of the steps, in a figure on paper

Place = tuple[int, int]  # a layer's place in its stack, and a head or MEAN


@dataclass(frozen=True, eq=False)
class Generation:
    """The attention of one generation.

    Attributes:
        name: what a menu calls it.
        stack: maps that keep their weights, of one shape.
        numbers: the result of ``evolution(trace)``, ``[statistic, step, layer, head]``.
    """

    name: Text
    stack: AttentionStack
    numbers: Result

    @cached_property
    def rows(self) -> list[int]:
        """The rows that put out a token, one a step."""
        return [n for n, text in enumerate(self.stack.maps[0].produced or ()) if text is not None]

    @property
    def produced(self) -> list[str]:
        """The token that each step put out."""
        texts = self.stack.maps[0].produced or ()
        return [texts[n] or "" for n in self.rows]

    @property
    def counts(self) -> list[int]:
        """How many keys there were at each step."""
        ends = self.stack.maps[0].positions
        return [len(self.stack.keys) if ends is None else ends[n] + 1 for n in self.rows]

    @property
    def cells(self) -> int:
        """Of one picture."""
        return len(self.rows) * len(self.stack.keys)

    def of_layer(self, layer: int) -> torch.Tensor:
        """``[head, step, key]``."""
        return self.stack.maps[layer].weights[:, self.rows].detach().to("cpu", torch.float32)

    def weights(self, place: Place) -> torch.Tensor:
        """``[step, key]`` of a head, or the mean over the heads of a layer."""
        return _picked(self.of_layer(place[0]), place[1])

    def told(self, place: Place) -> npt.NDArray[Any]:
        """Its statistics ``[statistic, step]``; of a mean, the mean of what the heads have."""
        layer, head = place
        values: npt.NDArray[Any] = self.numbers.values[:, :, layer].float().cpu().numpy()
        return mean_over_heads(values) if head == MEAN else values[..., head]


def generation_view(
    found: Sequence[Generation],
    *,
    layer: int | None = None,
    head: int | None = None,
    exact: bool = False,
    title: Text | str | None = None,
    most: int = MOST_CELLS,
) -> View:
    """One page for generations, or for several stacks or candidates of one.

    Args:
        layer, head: what is shown at first; default: the first layer, the mean over its heads.
        exact: weights as 16-bit floats and not as bytes; the page says what that takes.
        most: numbers on one page; what has more is drawn with fewer heads, then with keys in bins, and says so.

    Raises:
        UnknownNameError: no such layer or head.
    """
    start = _start(found, layer, head)
    room = most // len(found) // (2 if exact else 1)
    parts = [_Part(one, _kept(one, start, room), room, exact) for one in found]
    heading = title or Text("Generation, step by step", "逐步看生成")
    drawn = found[0]
    payloads = [part.payload() for part in parts]
    return page(
        heading,
        fragment("generation.html"),
        how_to_read=_reading(parts),
        footer=_footer(parts, sum(len(one["weights"]) for one in payloads), exact),
        data={"start": list(start), "exact": exact, "generations": payloads},
        scripts=[own("colours.js"), own("generation.js")],
        style=own("heatmap.css") + own("generation.css"),
        wide=True,
        height=1100,
        figures=figures.files(partial(_figure, drawn, start, str(heading))),
    )


def _start(found: Sequence[Generation], layer: int | None, head: int | None) -> Place:
    stack = found[0].stack
    if layer is not None and layer not in stack.layers:
        raise UnknownNameError(
            Text(
                f"no layer {layer} to show; there are: {listed(stack.layers)}",
                f"没有第 {layer} 层可显示；可用：{listed(stack.layers, '无')}",
            )
        )
    heads = stack.maps[0].heads
    if head is not None and not 0 <= head < heads:
        raise UnknownNameError(
            Text(f"expected a head from 0 to {heads - 1}, got {head}", f"头应为 0 到 {heads - 1}，得到 {head}")
        )
    return 0 if layer is None else stack.layers.index(layer), MEAN if head is None else head


def _kept(one: Generation, start: Place, room: int) -> list[Place]:
    """The pictures that fit: all heads of all layers; those of one layer, and means; means; always what is shown."""
    layers, heads = len(one.stack.maps), one.stack.maps[0].heads
    means = [(layer, MEAN) for layer in range(layers)]
    first = min(start[0], layers - 1)
    for wide in (range(layers), [first]):
        chosen = [*means, *((layer, head) for layer in wide for head in range(heads))]
        if len(chosen) * one.cells <= room:
            return chosen
    return [*means, *([(first, start[1])] if start[1] != MEAN and start[1] < heads else [])]


@dataclass(frozen=True, eq=False)
class _Part:
    """What a page carries of one generation.

    Attributes:
        places: which pictures.
        room: how many numbers they may have.
        exact: weights as 16-bit floats.
    """

    one: Generation
    places: list[Place]
    room: int
    exact: bool

    @property
    def bin(self) -> int:
        """How many keys share a cell."""
        whole = len(self.places) * self.one.cells
        return max(1, -(-whole // self.room))

    @property
    def whole(self) -> bool:
        """Whether it has every head."""
        return len(self.places) == len(self.one.stack.maps) * (1 + self.one.stack.maps[0].heads)

    @cached_property
    def weights(self) -> torch.Tensor:
        """``[picture, step, cell]``; a cell of several keys is their sum."""
        found: dict[Place, torch.Tensor] = {}
        for layer in range(len(self.one.stack.maps)):  # one at a time: packed weights are unpacked anew
            rows = self.one.of_layer(layer)
            found |= {place: _binned(_picked(rows, place[1]), self.bin) for place in self.places if place[0] == layer}
        return torch.stack([found[place] for place in self.places])

    def payload(self) -> dict[str, Any]:
        one, stack = self.one, self.one.stack
        lost = self.weights.isnan().any(-1).flatten().nonzero().flatten().tolist()
        values = one.numbers.values.detach().float().cpu().flatten(2)
        ends = [values.nan_to_num(nan=torch.inf).amin(-1), values.nan_to_num(nan=-torch.inf).amax(-1)]
        return {
            "name": in_both(one.name),
            "leftOut": [in_both(note) for note in _left_out(self)],
            "cross": stack.maps[0].kind == "cross",
            "layers": list(map(str, stack.layers)),
            "places": [list(place) for place in self.places],
            "bin": self.bin,
            "counts": one.counts,
            "keys": [visible(text) for text in stack.keys.texts],
            "read": [visible(stack.queries.texts[n]) for n in one.rows],
            "produced": [visible(text) for text in one.produced],
            "weights": packed(weight_numbers(self.weights, exact=self.exact)),
            "undefined": lost,
            "statistics": [
                {"name": in_both(name), "meaning": in_both(meaning)}
                for name, meaning in map(statistic_words, one.numbers.axes[0].labels)
            ],
            "numbers": packed(np.stack([one.told(place) for place in self.places]).astype(np.float32)),
            "ends": packed(torch.stack(ends).numpy()),
        }


def _picked(rows: torch.Tensor, head: int) -> torch.Tensor:
    return rows.mean(0) if head == MEAN else rows[head]


def _binned(weights: torch.Tensor, size: int) -> torch.Tensor:
    """``[step, key]`` → sums over so many keys."""
    if size == 1:
        return weights
    padded = torch.nn.functional.pad(weights, (0, -weights.shape[-1] % size))
    return padded.reshape(len(weights), -1, size).sum(-1).clamp(max=1)


_MAP: Final = Text(
    "The map: a row is a decoding step, with the token that it put out; a column is a key, that is, a token that could "
    "be looked at. Each row sums to one. Blank cells are keys that were not there yet.",
    "热力图：每行是一个解码步，标签为该步产出的词元；每列是一个键，即可被注意的词元。每行之和为一。空白格为当时尚不存在的键。",
)
_COLOUR: Final = Text(
    "Colour goes with the square root of the weight, so that small weights are seen beside a large one; its end is the "
    "largest weight of the picture, at all its steps. The text above has the colours of the chosen step; the token "
    "framed is the one that this step put out. Point at a token or a cell, or move there with the arrow keys, for the "
    "number.",
    "颜色随权重的平方根而变，使小权重在大权重旁仍可见；色条终点为该图所有步中的最大权重。上方文本用所选步的权重着色，"
    "带框的是该步产出的词元。指向某词元或格子，或用方向键移动，可看到数值。",
)
_LINES: Final = Text(
    "The lines: a statistic each, of the head chosen (of a mean: the mean of what its heads have). The band reaches "
    "from the least to the largest of all heads of all layers; gaps are undefined.",
    "折线：每格一个统计量，属于所选的头（若为平均，则为各头数值的平均）。色带自所有层所有头的最小值至最大值；空缺为未定义。",
)
_CAVEAT: Final = Text(
    "Not shown: whether the output depends on it. Attention is not an explanation.",
    "未显示：输出是否依赖于它。注意力本身不是解释。",
)


def _reading(parts: Sequence[_Part]) -> list[Text]:
    left_out = [note for part in parts for note in _left_out(part)]
    notes = [_of(part, note, several=len(parts) > 1) for part in parts for note in part.one.numbers.notes]
    return list(dict.fromkeys([*left_out, _MAP, _COLOUR, _LINES, *notes, _CAVEAT]))


def _of(part: _Part, note: Text, *, several: bool) -> Text:
    """A note, with whose it is."""
    name = part.one.name
    return Text(f"{name.en}: {note.en}", f"{name.zh}：{note.zh}") if several else note


def _left_out(part: _Part) -> list[Text]:
    """What did not fit on the page."""
    found, stack = [], part.one.stack
    name, steps, keys = part.one.name, len(part.one.rows), len(stack.keys)
    if not part.whole:
        chosen = sorted({layer for layer, head in part.places if head != MEAN})
        layers = listed(stack.layers[n] for n in chosen)
        some = (f", and heads of layer {layers} alone", f"；单个头仅限第 {layers} 层") if chosen else ("", "")
        found.append(
            Text(
                f"Too much for one page ({steps:,} steps × {keys:,} keys): of {name.en} each layer is shown as the "
                f"mean over its heads{some[0]}. Choose others with layer=… and head=….",
                f"一页容不下（{steps:,} 步 × {keys:,} 个键）：{name.zh}的各层只显示各头的平均{some[1]}。"
                "可用 layer=… 和 head=… 另选。",
            )
        )
    if part.bin > 1:
        found.append(
            Text(
                f"Coarser: {part.bin} neighbouring keys of {name.en} share a cell, which holds their sum.",
                f"已变粗：{name.zh}中相邻的 {part.bin} 个键共用一格，格中为其和。",
            )
        )
    return found


def _footer(parts: Sequence[_Part], size: int, exact: bool) -> list[Text]:
    sources = dict.fromkeys(part.one.numbers.source for part in parts if part.one.numbers.source)
    return [*(source_line(one) for one in sources), weight_note(size, exact=exact)]


def _figure(one: Generation, start: Place, title: str) -> Any:
    """The map of one head or mean, and three of its lines under it."""
    from matplotlib.colors import PowerNorm

    weights, numbers, names = one.weights(start).numpy(), one.told(start), one.numbers.axes[0].labels
    if weights.shape[0] * weights.shape[1] == 0:
        raise ArgumentError(Text("expected steps and keys to draw, got none", "应有可画的步与键，得到零个"))
    keys, steps = one.stack.keys.texts, [f"{n} → {text}" for n, text in enumerate(one.produced)]
    lines = [name for name in _DRAWN if name in names]
    height = min(max(2.4, 1.2 + 0.17 * len(steps)), 7)
    figure = figures.new_figure(min(max(4.5, 2 + 0.2 * len(keys)), 10), height + 1.1 * len(lines) + 0.4)
    words = [str(statistic_words(name)[0]) for name in lines]
    shown = f"{axis_word(LAYER)} {one.stack.layers[start[0]]} · {_head_word(start[1])}"
    fonts = figures.fonts_for([title, shown, *words, *keys, *steps, *(str(axis_word(n)) for n in (KEY, STEP))])
    grid = figure.add_gridspec(1 + len(lines), 1, height_ratios=[height, *[1.1] * len(lines)])
    panel = figure.add_subplot(grid[0])
    later = np.arange(len(keys)) >= np.array(one.counts)[:, None]
    weights = np.where(later, 0, weights)
    image = figures.heat(panel, weights, diverging=False, low=0, high=1)
    image.set_data(np.ma.masked_where(later | np.isnan(weights), weights))  # not there yet is blank, not zero
    image.set_norm(PowerNorm(0.5, 0, max(float(np.nanmax(weights, initial=0)), 1e-6)))
    figures.label_ticks(panel.xaxis, keys, fonts, rotation=90)
    every = max(1, -(-len(steps) // _MOST_LABELS))
    figures.label_ticks(panel.yaxis, [text if n % every == 0 else "" for n, text in enumerate(steps)], fonts)
    figures.write(panel.xaxis.label, str(axis_word(KEY)), fonts)
    figures.write(panel.yaxis.label, str(axis_word(STEP)), fonts)
    figures.write(panel.set_title("", fontsize=9), shown, fonts)
    figure.colorbar(image, ax=panel, shrink=0.9).ax.tick_params(labelsize=8)
    for place, (name, word) in enumerate(zip(lines, words, strict=True)):
        below = figure.add_subplot(grid[place + 1])
        below.plot(numbers[names.index(name)], color="#0b62c4", linewidth=1.3, marker="o", markersize=2)
        below.set_xlim(-0.5, len(steps) - 0.5)
        below.tick_params(labelsize=8)
        below.spines[["top", "right"]].set_visible(False)
        figures.write(below.set_title("", fontsize=9, loc="left"), word, fonts)
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    return figure


def _head_word(head: int) -> str:
    if head == MEAN:
        return str(Text("mean over heads", "各头平均"))
    return str(Text(f"head {head}", f"第 {head} 头"))
