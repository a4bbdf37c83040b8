"""What each position takes of the others, layer by layer, as a graph: paths into one token, thin ones left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.axes import LAYER
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.words import axis_word

MOST_ENTRIES: Final = 600_000  # contributions on one page: with them it stays below some 3 MB
MOST_EDGES: Final = 1_500  # lines at once: beyond, a picture is a felt, and a browser is slow
THRESHOLD: Final = 0.04  # that of the LM Transparency Tool (Tufanov et al. 2024)
_STEPS: Final = 65_535  # of a contribution's code
_ALL_ROWS: Final = 40  # tokens up to which a figure shows those without a line, too

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mixing:
    """What is drawn of one stack.

    Attributes:
        name: what a menu calls it.
        each: contributions of each layer by itself, ``[layer, query, key]``; rows sum to one, or are NaN.
        start: the row whose paths are shown at first.
        produced: the token that each row put out, None where it did not; None for plain passes.
    """

    name: Text
    each: Result
    start: int
    produced: tuple[str | None, ...] | None = None

    @property
    def values(self) -> torch.Tensor:
        """On the CPU, float32; rows that are undefined are zero."""
        return self.each.values.detach().to("cpu", torch.float32).nan_to_num(nan=0.0).clamp(0, 1)

    @property
    def undefined(self) -> list[int]:
        """Rows that are NaN, layer after layer."""
        found: list[int] = self.each.values.isnan().any(-1).flatten().nonzero().flatten().tolist()
        return found

    @property
    def texts(self) -> tuple[str, ...]:
        """The tokens."""
        return self.each.axes[-1].labels

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers by their block index."""
        return self.each.axes[0].labels


def graph_view(
    found: Sequence[Mixing],
    *,
    threshold: float = THRESHOLD,
    title: Text | str | None = None,
    most: int = MOST_ENTRIES,
) -> View:
    """One page for the contributions of a stack, or of several.

    Args:
        threshold: lines below this share are left out at first.
        most: contributions on one page; beyond, of each row the largest only, and the page says so.

    Raises:
        ArgumentError: a threshold outside 0…1.
    """
    if not 0 < threshold <= 1:
        raise ArgumentError(
            Text(
                f"expected a threshold above 0 and at most 1, got {threshold}",
                f"阈值应大于 0 且不超过 1，得到 {threshold}",
            )
        )
    heading = title or Text("Paths through the layers", "逐层的路径")
    kept = [_strongest(one, most // len(found)) for one in found]
    return page(
        heading,
        fragment("flow.html"),
        how_to_read=_reading(found, kept),
        footer=[*_sources(found), _BOUND],
        data={
            "threshold": threshold,
            "most": MOST_EDGES,
            "graphs": [_payload(one, *strongest) for one, strongest in zip(found, kept, strict=True)],
        },
        scripts=[own("colours.js"), own("flow.js")],
        style=own("flow.css"),
        wide=True,
        height=900,
        figures=figures.files(partial(_figure, found[0], threshold, str(heading))),
    )


def _strongest(one: Mixing, room: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row the largest contributions that fit, and their keys, ``[layer, query, rank]``."""
    layers, rows, keys = one.values.shape
    found = one.values.topk(min(keys, max(1, room // (layers * rows))), dim=-1)
    return found.values, found.indices


def _payload(one: Mixing, weights: torch.Tensor, keys: torch.Tensor) -> dict[str, Any]:
    others = one.values * (1 - torch.eye(len(one.texts)))  # what is taken of other tokens
    codes = (weights.double() * _STEPS).round().numpy().astype(np.uint16)
    return {
        "name": in_both(one.name),
        "layers": list(one.layers),
        "texts": [visible(text) for text in one.texts],
        "produced": None
        if one.produced is None
        else [text if text is None else visible(text) for text in one.produced],
        "start": one.start,
        "ranks": weights.shape[-1],
        "keys": packed(keys.numpy().astype(np.uint16 if len(one.texts) <= _STEPS else np.uint32)),
        "weights": packed(codes),
        "undefined": one.undefined,
        "others": {"lines": int((others > 0).sum()), "sum": float(others.double().sum())},
    }


_INPUT: Final = Text("input", "输入")
_GRAPH: Final = Text(
    "From left to right: the input, then every position after each layer. A line is what a position takes of another "
    "in one layer; a grey one stays on its own token, where the residual is.",
    "从左到右：输入，以及每一层之后的各个位置。一条线表示某位置在该层中取自另一位置的部分；灰线停留在自身词元上，残差即在其中。",
)
_PATHS: Final = Text(
    "The thickness of a line is that contribution. Shown are the paths into one position, the ringed dot: the size of "
    "a dot, and how dark a line is, is the share of it that passes there, the layers being multiplied (rollout). Click "
    "a dot, or move there with the arrow keys and press Enter, for the paths into it; “All lines” (Escape) shows every "
    "layer by itself, between different tokens.",
    "线的粗细即该贡献。图中为通向一个位置（带环的点）的路径：点的大小和线的深浅是它经过该处的占比，由各层相乘（rollout）得出。"
    "点击某点，或用方向键移到该点再按回车，可看通向它的路径；“全部连线”（Esc）逐层显示不同词元之间的连线。",
)
_LEFT_OUT: Final = Text(
    "Contributions below the threshold are left out; above the picture stands how many, and what share those drawn "
    "carry. Positions without a line are left out of long texts.",
    "低于阈值的贡献被略去；图上方写明条数及所画的线承载的占比。长文本中没有连线的位置也被略去。",
)
_BOUND: Final = Text(
    "Contributions are stored in 16 bits, within 0.00001 of the real number.",
    "贡献以 16 位存储，与真实值相差不超过 0.00001。",
)
_UNDEFINED: Final = Text("Undefined rows (NaN) take nothing here.", "未定义（NaN）的行在此不取任何内容。")
_CAVEAT: Final = Text(
    "Not shown: what the MLPs do, and whether the output depends on a path. Attention is not an explanation.",
    "未显示：MLP 的作用，以及输出是否依赖于某条路径。注意力本身不是解释。",
)


def _reading(found: Sequence[Mixing], kept: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Text]:
    cut = [
        _cut(one, weights) for one, (weights, _) in zip(found, kept, strict=True) if weights.shape[-1] < len(one.texts)
    ]
    undefined = [_UNDEFINED] if any(one.undefined for one in found) else []
    notes = [note for one in found for note in one.each.notes]
    return list(dict.fromkeys([*cut, _GRAPH, _PATHS, _LEFT_OUT, *undefined, *notes, _CAVEAT]))


def _cut(one: Mixing, weights: torch.Tensor) -> Text:
    ranks = weights.shape[-1]
    share = float(weights.sum() / one.values.sum())
    return Text(
        f"Too much for one page ({len(one.texts):,} tokens): of each row of {one.name.en} the {ranks} largest "
        f"contributions are here, {share:.1%} of all: what is left out is in no path, and shares over several layers "
        "are lower bounds.",
        f"一页容不下（{len(one.texts):,} 个词元）：{one.name.zh}的每行只含最大的 {ranks} 个贡献，占全部的 {share:.1%}："
        "略去的部分不在任何路径中，跨层的占比因此是下界。",
    )


def _sources(found: Sequence[Mixing]) -> list[Text]:
    sources = dict.fromkeys(one.each.source for one in found if one.each.source)
    idea = "Tufanov et al. 2024 (the graph)"
    return [Text(f"Source: {one}; {idea}", f"出处：{one}；{idea}") for one in sources]


@dataclass(frozen=True)
class Edge:
    """What ``query`` takes of ``key`` in the layer that follows ``level``, and the share of the whole that passes."""

    share: float
    contribution: float
    level: int
    query: int
    key: int


def paths(values: Floats, row: int, threshold: float) -> tuple[list[Edge], Floats]:
    """The lines into one row of the last layer that reach the threshold, the strongest first, and the share of it that
    passes through each position, ``[level, position]``, the input being level 0."""
    shares, reached, found = [np.eye(values.shape[-1])[row]], {row}, []
    for level in reversed(range(len(values))):
        wide = [(query, key) for query in sorted(reached) for key in np.flatnonzero(values[level, query] >= threshold)]
        for query, key in wide:
            contribution = float(values[level, query, key])
            found.append(Edge(float(shares[-1][query]) * contribution, contribution, level, query, int(key)))
        reached = {int(key) for _, key in wide}
        shares.append(shares[-1] @ values[level])
    return sorted(found, key=lambda edge: -edge.share), np.stack(shares[::-1])


def carried(edges: Sequence[Edge], row: int) -> float:
    """The share of a row that arrives at the input along these lines."""
    held = {(max((edge.level for edge in edges), default=0) + 1, row): 1.0}
    for edge in sorted(edges, key=lambda edge: -edge.level):
        below = (edge.level, edge.key)
        held[below] = held.get(below, 0.0) + held.get((edge.level + 1, edge.query), 0.0) * edge.contribution
    return sum(share for (level, _), share in held.items() if level == 0)


def _figure(one: Mixing, threshold: float, title: str) -> Any:
    """The paths into the row that is shown at first."""
    from matplotlib.collections import LineCollection

    values = one.values.double().numpy()
    edges, shares = paths(values, one.start, threshold)
    edges = edges[:MOST_EDGES]
    used = {one.start} | {place for edge in edges for place in (edge.query, edge.key)}
    rows = list(range(len(one.texts))) if len(one.texts) <= _ALL_ROWS else sorted(used)
    at = {place: n for n, place in enumerate(rows)}
    figure = figures.new_figure(min(max(5.0, 2.4 + 0.9 * len(values)), 14), max(2.2, 1.3 + 0.2 * len(rows)))
    panel = figure.add_subplot()
    ends = [one.texts[n] if len(rows) == len(one.texts) else f"{one.texts[n]} ({n})" for n in rows]
    told = str(
        Text(
            f"{len(edges)} lines of {threshold:g} and more carry {carried(edges, one.start):.0%} of that row",
            f"{len(edges)} 条不小于 {threshold:g} 的线，承载该行的 {carried(edges, one.start):.0%}",
        )
    )
    below = [str(_INPUT), *(f"{axis_word(LAYER)} {name}" for name in one.layers)]
    fonts = figures.fonts_for([title, told, *ends, *below])
    for own_token, colour in ((True, "#8b949e"), (False, "#0b62c4")):
        some = [edge for edge in edges if (edge.query == edge.key) == own_token]
        segments = [[(edge.level, at[edge.key]), (edge.level + 1, at[edge.query])] for edge in some]
        widths, dark = [0.4 + 6 * edge.contribution for edge in some], [0.2 + 0.8 * edge.share**0.5 for edge in some]
        panel.add_collection(LineCollection(segments, colors=colour, linewidths=widths, alpha=dark or None))
    level, place = np.mgrid[: len(shares), : len(rows)]
    sizes = 3 + 60 * shares[:, rows]
    panel.scatter(level.ravel(), place.ravel(), s=sizes.ravel(), color="#1b1f24", zorder=3)
    figures.label_ticks(panel.yaxis, ends, fonts)
    figures.label_ticks(panel.xaxis, below, fonts)
    panel.tick_params(length=0)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlim(-0.15, len(values) + 0.15)
    panel.spines[:].set_visible(False)
    figures.write(panel.set_title("", fontsize=9), told, fonts)
    figures.write(figure.suptitle("", fontsize=11), title, fonts)
    return figure
