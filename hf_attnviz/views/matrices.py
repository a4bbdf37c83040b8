"""Matrices in a grid under one colour bar, as the book *Dive into Deep Learning* draws them (https://d2l.ai, 11.1)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed
from hf_attnviz.views.page import fragment, own, page

_MOST_PANELS: Final = 256
_MOST_NUMBERS: Final = 2_000_000  # that a page holds: 8 MB before compression
_PIXELS_OF_AN_INCH: Final = 150  # in a page: larger than on paper, so that cells can be pointed at
_WIDEST: Final = 1100  # pixels, of a figure in a page
_USUAL_COLOURS: Final = ("Reds", "Blues", "Greens", "viridis", "magma", "cividis", "RdBu_r")
_TITLE: Final = Text("Heat maps", "热力图")
_READING: Final = Text(
    "Each square is a matrix: a row is a query, a column is a key. All of them share one scale of colours: equal "
    "colours are equal numbers, and the bar says which.",
    "每个方块是一个矩阵：行为查询，列为键。所有矩阵共用一个色标：颜色相同即数值相同，对应关系见色条。",
)
_KEYS: Final = Text(
    "Point at a cell for its number; with the keyboard, arrow keys move from cell to cell, Page Up and Page Down from "
    "matrix to matrix.",
    "指向某格可看到数值；用键盘时，方向键在格间移动，Page Up 与 Page Down 在矩阵间移动。",
)
_WITHOUT_NUMBERS: Final = Text(
    f"There are more than {_MOST_NUMBERS:,} numbers, too many for a page: it shows the picture without them.",
    f"数值超过 {_MOST_NUMBERS:,} 个，页面容不下：只显示图，不含数值。",
)
_HATCHED: Final = Text("Hatched cells are masked or undefined.", "带斜纹的格子被遮蔽或未定义。")
_SUMS: Final = Text("If these are attention weights, each row sums to one.", "若为注意力权重，则每行之和为一。")
_CAVEAT: Final = Text(
    "Not shown: whether the output depends on it. Attention is not an explanation.",
    "未显示：输出是否依赖于它。注意力本身不是解释。",
)


def show_heatmaps(
    matrices: Any,
    xlabel: str,
    ylabel: str,
    titles: Sequence[str] | Sequence[Sequence[str]] | None = None,
    figsize: tuple[float, float] = (2.5, 2.5),
    cmap: str = "Reds",
    *,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    title: Text | str | None = None,
) -> View:
    """A grid of matrices with shared axes under one colour bar; it shows itself in a notebook and saves as html, svg,
    png and pdf.

    Args:
        matrices: ``[rows, columns, query, key]``, of torch or numpy; what is NaN, infinite or masked is hatched.
        xlabel, ylabel: names of the axes: usually ``"Keys"`` and ``"Queries"``.
        titles: a title for each column, or for each row a list of them.
        figsize: inches of the whole figure, width and height.
        cmap: one of matplotlib's colour maps.
        queries, keys: names of the rows and columns of each matrix; without them their numbers.
        title: the page's heading.

    Raises:
        ArgumentError: another shape, titles or names that are too many or too few, a figure too small for its panels.
        UnknownNameError: no such colour map.
    """
    values = _grid(matrices)
    names = _titles(titles, values)
    labels = [_names(given, size, word) for given, size, word in _ends(queries, keys, values)]
    _known_colours(cmap)
    width, height = _checked_size(figsize)
    draw = partial(_figure, values, (xlabel, ylabel), names, labels, (width, height), cmap)
    light, dark = figures.inline(draw), figures.inline(draw, dark=True)
    shown = values.size <= _MOST_NUMBERS
    pixels = min(width * _PIXELS_OF_AN_INCH, _WIDEST)
    data = {
        "shape": values.shape,
        "titles": [[visible(text) for text in row] for row in names],
        "ends": [visible(ylabel), visible(xlabel)],
        "labels": [None if some is None else [visible(text) for text in some] for some in labels],
        "boxes": light.boxes,
        "values": packed(values) if shown else None,
    }
    hatched = [] if np.isfinite(values).all() else [_HATCHED]
    return page(
        title or _TITLE,
        fragment("matrices.html", light=light.svg, dark=dark.svg, width=round(pixels)),
        how_to_read=[_READING, _KEYS if shown else _WITHOUT_NUMBERS, *hatched, _SUMS, _CAVEAT],
        data=data,
        scripts=[own("colours.js"), own("matrices.js")],
        style=own("matrices.css"),
        height=round(pixels * height / width) + 60,
        figures=figures.files(draw),
    )


def _grid(matrices: Any) -> npt.NDArray[np.float32]:
    """``[rows, columns, query, key]`` with NaN for what is masked or infinite."""
    if isinstance(matrices, torch.Tensor):
        matrices = matrices.detach().to("cpu")
        matrices = (matrices.float() if matrices.is_floating_point() else matrices).numpy()
    try:
        found = np.ma.filled(np.ma.asarray(matrices, dtype=np.float32), np.nan)
    except (TypeError, ValueError) as error:
        kind = type(matrices).__name__
        raise ArgumentError(
            Text(
                f"expected numbers [rows, columns, query, key], got {kind}",
                f"应为数值 [行, 列, 查询, 键]，得到 {kind}",
            )
        ) from error
    if found.ndim != 4 or not found.size:
        ways = {2: "matrices[None, None]", 3: "matrices[None]"}
        way = ways.get(found.ndim) if found.size else None
        raise ArgumentError(
            Text(
                f"expected matrices [rows, columns, query, key], none empty; got shape {found.shape}"
                + (f": write {way}" if way else ""),
                f"应为非空的矩阵 [行, 列, 查询, 键]，得到形状 {found.shape}" + (f"：请写作 {way}" if way else ""),
            )
        )
    if found.shape[0] * found.shape[1] > _MOST_PANELS:
        raise ArgumentError(
            Text(
                f"expected at most {_MOST_PANELS} matrices in one figure, got {found.shape[0]} × {found.shape[1]}: "
                "draw a part of them",
                f"一幅图最多 {_MOST_PANELS} 个矩阵，得到 {found.shape[0]} × {found.shape[1]}：请只画一部分",
            )
        )
    return np.asarray(np.where(np.isfinite(found), found, np.nan), dtype=np.float32)


def _titles(titles: Any, values: npt.NDArray[Any]) -> list[list[str]]:
    """A title for each matrix."""
    down, across = values.shape[:2]
    if titles is None:
        return [[""] * across for _ in range(down)]
    each_row = [list(row) for row in titles] if titles and not isinstance(titles[0], str) else [list(titles)] * down
    if isinstance(titles, str) or len(each_row) != down or any(len(row) != across for row in each_row):
        raise ArgumentError(
            Text(
                f"expected {across} titles, one for each column, or {down} lists of {across}; got {titles!r}",
                f"应有 {across} 个标题（每列一个），或 {down} 个各含 {across} 个标题的列表；得到 {titles!r}",
            )
        )
    return [[str(text) for text in row] for row in each_row]


def _ends(queries: Any, keys: Any, values: npt.NDArray[Any]) -> list[tuple[Any, int, str]]:
    return [(queries, values.shape[2], "queries"), (keys, values.shape[3], "keys")]


def _names(given: Sequence[str] | None, size: int, word: str) -> list[str] | None:
    if given is None:
        return None
    if isinstance(given, str) or len(given) != size:
        raise ArgumentError(
            Text(
                f"expected {size} names for {word}, one for each, got {len(given)}: {given!r}"[:300],
                f"{word} 应有 {size} 个名称，每个一项，得到 {len(given)} 个：{given!r}"[:300],
            )
        )
    return [str(text) for text in given]


def _known_colours(cmap: str) -> None:
    from matplotlib import colormaps

    if cmap not in colormaps:
        known = listed(_USUAL_COLOURS)
        raise UnknownNameError(
            Text(
                f"unknown cmap {cmap!r}; among matplotlib's are: {known}",
                f"未知的 cmap {cmap!r}；matplotlib 提供的有：{known} 等",
            )
        )


def _checked_size(figsize: Any) -> tuple[float, float]:
    try:
        width, height = (float(size) for size in figsize)
    except (TypeError, ValueError):
        width = height = 0.0
    if not (0 < width <= 60 and 0 < height <= 60):
        raise ArgumentError(
            Text(
                f"expected figsize as (width, height) in inches, each at most 60; got {figsize!r}",
                f"figsize 应为（宽, 高），单位英寸，各不超过 60；得到 {figsize!r}",
            )
        )
    return width, height


def _figure(
    values: npt.NDArray[np.float32],
    ends: tuple[str, str],
    titles: list[list[str]],
    labels: Sequence[list[str] | None],
    size: tuple[float, float],
    cmap: str,
) -> Any:
    from matplotlib.ticker import MaxNLocator

    down, across = values.shape[:2]
    figure = figures.new_figure(*size)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    low, high = _span(values)
    for row, column in np.ndindex(down, across):
        panel = grid[row, column]
        image = figures.heat(panel, values[row, column], low=low, high=high, cmap=cmap, aspect="equal")
        figures.write(panel.set_title("", fontsize=9), titles[row][column])
        for axis, place, word, some in (
            (panel.xaxis, row == down - 1, ends[0], labels[1]),
            (panel.yaxis, column == 0, ends[1], labels[0]),
        ):
            figures.write(axis.label, word if place else "")
            axis.set_major_locator(MaxNLocator("auto", integer=True))
            if some is not None:
                figures.label_ticks(axis, some, rotation=90 if axis is panel.xaxis and max(map(len, some)) > 2 else 0)
            axis.set_tick_params(labelsize=8)
        panel.label_outer()
    bar = figure.colorbar(image, ax=grid, shrink=0.6)
    bar.ax.tick_params(labelsize=8)
    return figure


def _span(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """One scale for all: from zero where the numbers begin near it, else from the least to the largest."""
    low, high, diverging = figures.limits(values)
    return (float(np.nanmin(values)), float(np.nanmax(values))) if diverging and high > 0 else (low, high)
