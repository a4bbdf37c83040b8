"""What stands for colour in a terminal: ``░▒▓█``, a quarter of the scale each, so that numbers survive without colours;
and the console that they are printed on, with cells counted as East Asian width counts them.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console
from rich.style import Style
from rich.text import Text as RichText

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.views.figures import limits

LADDER: Final = " ░▒▓█"
_PLAIN: Final = " .:*#"  # where the encoding has no shades
_FROM: Final = (0.05, 0.25, 0.5, 0.75)  # the share of the scale from which each shade stands
_NARROWEST: Final = 24
_ABOVE: Final = ("", "#a8ddb5", "#4eb3d3", "#2b8cbe", "#0868ac")  # ColorBrewer's GnBu
_OVER_ZERO: Final = ("", "#fddbc7", "#f4a582", "#d6604d", "#b2182b")  # and RdBu, below zero and above
_BELOW_ZERO: Final = ("", "#d1e5f0", "#92c5de", "#4393c3", "#2166ac")
UNDEFINED: Final = "?"


@dataclass(frozen=True)
class Shades:
    """From a number to its shade.

    Attributes:
        low, high: the numbers at the ends of the scale.
        signed: the scale is centred on zero, and a number below it has a minus before its shade.
        ladder: five characters, the emptiest first.
    """

    low: float
    high: float
    signed: bool
    ladder: str = LADDER

    @classmethod
    def of(cls, values: npt.NDArray[Any], ladder: str) -> "Shades":
        """The scale of these numbers: from zero, or around it; from the least where all are far from zero."""
        return cls(*limits(values), ladder)

    def level(self, value: float) -> int:
        """How many of the four shades a number reaches, 0 to 4; -1 where it is undefined."""
        if not math.isfinite(value):
            return -1
        share = abs(value) / self.high if self.signed else (value - self.low) / (self.high - self.low)
        return sum(share >= edge for edge in _FROM)

    def shade(self, value: float) -> str:
        """The character of a number."""
        level = self.level(value)
        return UNDEFINED if level < 0 else self.ladder[level]

    def sign(self, value: float) -> str:
        """A minus where the number is below zero and its shade would not say so."""
        return "-" if self.signed and value < 0 and self.level(value) > 0 else ""

    def style(self, value: float, *, ground: bool = False) -> Style:
        """The colour of a number: of its shade, or of the ground that a token stands on."""
        level = self.level(value)
        colour = (_ABOVE if not self.signed else _BELOW_ZERO if value < 0 else _OVER_ZERO)[max(level, 0)]
        if not colour:
            return Style()
        return Style(color="white" if level > 2 else "black", bgcolor=colour) if ground else Style(color=colour)

    def legend(self) -> str:
        """What each shade stands for, in a line."""
        low = 0.0 if self.signed else self.low
        ends = " ".join(
            f"{shade} {number(low + edge * (self.high - low))}"
            for shade, edge in zip(self.ladder[1:], _FROM, strict=True)
        )
        from_, to = Text("from ", "起点："), Text(" to ", "，止于 ")
        blank = Text("blank: less", "空白：更小")
        minus = Text(", a minus: below zero", "，负号：小于零") if self.signed else ""
        return f"{from_}{ends}{to}{number(self.high)}{Text('; ', '；')}{blank}{minus}"


@dataclass(frozen=True)
class Sheet:
    """Where something is printed: lines that are never wider than the terminal, and text of others in them as text."""

    console: Console

    @classmethod
    def of(cls, file: IO[str] | None, width: int | None, colour: bool | None) -> "Sheet":
        """On ``file`` (default: standard output); colours where it is a terminal that has them, unless told.

        Raises:
            ArgumentError: a width in which nothing can be told.
        """
        system: Any = {None: "auto", True: "truecolor", False: None}[colour]
        force = True if colour else None
        no_color = None if colour is None else not colour
        found = cls(Console(file=file, width=width, color_system=system, force_terminal=force, no_color=no_color))
        if found.width < _NARROWEST:
            raise ArgumentError(
                Text(
                    f"expected a terminal of {_NARROWEST} columns or more, got {found.width}; pass width=80",
                    f"终端至少需要 {_NARROWEST} 列，现为 {found.width} 列；请传入 width=80",
                )
            )
        return found

    @property
    def width(self) -> int:
        """How many cells a line has."""
        return self.console.width

    @cached_property
    def ladder(self) -> str:
        """The shades, as far as the encoding has them."""
        return LADDER if self._encoded(LADDER) == LADDER else _PLAIN

    def text(self, text: object) -> str:
        """Text of others, made visible, in characters that the encoding has."""
        return self._encoded(visible(str(text)))

    def fitted(self, text: str, room: int, *, right: bool = False) -> str:
        """Text in exactly ``room`` cells, cut with an ellipsis where it is longer."""
        if cell_len(text) > room:
            dots = self._encoded("…")
            dots = dots if len(dots) == 1 else "."
            text = set_cell_size(text, room - 1).rstrip() + dots
        free = " " * (room - cell_len(text))
        return free + text if right else text + free

    def line(self, *parts: str | tuple[str, Style]) -> None:
        """A line that is known to fit."""
        self.console.print(RichText.assemble(*parts), no_wrap=True, overflow="ignore", crop=False, highlight=False)

    def say(self, sentence: object, style: str = "") -> None:
        """A sentence, folded at the edge."""
        self.console.print(RichText(self.text(sentence), style), highlight=False, overflow="fold")

    def pieces(self, text: str, room: int) -> list[str]:
        """Text cut into pieces of at most ``room`` cells."""
        return chop_cells(text, room) if cell_len(text) > room else [text]

    def _encoded(self, text: str) -> str:
        encoding = self.console.encoding
        return text.encode(encoding, "backslashreplace").decode(encoding)


def number(value: float) -> str:
    """A number in few characters.

    >>> number(0.25), number(0), number(1234.5), number(float("nan"))
    ('0.25', '0', '1.23e+03', '–')
    """
    if not math.isfinite(value):
        return "–"
    return "0" if abs(value) < 5e-4 else f"{value:.3g}"


def pooled(values: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[Any]:
    """Each number the one of largest size among ``rows`` × ``columns`` neighbours; NaN where all are undefined.

    >>> pooled(np.array([[0.1, 0.4, 0.2], [0.3, -0.9, 0.0]]), 2, 2).tolist()
    [[-0.9, 0.2]]
    """
    height, width = (-(-size // step) for size, step in zip(values.shape, (rows, columns), strict=True))
    filled = np.full((height * rows, width * columns), np.nan)
    filled[: values.shape[0], : values.shape[1]] = values
    tiles = filled.reshape(height, rows, width, columns).swapaxes(1, 2).reshape(height, width, -1)
    sizes = np.where(np.isfinite(tiles), np.abs(tiles), -1)
    found: npt.NDArray[Any] = np.take_along_axis(tiles, sizes.argmax(-1)[..., None], -1)[..., 0]
    return found
