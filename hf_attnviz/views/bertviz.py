"""BertViz' three views (Vig 2019, https://arxiv.org/abs/1906.05714), drawn by its own JavaScript, without a network.

The JavaScript is read from the installed package ``bertviz``, whose Python part is never imported. Each group of
maps gets its own instance, started when it is first shown; weights lie in the page once, as bytes.
"""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from hf_attnviz.errors import NotKeptError, UnknownNameError
from hf_attnviz.language import Text
from hf_attnviz.optional import require
from hf_attnviz.tidying import tidied
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views import bertviz_words as said
from hf_attnviz.views.encoding import packed_text, weight_note
from hf_attnviz.views.figures import files
from hf_attnviz.views.groups import (
    Group,
    bytes_taken,
    checked_heads,
    groups,
    starting_place,
    with_heads,
    with_layers,
)
from hf_attnviz.views.line_figures import all_heads_figure, one_layer_figure
from hf_attnviz.views.page import fragment, own, page, vendored
from hf_attnviz.views.room import MOST_BYTES, fitting

_TALLEST: Final = 640  # pixels of a head's small picture, which BertViz makes as tall as the text is long
_BOUNDED: Final = (
    "config.thumbnailBoxHeight = 7 * (12 / config.totalHeads);",
    "config.thumbnailBoxHeight = Math.min(7 * (12 / config.totalHeads), "
    "params.tallest / Math.max(config.leftText.length, config.rightText.length));",
)


def head_view(
    trace: Trace,
    *,
    stack: str | None = None,
    layer: int | None = None,
    heads: Iterable[int] | int | None = None,
    layers: Iterable[int] | int | None = None,
    words: bool = False,
    hide: str | Iterable[str] = (),
    renormalise: bool = False,
    exact: bool = False,
    max_bytes: int = MOST_BYTES,
    title: Text | str | None = None,
) -> View:
    """Lines from each token to the tokens it attends to, a colour a head.

    Args:
        trace: one sequence.
        stack: one stack; None shows a menu of all.
        layer: the block index shown at first.
        heads: the heads switched on at first; None for all.
        layers: the layers in the menu, by block index; None for all.
        words, hide, renormalise: words instead of pieces, no special tokens or sink: see :func:`tidied`.
        exact: embed float16 instead of bytes.
        max_bytes: what the page's numbers may take; beyond, it holds some layers only and says which.
        title: the page's heading.

    Raises:
        UnknownStackError, UnknownNameError: no such stack, layer or head; the message lists those there are.
        NotKeptError: the weights were not kept.
        ArgumentError: the trace is empty, or not even one head fits.
    """
    neat = tidied(with_layers(trace, stack, layers), words=words, hide=hide, renormalise=renormalise)
    found = groups(neat, None)
    start, place = starting_place(found, layer)
    switched = checked_heads(heads, found[start])
    parts = fitting(found, start, place, switched or (), most=max_bytes, exact=exact)
    named = title or said.title("Attention by head", "各头的注意力", trace)
    return _page("head_view", named, neat, parts, exact=exact, heads=switched)


def model_view(
    trace: Trace,
    *,
    stack: str | None = None,
    layers: Iterable[int] | int | None = None,
    heads: Iterable[int] | int | None = None,
    words: bool = False,
    hide: str | Iterable[str] = (),
    renormalise: bool = False,
    exact: bool = False,
    max_bytes: int = MOST_BYTES,
    title: Text | str | None = None,
) -> View:
    """Every head of every layer at a glance, a small picture each; a click shows one large.

    Args:
        trace: one sequence.
        stack: one stack; None shows a menu of all.
        layers, heads: those to draw, by the model's own numbers; None for all.
        words, hide, renormalise: words instead of pieces, no special tokens or sink: see :func:`tidied`.
        exact: embed float16 instead of bytes.
        max_bytes: what the page's numbers may take; beyond, it holds some layers only and says which.
        title: the page's heading.

    Raises:
        UnknownStackError, UnknownNameError: no such stack, layer or head; the message lists those there are.
        NotKeptError: the weights were not kept.
        ArgumentError: the trace is empty, or not even one head fits.
    """
    neat = tidied(with_layers(trace, stack, layers), words=words, hide=hide, renormalise=renormalise)
    found = with_heads(groups(neat, None), heads)
    parts = fitting(found, *starting_place(found, None), (), most=max_bytes, exact=exact)
    named = title or said.title("All layers and heads", "所有层与头", trace)
    return _page("model_view", named, neat, parts, exact=exact)


def neuron_view(
    trace: Trace,
    *,
    stack: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    layers: Iterable[int] | int | None = None,
    heads: Iterable[int] | int | None = None,
    hide: str | Iterable[str] = (),
    renormalise: bool = False,
    exact: bool = False,
    max_bytes: int = MOST_BYTES,
    title: Text | str | None = None,
) -> View:
    """How query and key vectors make up a score, number by number. (A score belongs to two pieces: no words here.)

    Args:
        trace: one sequence, captured with ``keep=["maps", av.Vectors()]``.
        stack: one stack; None shows a menu of those that have vectors.
        layer, head: those shown at first; None for the first there are.
        layers, heads: those in the menus, by the model's own numbers; None for all.
        hide, renormalise: no special tokens or sink: see :func:`tidied`.
        exact: embed weights as float16 instead of bytes; vectors are 16-bit integers in any case.
        max_bytes: what the page's numbers may take; beyond, it holds some layers only and says which.
        title: the page's heading.

    Raises:
        UnknownStackError, UnknownNameError: no such stack, layer or head; the message lists those there are.
        NotKeptError: the vectors, or the weights, were not kept.
        ArgumentError: the trace is empty, or not even one head fits.
    """
    neat = tidied(with_layers(trace, stack, layers), hide=hide, renormalise=renormalise)
    found = [group for group in groups(neat, None) if group.has_vectors]
    if not found:
        raise NotKeptError(
            Text(
                "the neuron view needs query and key vectors, and this trace holds none"
                f'{f" for stack {stack!r}" if stack else ""}: capture with keep=["maps", av.Vectors()]',
                f"neuron 视图需要查询与键的向量，而这个 trace{f' 的堆栈 {stack!r}' if stack else ''}没有："
                '请以 keep=["maps", av.Vectors()] 捕获',
            )
        )
    found = with_heads(found, heads)
    start, place = starting_place(found, layer)
    first = found[start].heads[0] if head is None else (checked_heads(head, found[start]) or [0])[0]
    parts = fitting(found, start, place, [first], most=max_bytes, exact=exact, vectors=True)
    named = title or said.title("Queries and keys", "查询与键", trace)
    return _page("neuron_view", named, neat, parts, exact=exact, heads=[first])


def _page(
    view: str,
    title: Text | str,
    trace: Trace,
    parts: tuple[list[Group], int, int, list[Text]],
    *,
    exact: bool,
    heads: Sequence[int] | None = None,
) -> View:
    """The page of one view; ``heads`` are those shown at first, by the model's numbers."""
    found, start, place, left_out = parts
    payloads = [group.payload(exact=exact, vectors=view == "neuron_view") for group in found]
    weights = sum(bytes_taken(numbers["weights"]) for payload in payloads for numbers in payload["numbers"])
    shown = found[start].heads if heads is None else [head for head in heads if head in found[start].heads]
    data = {
        "view": view,
        "groups": payloads,
        "start": start,
        "layer": place,
        "heads": None if heads is None else [found[start].heads.index(head) for head in shown],
        "tallest": _TALLEST,
        "libraries": packed_text(f"{vendored('jquery.slim.min.js')}\n;{vendored('d3.min.js')}"),
    }
    # BertViz reads its data from a placeholder that is a JavaScript name, so it can simply be an argument.
    wrapped = f"function runBertviz(PYTHON_PARAMS, window, require, requirejs, console) {{\n{_javascript(view)}\n}}"
    notes = [*trace.notes, *left_out]
    return page(
        title,
        fragment("bertviz.html", view=view, notes=notes),
        how_to_read=said.reading(view, trace),
        footer=[
            *said.about(trace, found),
            weight_note(weights, exact=exact),
            *([said.VECTORS] if view == "neuron_view" else []),
        ],
        data=data,
        scripts=[wrapped, own("bertviz_numbers.js"), own("bertviz.js")],
        style=own("bertviz.css"),
        wide=view != "head_view",
        height=min(_height(view, found), 900),
        figures=files(_figure(view, found[start], place, shown, title, notes)),
    )


def _height(view: str, found: Sequence[Group]) -> int:
    longest = max(group.longest for group in found)
    if view != "model_view":
        return longest * 26 + 180 if view == "neuron_view" else longest * 23 + 100
    pictures = max(int(len(g.maps) * (min(g.longest * 84 / max(len(g.heads), 4), _TALLEST) + 10)) + 60 for g in found)
    return max(pictures, longest * 18 + 100)


def _figure(
    view: str, group: Group, place: int, heads: Sequence[int], title: Text | str, notes: Sequence[Text]
) -> Callable[[], Any]:
    """What draws the file for papers: the layer and heads that are shown at first, or all of them."""
    if view == "model_view":
        return partial(all_heads_figure, group, title, notes)
    return partial(one_layer_figure, group, place, heads, title, notes)


def _javascript(view: str) -> str:
    """The text of one of BertViz' scripts, found without importing BertViz."""
    spec = importlib.util.find_spec("bertviz")
    if spec is None or not spec.submodule_search_locations:
        require("bertviz", "bertviz")
        raise UnknownNameError(
            Text(
                "the installed 'bertviz' is not the package of that name from PyPI",
                "已安装的 'bertviz' 不是 PyPI 上的那个包",
            )
        )
    text = (Path(spec.submodule_search_locations[0]) / f"{view}.js").read_text(encoding="utf-8")
    return text.replace(*_BOUNDED)  # of the model view; the others have no such line
