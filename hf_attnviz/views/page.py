"""The shell of every page: title, picture, how to read it, footer; two languages, light and dark, no network."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from hf_attnviz.language import Text, language
from hf_attnviz.legible import json_safe, visible
from hf_attnviz.view import View

_HERE: Final = Path(__file__).parent
_NOTEBOOK: Final = 950  # pixels of a notebook's column, for which heights are reckoned
_BESIDE: Final = 420  # of the reading box where it stands beside the picture
HOW_TO_READ: Final = Text("How to read this", "如何阅读")


def page(
    title: Text | str,
    body: str,
    *,
    how_to_read: Sequence[Text] = (),
    footer: Sequence[Text] = (),
    data: Any = None,
    scripts: Sequence[str] = (),
    style: str = "",
    wide: bool = False,
    height: int = 400,
    figures: Mapping[str, Callable[..., bytes]] | None = None,
) -> View:
    """A self-contained page.

    Args:
        title: the heading; text of others may be in it.
        body: HTML of the picture, from :func:`fragment`.
        how_to_read: what the picture means and what it does not show, a paragraph each.
        footer: small print: model, precision, source.
        data: what the scripts read as ``attnviz.data``.
        scripts: JavaScript, in order.
        style: CSS beside the common one.
        wide: the picture wants the whole width; the reading box then stands beneath it, else beside it.
        height: pixels of the picture alone.
        figures: for each further format a function that draws the file.
    """
    document = _environment().get_template("page.html")
    html = document.render(
        language=language(),
        title=title,
        body=Markup(body),
        how_heading=HOW_TO_READ,
        how_to_read=how_to_read,
        footer=footer,
        data=Markup(json_safe(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))),
        scripts=[Markup(inline_script(source)) for source in scripts],
        style=Markup(own("page.css") + style),
        page_script=Markup(inline_script(own("page.js"))),
        wide=wide,
    )
    reading = ("" if language() == "zh" else " ").join(map(str, how_to_read))
    return View(
        html, reading, visible(str(title)), _page_height(height, wide, how_to_read, footer), dict(figures or {})
    )


def compose(
    title: Text | str, sections: Sequence[tuple[Text | str, View]], intro: Sequence[Text] | Text | str = ()
) -> View:
    """Several views on one page, each in its own frame, under a heading each; one switch for language and theme."""
    paragraphs = [intro] if isinstance(intro, Text | str) else list(intro)
    frames = [(heading, Markup(view.frame())) for heading, view in sections]
    body = fragment("compose.html", intro=[p for p in paragraphs if str(p)], sections=frames)
    height = sum(view.height + 80 for _, view in sections)
    composed = page(title, body, scripts=[own("compose.js")], wide=True, height=min(height, 1200))
    reading = " ".join(view.how_to_read for _, view in sections)
    return View(composed.html, reading, composed.title, composed.height)


def _page_height(picture: int, wide: bool, how_to_read: Sequence[Text], footer: Sequence[Text]) -> int:
    """Pixels that the whole page takes in a notebook, which cannot be asked for them: a frame is shut off."""
    box = 50 + sum(20 * _lines(text, _NOTEBOOK if wide else _BESIDE) + 6 for text in how_to_read)
    small = 50 + sum(19 * _lines(text, _NOTEBOOK) + 2 for text in footer)
    return 90 + small + (picture + box if wide else max(picture, box))


def _lines(text: Text, width: int) -> int:
    """Lines that a sentence takes, in the language that takes more: a Han character is two letters wide."""
    return max(math.ceil((7 * len(text.en) + 20) / width), math.ceil((13.5 * len(text.zh) + 20) / width))


def fragment(template: str, **values: Any) -> str:
    """A piece of HTML from a template; every value is escaped."""
    return _environment().get_template(template).render(**values)


def own(name: str) -> str:
    """The text of one of our own scripts or style sheets."""
    return _read(_HERE / "templates" / name)


def vendored(name: str) -> str:
    """The text of a library in ``assets``."""
    return _read(_HERE / "assets" / name)


def inline_script(source: str) -> str:
    """JavaScript that cannot end the ``<script>`` it stands in."""
    return re.sub(r"</(?=script)", r"<\\/", source, flags=re.IGNORECASE).replace("<!--", "<\\!--")


def both(text: Text | str) -> Markup:
    """A sentence in both languages, of which the style sheet shows one."""
    if isinstance(text, Text):
        return Markup('<span lang="en">{}</span><span lang="zh">{}</span>').format(visible(text.en), visible(text.zh))
    return Markup("{}").format(visible(text))


def in_both(text: Text | str) -> dict[str, str]:
    """The same for a script: ``{"en": …, "zh": …}``."""
    if isinstance(text, Text):
        return {"en": visible(text.en), "zh": visible(text.zh)}
    return {"en": visible(text), "zh": visible(text)}


@cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"both": both, "in_both": in_both, "visible": visible}
    return environment
