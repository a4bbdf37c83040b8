"""What a picture is handed out as: one self-contained page, and files for papers where the picture has them."""

import html as html_escape
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.storage import write_atomically


@dataclass(frozen=True, eq=False)
class View:
    """A picture.

    Attributes:
        html: one self-contained page: no request leaves it, every token in it is text.
        how_to_read: what darkness means, what is masked, which rows sum to one, what it does not show.
        title: what is shown, in a few words.
        height: pixels that the page wants inside a notebook.
        figures: for each further format (``"svg"``, ``"png"``, ``"pdf"``) a function that draws the file's bytes.
    """

    html: str = field(repr=False)
    how_to_read: str
    title: str = ""
    height: int = 600
    figures: Mapping[str, Callable[[], bytes]] = field(default_factory=dict, repr=False)

    def frame(self) -> str:
        """The page inside an ``<iframe srcdoc>`` without access to the page around it."""
        document = html_escape.escape(self.html, quote=True)
        title = html_escape.escape(self.title, quote=True)
        return (
            f'<iframe sandbox="allow-scripts" title="{title}" '
            f'style="width:100%;height:{self.height}px;border:0" srcdoc="{document}"></iframe>'
        )

    def _repr_html_(self) -> str:
        return self.frame()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to ``path``, in the format that its ending names, in one atomic step.

        Raises:
            ArgumentError: a format that this view lacks; the message names those it has.
            SaveError: the file could not be written.
        """
        suffix = Path(path).suffix.lower().removeprefix(".")
        if suffix in ("html", "htm"):
            return write_atomically(path, self.html.encode("utf-8"))
        if suffix in self.figures:
            return write_atomically(path, self.figures[suffix]())
        raise ArgumentError(
            Text(
                f"this view cannot be saved as {suffix or 'a file without ending'!r}; "
                f"formats it has: {listed(['html', *self.figures])}",
                f"这个视图不能保存为 {suffix or '没有扩展名的文件'!r}；可用格式：{listed(['html', *self.figures])}",
            )
        )
