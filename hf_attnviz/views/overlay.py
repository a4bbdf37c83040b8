"""Attention laid over the picture that a model looked at: patches by row and column, one token's row or an average."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image

from hf_attnviz.attention_map import LAYOUT, AttentionMap
from hf_attnviz.axes import HEAD, LAYER
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.labels import Labels, Segment
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views.groups import Group, groups
from hf_attnviz.views.overlay_page import Average, Cell, Part, Query, Sheet, overlay_page
from hf_attnviz.views.pictures import BoxOption, as_picture, checked_box
from hf_attnviz.views.sheets import checked_place, found_leaf, held
from hf_attnviz.views.words import axis_word

_MENUS: Final = (Text("stack", "堆栈"), axis_word(LAYER), axis_word(HEAD))
_ALL: Final = Text("mean over all rows: what each patch receives", "所有行的平均：每个图块所得")
_ROWS: Final = Text("mean over all rows", "所有行的平均")
_WORDS: Final = Text("mean over the words that see the picture", "能看到图像的词的平均")
_ANSWER: Final = Text("mean over the answer", "回答的平均")
_COLOUR: Final = Text(
    "The colour of a cell is the weight that the chosen row (or the mean over rows) gives to that patch; the bar says "
    "which. It begins at zero and ends at the largest weight shown, anew for each choice: compare numbers, not "
    "colours, between choices. A ring marks the strongest patch. The picture beneath is shown in grey, so that hue is "
    "the weight's alone; its brightness still shines through.",
    "格子的颜色是所选行（或各行平均）给该图块的权重，对应关系见色条。色条自零起，至所示的最大权重止，每次选择各自定标："
    "不同选择之间请比较数值，而非颜色。圆圈标出最强的图块。下方图像以灰度显示，使色调只表示权重；其明暗仍会透出。",
)
_CHOOSE: Final = Text(
    "Choose a row in the list, or click a patch where patches look at patches (arrow keys and Enter do the same); a "
    "dashed frame marks the patch that looks.",
    "在列表中选择一行；图块互相关注时，也可单击图块（方向键与回车亦可）；虚线框标出发出注意的图块。",
)
_SUMS: Final = Text(
    "A row sums to one over all its keys; what does not fall on the picture goes to other tokens, and the line beneath "
    "says how much that is.",
    "一行对其所有键之和为一；不在图像上的部分给了其他词元，下方一行文字说明其多少。",
)
_ANSWERS: Final = Text(
    "a → b is the row that read a and put out b. Where words and patches are one sequence, only the rows of words are "
    "here; the row of a patch is shown when query=… asks for it.",
    "a → b 是读入 a、产出 b 的那一行。词与图块同在一个序列时，此处只有词的行；可用 query=… 查看某个图块的行。",
)
_CAVEAT: Final = Text(
    "Not shown: whether the output depends on it; attention is not an explanation. In deeper layers a patch's position "
    "also carries what it took from other patches.",
    "未显示：输出是否依赖于它；注意力本身不是解释。在较深的层，图块的位置还带有取自其他图块的内容。",
)
_AS_GIVEN: Final = Text(
    "The grid is laid over the whole picture as it was given. If the model saw only a part of it, as after CLIP's "
    "cropping, the cells stand in the wrong places: give that part with box=….",
    "网格覆盖所给的整幅图像。若模型只看到其中一部分（如 CLIP 裁剪之后），格子的位置就不对：请用 box=… 给出该部分。",
)
_BOXED: Final = Text(
    "The grid is laid over the part of the picture that box=… says the model saw; the rest is dimmed.",
    "网格覆盖 box=… 所指、模型看到的部分；其余变暗。",
)
_BARE: Final = Text(
    "No picture was given: the cells stand alone, row 0 at the top, column 0 at the left.",
    "未给出图像：只有网格，第 0 行在上，第 0 列在左。",
)


@dataclass(frozen=True, eq=False)
class _Canvas:
    """What lies beneath the grid of each part: pictures and boxes by the number of the part."""

    pictures: Mapping[int, Image.Image]
    boxes: Mapping[int, BoxOption]


def overlay(
    trace: Trace,
    image: Any = None,
    *,
    stack: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    query: int | str | None = None,
    grid: tuple[int, int] | None = None,
    box: BoxOption | Sequence[BoxOption] = None,
    exact: bool = False,
    title: Text | str | None = None,
) -> View:
    """Attention over a picture, patch by patch, for models that read pictures: ViT, CLIP, DETR, models that chat.

    Args:
        trace: one sequence whose keys are patches; their rows and columns are in its labels.
        image: the picture: a PIL image, a path, an array or a tensor (see :func:`views.pictures.as_picture`); None for
            the bare grid. Of several pictures, tiles or video frames a list, one for each number that the labels show
            (``#0``, ``#1`` …; None for the bare grid); a single picture lies beneath the first.
        stack: one stack; None for a menu of all that look at patches.
        layer, head: what is shown first, and on paper; None for the mean of all. Where a page cannot hold all, the
            heads of this layer (else the last) are kept.
        query: the row shown first: its number or its text; None for an average: over the answer of a generation, else
            over the words behind the picture, else over all rows.
        grid: rows and columns of patches, for keys of which the labels do not know it (a feature map, say): as many
            keys as the grid has cells, row by row.
        box: the part of the picture that the model saw, ``(left, top, right, bottom)`` in its pixels, "centre" for the
            largest part in the middle with the shape of the grid (what CLIP's processor cuts), None for all of it. A
            list gives one for each part; with a single picture, each part is then that piece of it.
        exact: half precision in place of a byte a weight; the page is twice as large.
        title: the page's heading.

    Raises:
        ArgumentError: no keys that are patches, pictures or boxes that do not fit them, no such row.
        UnknownNameError: no such layer or head.
        NotKeptError: a stack was asked for whose weights were not kept.
    """
    found = sorted(_looking(trace, stack, grid), key=_rank)
    start = next((n for n, one in enumerate(found) if layer in (None, *one.layers)), 0)
    checked_place(found[start].maps, layer, head)
    known = sorted({part or 0 for one in _looking(trace, None, grid) for part in _parts(one.maps[0].keys)})
    shown = sorted({part or 0 for one in found for part in _parts(one.maps[0].keys)})
    canvas = _canvas(image, box, known, shown)
    sheets, left_out = [], []
    for n, one in enumerate(found):
        sheet, note = _sheet(one, canvas, (layer, head, query) if n == start else (None, None, None))
        sheets.append(sheet)
        left_out += [note] if note is not None else []
    lacking = [part for part in shown if part not in canvas.pictures] if canvas.pictures else []
    footer = [*dict.fromkeys(left_out), *([_lacking(lacking)] if lacking else [])]
    footer += [Text(f"Model: {trace.model}", f"模型：{trace.model}")] if trace.model else []
    named = Text("Attention over the picture", "图像上的注意力")
    about = Text(f"{named.en} · {trace.model}", f"{named.zh} · {trace.model}") if trace.model else named
    return overlay_page(
        sheets, title=title or about, menus=_MENUS, reading=_reading(found, canvas), footer=footer, start=start,
        exact=exact,
    )  # fmt: skip


def has_patches(trace: Trace) -> bool:
    """Whether some map of the trace has weights and keys that are patches."""
    return any(m.has_weights and m.layout == LAYOUT and m.keys.cells is not None for m in trace.maps)


# ---- which maps


def _looking(trace: Trace, stack: str | None, grid: tuple[int, int] | None) -> list[Group]:
    """The groups of maps whose keys are patches."""
    wanted = trace.stacks if stack is None else {stack: trace.stack(stack)}
    found = []
    for name, one in wanted.items():
        if stack is None and not all(m.has_weights and m.layout == LAYOUT for m in one):
            continue
        for group in groups(trace, name):
            maps = tuple(_with_grid(m, grid) for m in group.maps)
            if maps[0].keys.cells is not None:
                found.append(replace(group, maps=maps))
    if not found:
        counts = listed(f"{name} ({len(one.keys)})" for name, one in wanted.items())
        cells = None if grid is None else f"{grid[0]} × {grid[1]} = {grid[0] * grid[1]}"
        none = (
            Text("", "")
            if cells is None
            else Text(f", and none has {cells} of unknown kind", f"，也没有 {cells} 个种类未知的键")
        )
        raise ArgumentError(
            Text(
                f"expected a trace with keys that are patches of a picture; got {counts} keys, whose labels know of "
                f"none{none.en}: give grid=(rows, columns) of the patches, as many as there are keys",
                f"应为键是图片图块的 trace；得到的键为 {counts}，其标签中没有图块{none.zh}："
                "请给出图块的 grid=(rows, columns)，与键一样多",
            )
        )
    return found


def _with_grid(m: AttentionMap, grid: tuple[int, int] | None) -> AttentionMap:
    """The map with the grid that was given, where the labels know of none and it fits."""
    if grid is None or m.keys.cells is not None:
        return m
    keys = _gridded(m.keys, grid)
    return m if keys is None else replace(m, keys=keys, queries=keys if m.queries == m.keys else m.queries)


def _gridded(labels: Labels, grid: tuple[int, int]) -> Labels | None:
    places = [n for n, kind in enumerate(labels.kinds) if kind in ("latent", "patch")]
    rows, columns = grid
    if len(places) != rows * columns:
        return None
    texts, marks = list(labels.texts), list(labels.marks)
    cells: list[tuple[int, int] | None] = [None] * len(labels)
    for n, place in enumerate(places):
        cells[place] = divmod(n, columns)
        texts[place] = f"r{n // columns} c{n % columns}"
        marks[place] = Segment("patch", place, place + 1, grid=(rows, columns))
    return Labels.of(texts, labels.ids, labels.words, marks, cells)


def _rank(group: Group) -> int:
    """Words that look at a picture come before patches that look at each other."""
    first = group.maps[0]
    return 0 if first.kind == "cross" else 1 if _mixed(first.queries) else 2


def _mixed(labels: Labels) -> bool:
    return {"text", "patch"} <= set(labels.kinds)


# ---- what lies beneath


def _parts(keys: Labels) -> list[int | None]:
    return list(dict.fromkeys(mark.part for mark in keys.marks if mark.kind == "patch"))


def _canvas(image: Any, box: Any, known: Sequence[int], shown: Sequence[int]) -> _Canvas:
    """Pictures and boxes by part."""
    boxes = dict(enumerate(box)) if _several(box) else dict.fromkeys(known, box)
    if _several(box) and len(box) <= known[-1]:
        raise ArgumentError(
            Text(
                f"expected a box for each of the parts {listed(known)}, or None in its place; got {len(box)}",
                f"各部分 {listed(known)} 应各有一个 box，或在其处用 None；得到 {len(box)} 个",
            )
        )
    if image is None:
        if box is not None:
            raise ArgumentError(
                Text(
                    "expected a picture with box=…, got none: a bare grid has no box",
                    "box=… 须与图片同用，没有得到图片：单独的网格没有 box",
                )
            )
        return _Canvas({}, {})
    if isinstance(image, list | tuple):
        if len(image) <= known[-1]:
            raise ArgumentError(
                Text(
                    f"expected a picture for each of the parts {listed(known)}, or None in its place; got {len(image)}",
                    f"各部分 {listed(known)} 应各有一张图片，或在其处用 None；得到 {len(image)} 张",
                )
            )
        return _Canvas({n: as_picture(one) for n, one in enumerate(image) if one is not None}, boxes)
    picture = as_picture(image)
    return _Canvas(dict.fromkeys(known if _several(box) else shown[:1], picture), boxes)


def _several(box: Any) -> bool:
    """Whether these are boxes and not one."""
    return isinstance(box, list | tuple) and any(one is None or not isinstance(one, int | float) for one in box)


# ---- one sheet


def _sheet(
    group: Group, canvas: _Canvas, wanted: tuple[int | None, int | None, int | str | None]
) -> tuple[Sheet, Text | None]:
    """The sheet of a group, beginning with a layer, a head and a query; and what the page leaves out of it."""
    layer, head, query = wanted
    first = group.maps[0]
    keys = first.keys
    places = [n for n, kind in enumerate(keys.kinds) if kind == "patch"]
    numbers = _parts(keys)
    asked = None if query is None else _row(first, query)
    cells = _cells(keys, numbers)
    words = [n for n, kind in enumerate(first.queries.kinds) if kind != "patch"]
    rows = (
        sorted({*words, *(() if asked is None else (asked,))}) if _mixed(first.queries) else range(len(first.queries))
    )
    kept = held(group.maps, layer, rows, len(places), words if asked is None else [asked, *words])
    averages = _averages(first, words, places)
    queries = _queries(first, kept.rows, numbers)
    sheet = Sheet(
        group.name,
        tuple(_part(number, keys, canvas, len(numbers)) for number in numbers),
        kept.leaves,
        found_leaf(kept.leaves, *_one_choice(group, layer, head)),
        kept.rows,
        queries,
        tuple(places),
        tuple(cell for cell in cells if cell is not None),
        averages,
        len(averages) - 1 if asked is None else len(averages) + kept.rows.index(asked),
    )
    return sheet, kept.note


def _one_choice(group: Group, layer: int | None, head: int | None) -> tuple[int | None, int | None]:
    """Of a stack with one layer, or one head, there is no mean over all to begin with."""
    return (group.layers[0] if layer is None and len(group.maps) == 1 else layer), head


def _cells(labels: Labels, numbers: Sequence[int | None]) -> list[Cell | None]:
    known = labels.cells or (None,) * len(labels)
    return [
        None if cell is None or mark.kind != "patch" or mark.part not in numbers else (numbers.index(mark.part), *cell)
        for cell, mark in zip(known, labels.marks, strict=True)
    ]


def _part(number: int | None, keys: Labels, canvas: _Canvas, count: int) -> Part:
    grid = next(mark.grid for mark in keys.marks if mark.kind == "patch" and mark.part == number)
    assert grid is not None
    picture = canvas.pictures.get(number or 0)
    box = None if picture is None else checked_box(canvas.boxes.get(number or 0), picture, grid)
    name = None if count == 1 else Text(f"#{number}", f"#{number}")
    return Part(name, grid, picture, box)


def _row(m: AttentionMap, query: int | str) -> int:
    """The number of the row that a caller means."""
    if isinstance(query, str):
        put_out = m.produced or ()
        rows = [n for n, text in enumerate(m.queries.texts) if text == query]
        rows = rows or [n for n, text in enumerate(put_out) if text == query]
        if len(rows) == 1:
            return rows[0]
        texts = listed(map(visible, m.queries.texts[:40]))
        shown = Text(f"rows {listed(rows)}: give the number", f"第 {listed(rows)} 行：请给出行号")
        shown = shown if rows else Text(texts, texts)
        raise UnknownNameError(
            Text(
                f"expected one row that reads or puts out {visible(query)!r}; there are {shown.en}",
                f"应恰有一行读入或产出 {visible(query)!r}；现有 {shown.zh}",
            )
        )
    if not -len(m.queries) <= query < len(m.queries):
        raise UnknownNameError(
            Text(
                f"expected a row from 0 to {len(m.queries) - 1}, got {query}",
                f"行应为 0 到 {len(m.queries) - 1}，得到 {query}",
            )
        )
    return query % len(m.queries)


def _averages(m: AttentionMap, words: Sequence[int], patches: Sequence[int]) -> tuple[Average, ...]:
    """Means over rows, the one to begin with last."""
    answered = tuple(n for n, text in enumerate(m.produced or ()) if text is not None)
    if _mixed(m.queries):
        seeing = tuple(n for n in words if not m.causal or n > min(patches)) or tuple(words)
        found = [Average(_WORDS, seeing)]
    else:
        found = [Average(_ALL if m.kind == "self" else _ROWS, tuple(range(len(m.queries))))]
    return (*found, *([Average(_ANSWER, answered)] if answered else []))


def _queries(m: AttentionMap, rows: Sequence[int], numbers: Sequence[int | None]) -> tuple[Query, ...]:
    cells = _cells(m.queries, numbers)
    put_out = m.produced or (None,) * len(m.queries)
    found = []
    for row in rows:
        text, answer = m.queries.texts[row], put_out[row]
        found.append(Query(text if answer is None else f"{text} → {answer}", cells[row], answer is not None))
    return tuple(found)


# ---- words


def _reading(found: Sequence[Group], canvas: _Canvas) -> list[Text]:
    words = any(_mixed(one.maps[0].queries) or one.maps[0].produced for one in found)
    boxed = any(box is not None for box in canvas.boxes.values())
    beneath = _BARE if not canvas.pictures else _BOXED if boxed else _AS_GIVEN
    return [_COLOUR, _CHOOSE, _SUMS, *([_ANSWERS] if words else []), beneath, _CAVEAT]


def _lacking(parts: Sequence[int]) -> Text:
    numbers = ", ".join(f"#{part}" for part in parts[:12]) + ("…" if len(parts) > 12 else "")
    return Text(
        f"No picture was given for {numbers}: a list has one for each part, box=[…] tells which piece of one picture "
        "each is.",
        f"未给出 {numbers} 的图像：用列表逐个给出，或用 box=[…] 说明各部分是同一图像的哪一块。",
    )
