"""What a picture is handed out as: one self-contained page, and files for papers where the picture has them."""

import html as html_escape
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.storage import write_atomically

# Inches that a figure takes in one column and across two: those of ICML's style, whose columns are 3.25 wide and 0.25
# apart; other styles differ by some millimetres and want a width of their own.
COLUMNS: Final[Mapping[int, float]] = {1: 3.25, 2: 6.75}
_WIDTHS: Final = (1.0, 60.0)  # inches; ink has no room below, and matplotlib no memory above
_DOTS: Final = (30, 2400)


@dataclass(frozen=True, eq=False)
class View:
    """A picture.

    Attributes:
        html: one self-contained page: no request leaves it, every token in it is text.
        how_to_read: what darkness means, what is masked, which rows sum to one, what it does not show.
        title: what is shown, in a few words.
        height: pixels that the page wants inside a notebook.
        figures: for each further format (``"svg"``, ``"png"``, ``"pdf"``) a function that draws the file's bytes;
            it takes ``width`` (inches; None: its natural size) and ``dpi``.
    """

    html: str = field(repr=False)
    how_to_read: str
    title: str = ""
    height: int = 600
    figures: Mapping[str, Callable[..., bytes]] = field(default_factory=dict, repr=False)

    def frame(self) -> str:
        """The page inside an ``<iframe srcdoc>`` without access to the page around it."""
        document = html_escape.escape(self.html, quote=True)
        title = html_escape.escape(self.title, quote=True)
        return (
            f'<iframe sandbox="allow-scripts" title="{title}" '
            f'style="width:100%;height:{self.height}px;border:0;resize:vertical" srcdoc="{document}"></iframe>'
        )

    def _repr_html_(self) -> str:
        return self.frame()

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        columns: int | None = None,
        width: float | None = None,
        dpi: float | None = None,
    ) -> Path:
        """Write the picture to ``path``, in the format that its ending names, in one atomic step.

        Args:
            path: ``x.html``, or ``x.svg``, ``x.pdf``, ``x.png`` where the picture has figures.
            columns: for papers: 1 is a figure 3.25 inches wide, 2 one of 6.75; letters then have 7 to 9 points.
            width: the same with a width of your own, in inches; without either the figure has its natural size.
            dpi: dots an inch of a png; 200 where it is not given.

        Raises:
            ArgumentError: a format that this view lacks (the message names those it has), a width for a page, both
                ``columns`` and ``width``, or one that leaves no room.
            SaveError: the file could not be written.
        """
        suffix = Path(path).suffix.lower().removeprefix(".")
        inches = _inches(columns, width)
        if dpi is not None and not _DOTS[0] <= dpi <= _DOTS[1]:
            low, high = _DOTS
            raise ArgumentError(
                Text(f"expected dpi from {low} to {high}, got {dpi!r}", f"dpi 应在 {low} 到 {high} 之间，得到 {dpi!r}")
            )
        if suffix in ("html", "htm"):
            if inches is not None or dpi is not None:
                files = listed(self.figures or ["svg"])
                raise ArgumentError(
                    Text(
                        f"a page has no width of its own: columns=, width= and dpi= are for {files}",
                        f"网页没有自己的宽度：columns=、width= 与 dpi= 用于 {files}",
                    )
                )
            return write_atomically(path, self.html.encode("utf-8"))
        if suffix in self.figures:
            return write_atomically(path, self.figures[suffix](width=inches, dpi=dpi))
        raise ArgumentError(
            Text(
                f"this view cannot be saved as {suffix or 'a file without ending'!r}; "
                f"formats it has: {listed(['html', *self.figures])}",
                f"这个视图不能保存为 {suffix or '没有扩展名的文件'!r}；可用格式：{listed(['html', *self.figures])}",
            )
        )


def _inches(columns: int | None, width: float | None) -> float | None:
    """The width that is asked for, None where none is."""
    if columns is not None and width is not None:
        raise ArgumentError(
            Text(
                f"expected columns= or width=, got both: {columns!r} and {width!r}",
                f"columns= 与 width= 只能给一个，得到 {columns!r} 与 {width!r}",
            )
        )
    if columns is not None and columns not in COLUMNS:
        raise ArgumentError(
            Text(
                f"expected columns of 1 or 2, got {columns!r}; give another width in inches: width=5.5",
                f"columns 应为 1 或 2，得到 {columns!r}；其他宽度请以英寸给出：width=5.5",
            )
        )
    inches = width if columns is None else COLUMNS[columns]
    if inches is not None and not _WIDTHS[0] <= inches <= _WIDTHS[1]:
        low, high = _WIDTHS
        raise ArgumentError(
            Text(
                f"expected a width from {low:g} to {high:g} inches, got {width!r}",
                f"宽度应在 {low:g} 到 {high:g} 英寸之间，得到 {width!r}",
            )
        )
    return inches
