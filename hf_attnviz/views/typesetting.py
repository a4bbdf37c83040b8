"""Lines of shades: a matrix, a running text, bars; each fits the width of its sheet, or says what was left out."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len
from rich.style import Style

from hf_attnviz.language import Text
from hf_attnviz.views.shades import Shades, Sheet, number, pooled

_MOST_FOLDS: Final = 3
_MOST_LINES: Final = 40
_TALLEST: Final = 8  # characters of a column's label, one above the other


def print_matrix(
    sheet: Sheet, shades: Shades, values: npt.NDArray[Any], rows: Sequence[str], columns: Sequence[str]
) -> None:
    room = min(max(map(cell_len, rows)), max(8, sheet.width // 4))
    wide = _with_numbers(sheet, values, columns, room)
    if wide:
        _print_numbers(sheet, shades, values, rows, columns, room, wide)
        return
    fit = (sheet.width - room - 1) // 2
    folds = -(-len(columns) // fit)
    if folds <= _MOST_FOLDS and len(rows) * folds <= 2 * _MOST_LINES:
        _print_folded(sheet, shades, values, rows, columns, room, folds)
    else:
        _print_pooled(sheet, shades, values, rows, columns, room, folds)


def _print_folded(
    sheet: Sheet,
    shades: Shades,
    values: npt.NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    room: int,
    folds: int,
) -> None:
    """The columns in so many blocks, one under the other."""
    count = len(columns)
    each = -(-count // folds)
    for start in range(0, count, each):
        part = slice(start, start + each)
        if folds > 1:
            last = min(start + each, count) - 1
            sheet.say(Text(f"columns {start} to {last} of {count}", f"第 {start}–{last} 列，共 {count} 列"))
        _print_dense(sheet, shades, values[:, part], rows, columns[part], room)


def _print_pooled(
    sheet: Sheet,
    shades: Shades,
    values: npt.NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    room: int,
    across: int,
) -> None:
    """One cell for several, and what was left out."""
    down = -(-len(rows) // _MOST_LINES)
    small = pooled(values, down, across)
    first_rows = [rows[n] if down == 1 else str(n) for n in range(0, len(rows), down)]
    first_columns = [columns[n] if across == 1 else str(n) for n in range(0, len(columns), across)]
    _print_dense(sheet, shades, small, first_rows, first_columns, min(room, max(map(cell_len, first_rows))))
    sheet.say(
        Text(
            f"Left out: {len(rows):,} × {len(columns):,} cells do not fit. Each cell shows the largest of up to "
            f"{down} × {across} neighbours; labels are places of the first.",
            f"有省略：{len(rows):,} × {len(columns):,} 格放不下。每格显示至多 {down} × {across} 个相邻格中最大者，"
            "标签为其首个位置。",
        )
    )


def _with_numbers(sheet: Sheet, values: npt.NDArray[Any], columns: Sequence[str], room: int) -> int:
    """How wide columns with numbers are, or 0 where they do not fit."""
    longest = max(len(number(float(value))) for value in values.flat) if values.size <= 400 else sheet.width
    most = (sheet.width - room) // len(columns)
    needed = longest + 3  # a space before, a space and a shade behind
    return 0 if needed > most else min(most, max(needed, 1 + max(map(cell_len, columns))))


def _print_numbers(
    sheet: Sheet,
    shades: Shades,
    values: npt.NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    room: int,
    wide: int,
) -> None:
    heads = "".join(" " + sheet.fitted(text, wide - 1, right=True) for text in columns)
    sheet.line(" " * room + heads)
    for text, row in zip(rows, values.tolist(), strict=True):
        cells = [(number(value), shades.shade(value), shades.style(value)) for value in row]
        told: list[tuple[str, Style]] = []
        for shown, shade, style in cells:
            told += [(shown.rjust(wide - 2) + " ", Style()), (shade, style)]
        sheet.line(sheet.fitted(text, room), *told)


def _print_dense(
    sheet: Sheet, shades: Shades, values: npt.NDArray[Any], rows: Sequence[str], columns: Sequence[str], room: int
) -> None:
    """Two cells a number, and the columns' labels from top to bottom."""
    letters = [_letters(sheet, text) for text in columns]
    tall = max(map(len, letters))
    for n in range(tall):
        line = [label[n - tall + len(label)] if n >= tall - len(label) else "" for label in letters]
        sheet.line((" " * (room + 1) + "".join(sheet.fitted(one, 2) for one in line)).rstrip())
    for text, row in zip(rows, values.tolist(), strict=True):
        cells = [
            ((shades.sign(value) or shades.shade(value)) + shades.shade(value), shades.style(value)) for value in row
        ]
        sheet.line(sheet.fitted(text, room) + " ", *cells)


def _letters(sheet: Sheet, text: str) -> list[str]:
    """A label letter by letter, accents with the letter they stand on, not too many."""
    found: list[str] = []
    for letter in text:
        if found and cell_len(letter) == 0:
            found[-1] += letter
        else:
            found.append(letter)
    found = [letter for letter in found if cell_len(letter) <= 2] or [""]
    return found if len(found) <= _TALLEST else [*found[: _TALLEST - 1], sheet.fitted("...", 1).strip()]


def print_flow(
    sheet: Sheet, shades: Shades, texts: Sequence[str], spaces: Sequence[bool], values: npt.NDArray[Any]
) -> None:
    line: list[str | tuple[str, Style]] = []
    used = 0
    for text, space, value in zip(texts, spaces, values.tolist(), strict=True):
        told = text + shades.sign(value) + shades.shade(value)
        gap = " " if space and used else ""
        if used and used + cell_len(gap + told) > sheet.width:
            sheet.line(*line)
            line, used, gap = [], 0, ""
        *whole, rest = sheet.pieces(told, sheet.width)
        for piece in whole:
            sheet.line((piece, shades.style(value, ground=True)))
        line += [gap, (rest, shades.style(value, ground=True))]
        used += cell_len(gap + rest)
        if text.endswith("↵"):
            sheet.line(*line)
            line, used = [], 0
    if line:
        sheet.line(*line)


def print_bars_of(sheet: Sheet, values: npt.NDArray[Any], texts: Sequence[str]) -> None:
    """Whole blocks, and a shade for the rest; below zero to the left of it."""
    finite = values[np.isfinite(values)]
    high, low = (max(0.0, float(finite.max())), min(0.0, float(finite.min()))) if finite.size else (1.0, 0.0)
    room = min(max(map(cell_len, texts)), max(8, sheet.width // 3))
    numbers = [number(float(value)) for value in values]
    longest = max(map(len, numbers))
    most = sheet.width - room - longest - 2
    left = round(most * -low / ((high - low) or 1.0))
    one = ((high - low) or 1.0) / most
    for text, value, told in zip(texts, values.tolist(), numbers, strict=True):
        bar = _bar(abs(value) / one if np.isfinite(value) else 0.0, sheet.ladder)
        fill = bar[: left if value < 0 else most - left]
        side = fill[::-1].rjust(left) if value < 0 else " " * left + fill
        style = Style(color="#d6604d" if value < 0 else "#4393c3")
        sheet.line(sheet.fitted(text, room), " ", told.rjust(longest), " ", (side.rstrip(), style))


def _bar(cells: float, ladder: str) -> str:
    """So many cells: whole ones, and one that is shaded as full as it is.

    >>> _bar(2.5, " ░▒▓█")
    '██▒'
    """
    whole, part = int(cells + 1e-9), cells - int(cells + 1e-9)
    rest = ladder[min(int(part * 4 + 0.5), 4)]
    return ladder[4] * whole + rest.strip()
