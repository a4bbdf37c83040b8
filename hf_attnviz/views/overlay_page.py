"""The page that lays numbers over pictures, and the same on paper: whose numbers they are, others say.

A sheet is what one set of menus chooses from: leaves ``[query, key]``, keys that are cells of a grid over a picture,
queries (or averages over them) that are chosen in a list or, where they are cells themselves, in the picture.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed, weight_note
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.pictures import LONGEST, Box, data_uri
from hf_attnviz.views.sheets import Leaf, encoded

_MOST_PANELS: Final = 64
_OPACITY: Final = 0.6
_ASKED: Final = Text("Which row looks", "由哪一行发出注意")
Cell = tuple[int, int, int]
"""The number of the part, row and column."""


@dataclass(frozen=True, eq=False)
class Part:
    """A picture, a tile of one or a frame of a video, and its grid.

    Attributes:
        name: what stands beneath it; None where there is only one.
        grid: rows and columns of cells.
        picture: what lies beneath the grid; None for the bare grid.
        box: left, top, right and bottom of the grid in the picture.
    """

    name: Text | None
    grid: tuple[int, int]
    picture: Image.Image | None = None
    box: Box | None = None


@dataclass(frozen=True, eq=False)
class Query:
    """A row: its text, its cell where it is one, and whether the model answered with it."""

    text: Text | str
    cell: Cell | None = None
    answered: bool = False


@dataclass(frozen=True, eq=False)
class Average:
    """The mean over some rows."""

    text: Text
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Sheet:
    """What one set of menus chooses from.

    Attributes:
        name: what the menu of sheets says.
        parts: the pictures.
        leaves: what the two menus choose from, and ``start``, which of them is shown at first.
        rows: the rows of the leaves that the page holds; ``queries`` are their texts.
        keys: the keys that are cells, and ``cells``, which they are.
        averages: means over rows that can be chosen in place of one.
        chosen: what is shown at first: a place in ``averages`` followed by ``queries``.
    """

    name: Text
    parts: tuple[Part, ...]
    leaves: tuple[Leaf, ...]
    start: int
    rows: tuple[int, ...]
    queries: tuple[Query, ...]
    keys: tuple[int, ...]
    cells: tuple[Cell, ...]
    averages: tuple[Average, ...]
    chosen: int


def overlay_page(
    sheets: Sequence[Sheet],
    *,
    title: Text | str,
    menus: tuple[Text, Text, Text],
    reading: Sequence[Text],
    footer: Sequence[Text],
    start: int = 0,
    exact: bool = False,
    panels: Sequence[int] | None = None,
    asked: Text = _ASKED,
    sums: bool = True,
) -> View:
    """The page of these sheets.

    Args:
        sheets: one for each position of the first menu, and ``start``, the one that is shown first.
        title: the heading.
        menus: what the menu of sheets and the two of a sheet are called.
        reading, footer: how to read it, and the small print beside how exact the weights are.
        exact: half precision in place of a byte a weight.
        panels: on paper, the choices that are drawn of the first sheet; None for the one that is chosen at first.
        asked: what the list of queries is called.
        sums: whether a query's weights are shares of one, so that their sum over the cells means something.
    """
    pictures: list[Image.Image] = []
    for part in (part for sheet in sheets for part in sheet.parts):
        if part.picture is not None and not any(part.picture is one for one in pictures):
            pictures.append(part.picture)
    longest = max(256, round(LONGEST / math.sqrt(max(len(pictures), 1))))
    told = sheets[start]
    choices = [told.chosen] if panels is None else list(panels)
    payloads = [_payload(sheet, pictures, exact=exact) for sheet in sheets]
    return page(
        title,
        fragment("overlay.html", asked=asked),
        how_to_read=reading,
        footer=[weight_note(sum(len(one["values"]) for one in payloads), exact=exact), *footer],
        data={
            "menus": [in_both(one) for one in menus],
            "start": start,
            "sums": sums,
            "pictures": [
                {"source": data_uri(one, longest), "width": one.width, "height": one.height} for one in pictures
            ],
            "sheets": payloads,
        },
        scripts=[own("colours.js"), own("overlay.js")],
        style=own("overlay.css"),
        height=760,
        figures=figures.files(partial(_figure, told, choices, menus[1:], str(title))),
    )


def _payload(sheet: Sheet, pictures: Sequence[Image.Image], *, exact: bool) -> Mapping[str, Any]:
    return {
        "name": in_both(sheet.name),
        "start": sheet.start,
        "chosen": sheet.chosen,
        "averages": [in_both(one.text) for one in sheet.averages],
        "queries": [{"text": in_both(one.text), "cell": one.cell, "answered": one.answered} for one in sheet.queries],
        "parts": [
            {
                "name": None if part.name is None else in_both(part.name),
                "grid": part.grid,
                "picture": next((n for n, one in enumerate(pictures) if one is part.picture), None),
                "box": part.box,
            }
            for part in sheet.parts
        ],
        "cells": packed(np.array(sheet.cells, np.int16)),
        "keys": len(sheet.keys),
        **encoded(sheet.leaves, sheet.rows, sheet.keys, [one.rows for one in sheet.averages], exact=exact),
    }


# ---- on paper


def grids(sheet: Sheet, choice: int) -> list[npt.NDArray[np.float64]]:
    """What is drawn over each part for a choice, ``[row, column]``; NaN where the model has no such patch."""
    weights = sheet.leaves[sheet.start].weights()[:, list(sheet.keys)].double()
    count = len(sheet.averages)
    if choice < count:
        row = weights[list(sheet.averages[choice].rows)].nanmean(0)
    else:
        row = weights[sheet.rows[choice - count]]
    found = [np.full(part.grid, np.nan) for part in sheet.parts]
    for (part, line, column), value in zip(sheet.cells, row.tolist(), strict=True):
        found[part][line, column] = value
    return found


def _figure(sheet: Sheet, choices: Sequence[int], menus: Sequence[Text], title: str) -> Any:
    """A panel for each choice and part, one scale of colours a choice."""
    count = len(choices) * len(sheet.parts)
    if count > _MOST_PANELS:
        raise ArgumentError(
            Text(
                f"{count} pictures in one file are too many (at most {_MOST_PANELS}); choose a stack or fewer words",
                f"一个文件放不下 {count} 张图（最多 {_MOST_PANELS} 张）；请选择一个堆栈，或少选一些词",
            )
        )
    across = min(count, max(1, round(math.sqrt(count * 1.4))))
    down = -(-count // across)
    shapes = [_shape(part) for part in sheet.parts]
    tall = max(height / width for width, height in shapes)
    wide = 3.4 if count == 1 else 2.4
    figure = figures.new_figure(wide * across + 0.9, min(wide * tall + 0.55, 9) * down + 0.7)
    leaf = sheet.leaves[sheet.start]
    names = [one.text for one in sheet.averages] + [one.text for one in sheet.queries]
    where = " · ".join(f"{menu} {said}" for menu, said in zip(menus, (leaf.outer, leaf.inner), strict=True))
    fonts = figures.fonts_for([title, where, *(str(names[c]) for c in choices), *(str(p.name) for p in sheet.parts)])
    figures.write(figure.suptitle("", fontsize=figures.fitting(title, figure.get_figwidth(), 10)), title, fonts)
    figures.write(figure.supxlabel("", fontsize=figures.fitting(where, figure.get_figwidth(), 8)), where, fonts)
    for n, choice in enumerate(choices):
        heats = grids(sheet, choice)
        finite = np.concatenate([heat[np.isfinite(heat)] for heat in heats])
        high = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
        axes = [figure.add_subplot(down, across, n * len(heats) + m + 1) for m in range(len(heats))]
        for panel, heat, part in zip(axes, heats, sheet.parts, strict=True):
            drawn = _panel(panel, heat, part, high)
            said = str(names[choice]) if part.name is None else f"{names[choice]} · {part.name}"
            figures.write(
                panel.set_title("", fontsize=figures.fitting(said, figure.get_figwidth() / across, 8)), said, fonts
            )
        figure.colorbar(drawn, ax=axes, shrink=0.75, pad=0.02).ax.tick_params(labelsize=7)
    return figure


def _shape(part: Part) -> tuple[float, float]:
    return part.picture.size if part.picture is not None else (part.grid[1], part.grid[0])


def _panel(panel: Any, heat: npt.NDArray[np.float64], part: Part, high: float) -> Any:
    """One picture with its heat, and the lines between cells where they can be told apart."""
    width, height = _shape(part)
    left, top, right, bottom = part.box or (0, 0, width, height)
    if part.picture is not None:
        shown = part.picture.copy()
        shown.thumbnail((LONGEST, LONGEST))
        grey = np.asarray(shown.convert("L"))  # so that hue is the weight's alone
        panel.imshow(grey, extent=(0, width, height, 0), cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    drawn = panel.imshow(
        np.ma.masked_invalid(heat), extent=(left, right, bottom, top), cmap="GnBu", vmin=0, vmax=high,
        alpha=1 if part.picture is None else _OPACITY, interpolation="nearest", zorder=2,
    )  # fmt: skip
    rows, columns = heat.shape
    if max(rows, columns) <= 40:
        line = {"color": "#808080", "linewidth": 0.35, "zorder": 3}
        panel.vlines(np.linspace(left, right, columns + 1), top, bottom, **line)
        panel.hlines(np.linspace(top, bottom, rows + 1), left, right, **line)
    panel.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    return drawn
