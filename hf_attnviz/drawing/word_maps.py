"""Where each word of a prompt stands in the image that was painted from it.

Source: Tang et al., "What the DAAM: Interpreting Stable Diffusion Using Cross Attention" (2023), section 3. Steps: the
cross-attention from each place of the image to a token is that token's map; means over heads, layers of one size and
denoising steps; each size is enlarged to the finest by bicubic interpolation and all are averaged, a layer counting as
a layer; the map of a word is the mean of those of its tokens.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from PIL import Image
from torch.nn.functional import interpolate

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text, counted
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views.overlay_page import Part, Query, Sheet, overlay_page
from hf_attnviz.views.pictures import as_picture, checked_box
from hf_attnviz.views.sheets import ROOM, Leaf
from hf_attnviz.words import piece

_MENUS: Final = (Text("grid", "网格"), Text("layer", "层"), Text("step", "步"))
_ASKED: Final = Text("Which word", "哪个词")
_LAYERS: Final = Text("mean of all", "各层平均")
_STEPS: Final = Text("mean of all", "各步平均")
_SKEW: Final = 0.05  # how far, as a share, a grid's shape may be from the picture's: sizes of latents are rounded
_READING: Final = (
    Text(
        "The colour of a cell is the weight that this place of the image gave to the chosen word while it was painted: "
        "the mean over heads, layers and denoising steps, or of one of them. The bar begins at zero and ends at the "
        "largest weight shown, anew for each word: compare numbers, not colours, between words.",
        "格子的颜色是绘制时图像该处给所选词的权重：对头、层与去噪步取平均，或只取其一。色条自零起，至所示的最大值止，"
        "各词分别定标：不同词之间请比较数值，而非颜色。",
    ),
    Text(
        "Each place's weights over all tokens sum to one; most of it usually goes to the token that begins the prompt, "
        "which is no word and not shown. A ring marks the strongest place.",
        "每处对所有词元的权重之和为一；其中大部分通常给了提示的起始标记，它不是词，此处不显示。圆圈标出最强处。",
    ),
    Text(
        "Not shown: whether the word caused what is seen there. Attention is not an explanation.",
        "未显示：该处所见是否由该词引起。注意力本身不是解释。",
    ),
)
_ENLARGED: Final = Text(
    "“All sizes” enlarges the maps of small layers to the finest grid (bicubic; what falls below zero is cut), so "
    "its cells are smoother than what the model has; the other sheets are the layers' own grids.",
    "“所有尺寸”把较小的层放大到最细的网格（双三次插值，低于零者截去），因此比模型实际的更平滑；其余各张为各层自己的网格。",
)
_SQUARE: Final = Text(
    "No picture and no grid=… was given: the image is taken to be square.",
    "未给出图像，也未给出 grid=…：假定图像为正方形。",
)


_NO_STEPS: Final = Text(
    "Single steps would be too much for one page: layers are here as means over all steps.",
    "单个去噪步对一页来说太多：各层取所有步的平均。",
)
_MEAN_ONLY: Final = Text(
    "Single layers and steps would be too much for one page: of this size only the mean of all is here.",
    "单个层与去噪步对一页来说太多：此尺寸只有全部的平均。",
)


@dataclass(frozen=True, eq=False)
class _Size:
    """Maps of one grid.

    Attributes:
        name: what the menu of sheets says.
        layers: the layers' names.
        by_layer: ``[layer, word, row, column]``, the mean over steps.
        by_step: ``[step, word, row, column]``, the mean over layers.
    """

    name: Text
    layers: tuple[str, ...]
    by_layer: torch.Tensor
    by_step: torch.Tensor

    @property
    def grid(self) -> tuple[int, int]:
        return int(self.by_step.shape[-2]), int(self.by_step.shape[-1])


def word_maps(
    recording: Any,
    image: Any = None,
    *,
    item: int | None = None,
    words: Sequence[str] | None = None,
    grid: tuple[int, int] | None = None,
    title: Text | str | None = None,
) -> View:
    """A map over the painted image for each word of the prompt, for pipelines of diffusers with cross-attention.

    Args:
        recording: of the pipeline (``with av.capture(pipe) as recording``), or the traces of one image, a step each.
        image: the image that came out; None for the bare grid. See ``overlay`` for what it may be.
        item: which of the prompts of each step; default: the only one that has words. With guidance the empty (or
            negative) prompts come first, then the prompts.
        words: those that are shown first to last; default: all words of the prompt.
        grid: rows and columns of the finest layer; default: those with the shape of the image, else a square.
        title: the page's heading.

    Raises:
        ArgumentError: no cross-attention from places of an image to words; several prompts and no ``item``; a grid or
            an image whose shape does not fit; a word that is not in the prompt.
        NotKeptError: the weights were not kept.
    """
    steps = _steps(recording, item)
    first = steps[0].cross
    texts, groups = _words(first.keys, words)
    picture = None if image is None else as_picture(image)
    sizes = _sizes(steps, groups, _grids(first.maps, grid, picture))
    every = [_all_sizes(sizes), *sizes] if len(sizes) > 1 else sizes
    drawn = [_sheet(one, texts, picture) for one in every]
    about = Text(
        f"{counted(len(steps), 'denoising step')}, {counted(len(first.maps), 'layer')}",
        f"{len(steps)} 个去噪步，{len(first.maps)} 层",
    )
    footer = [Text("Source: Tang et al. 2023 (DAAM)", "出处：Tang et al. 2023（DAAM）"), about]
    footer += [_SQUARE] if picture is None and grid is None else []
    footer += [Text(f"Model: {steps[0].model}", f"模型：{steps[0].model}")] if steps[0].model else []
    footer += dict.fromkeys(note for _, note in drawn if note is not None)
    return overlay_page(
        [sheet for sheet, _ in drawn],
        title=title or Text("Where each word stands in the image", "每个词在图像中的位置"),
        menus=_MENUS,
        reading=[*_READING[:-1], *([_ENLARGED] if len(sizes) > 1 else []), _READING[-1]],
        footer=footer,
        panels=range(min(len(texts), 24)),
        asked=_ASKED,
        sums=False,
    )


# ---- which maps


def _steps(recording: Any, item: int | None) -> list[Trace]:
    """The traces of one image, a denoising step each."""
    traces: Iterable[Trace] = getattr(recording, "traces", recording)
    traces = [traces] if isinstance(traces, Trace) else list(traces)
    crossed = [t for t in traces if "cross" in t.stacks]
    if not crossed:
        had = listed(dict.fromkeys(name for t in traces for name in t.stacks))
        raise ArgumentError(
            Text(
                f"expected cross-attention from places of an image to the words of a prompt, got {had}; models that "
                "read image and prompt as one sequence (SD3, Flux) have none",
                f"应为从图像各处到提示词的交叉注意力，得到 {had}；把图像与提示词当作一条序列来读的模型（SD3、Flux）"
                "没有",
            )
        )
    found = [t for t in crossed if (item is None and _has_words(t)) or t.item == item]
    items = sorted({t.item for t in found})
    if len(items) != 1:
        raise ArgumentError(
            Text(
                f"expected one prompt with words in each step, got {listed(items) if items else 'none'} of the items "
                f"{listed(sorted({t.item for t in crossed}))}: choose with item=…",
                f"每一步应有一条带词的提示，项 {listed(sorted({t.item for t in crossed}), '无')} 中得到 "
                f"{listed(items, '无')}：请用 item=… 选择",
            )
        )
    if len({t.cross.keys.texts for t in found}) > 1:
        raise ArgumentError(
            Text(
                "expected the steps of one image, got several prompts: pass the traces of one of them",
                "应为一幅图像的各步，得到多条提示：请传入其中一条的 trace",
            )
        )
    for t in found:
        for m in t.cross:
            m.plain()
    return found


def _has_words(trace: Trace) -> bool:
    return "text" in trace.cross.keys.kinds


def _words(keys: Labels, wanted: Sequence[str] | None) -> tuple[list[str], list[list[int]]]:
    """The words of the prompt, and the tokens of each."""
    groups: dict[int, list[int]] = {}
    for place, (word, kind) in enumerate(zip(keys.words, keys.kinds, strict=True)):
        if kind == "text":
            groups.setdefault(-1 - place if word is None else word, []).append(place)
    texts = ["".join(piece(keys.texts[place]) for place in places) for places in groups.values()]
    if wanted is None:
        return texts, list(groups.values())
    lacking = [word for word in wanted if word not in texts]
    if lacking or not wanted:
        raise ArgumentError(
            Text(
                f"expected words of the prompt ({listed(texts)}), got {listed(lacking) or 'none'}",
                f"应为提示中的词（{listed(texts, '无')}），得到 {listed(lacking, '无')}",
            )
        )
    tokens = list(groups.values())
    return list(wanted), [tokens[texts.index(word)] for word in wanted]


def _grids(
    maps: Sequence[AttentionMap], grid: tuple[int, int] | None, picture: Image.Image | None
) -> dict[int, tuple[int, int]]:
    """Rows and columns of a layer, by its number of places."""
    counts = sorted({len(m.queries) for m in maps}, reverse=True)
    finest = grid or _shaped(counts[0], 1.0 if picture is None else picture.height / picture.width)
    if finest[0] * finest[1] != counts[0]:
        raise ArgumentError(
            Text(
                f"expected a grid of {counts[0]} places, which the finest layer has, got {finest[0]} × {finest[1]}",
                f"网格应有 {counts[0]} 个位置，即最细的层所有，得到 {finest[0]} × {finest[1]}",
            )
        )
    found, rows, columns = {}, *finest
    while rows * columns >= counts[-1]:
        found[rows * columns] = (rows, columns)
        if (rows, columns) == (1, 1):
            break
        rows, columns = -(-rows // 2), -(-columns // 2)
    lacking = [count for count in counts if count not in found]
    if lacking:
        raise ArgumentError(
            Text(
                f"layers of {listed(lacking)} places are no halvings of the grid {finest[0]} × {finest[1]}: give "
                "grid=…",
                f"有 {listed(lacking)} 个位置的层不是网格 {finest[0]} × {finest[1]} 逐次减半所得：请给出 grid=…",
            )
        )
    return found


def _shaped(count: int, shape: float) -> tuple[int, int]:
    """So many places in the grid whose rows over columns are nearest to a shape."""
    pairs = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    rows, columns = min(pairs, key=lambda pair: abs(math.log(pair[0] / pair[1] / shape)))
    if abs(rows / columns / shape - 1) > _SKEW:
        raise ArgumentError(
            Text(
                f"expected {count} places in a grid with the shape of the image (or a square, without one), the "
                f"nearest is {rows} × {columns}: give grid=(rows, columns)",
                f"{count} 个位置应排成与图像形状相同的网格（没有图像则为正方形），最接近的是 {rows} × {columns}："
                "请给出 grid=(rows, columns)",
            )
        )
    return rows, columns


def _sizes(
    steps: Sequence[Trace], groups: Sequence[Sequence[int]], grids: Mapping[int, tuple[int, int]]
) -> list[_Size]:
    """The words' maps of each size, the finest first."""
    found = []
    for count, grid in sorted(grids.items(), reverse=True):
        layers = [n for n, m in enumerate(steps[0].cross) if len(m.queries) == count]
        if not layers:
            continue
        by_layer = torch.zeros(len(layers), len(groups), count)
        by_step = torch.zeros(len(steps), len(groups), count)
        for s, t in enumerate(steps):
            for n, layer in enumerate(layers):
                words = _of_words(t.cross.maps[layer], groups)
                by_layer[n] += words / len(steps)
                by_step[s] += words / len(layers)
        names = tuple(str(steps[0].cross.maps[n].layer) for n in layers)
        name = Text(f"{grid[0]} × {grid[1]}", f"{grid[0]} × {grid[1]}")
        found.append(
            _Size(name, names, by_layer.view(*by_layer.shape[:2], *grid), by_step.view(*by_step.shape[:2], *grid))
        )
    return found


def _of_words(m: AttentionMap, groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """The mean over heads, and over the tokens of each word: ``[word, place]``."""
    mean = m.weights.detach().float().mean(0).cpu()
    return torch.stack([mean[:, list(tokens)].mean(-1) for tokens in groups])


def _all_sizes(sizes: Sequence[_Size]) -> _Size:
    """Every layer enlarged to the finest grid."""
    by_layer = torch.cat([_enlarged(one.by_layer, sizes[0].grid) for one in sizes])
    total = sum(len(one.layers) for one in sizes)
    by_step = torch.stack([_enlarged(one.by_step, sizes[0].grid) * (len(one.layers) / total) for one in sizes]).sum(0)
    names = tuple(name for one in sizes for name in one.layers)
    return _Size(Text("all sizes", "所有尺寸"), names, by_layer, by_step)


def _enlarged(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    return maps if maps.shape[-2:] == grid else interpolate(maps, size=grid, mode="bicubic").clamp(0, 1)


# ---- what is drawn


def _sheet(size: _Size, texts: Sequence[str], picture: Image.Image | None) -> tuple[Sheet, Text | None]:
    """The sheet of a size; and what the page leaves out of it."""
    rows, columns = size.grid
    box = None if picture is None else checked_box(None, picture, size.grid)
    cells = tuple((0, row, column) for row in range(rows) for column in range(columns))
    leaves, note = _leaves(size, len(texts) * len(cells))
    sheet = Sheet(
        size.name, (Part(None, size.grid, picture, box),), leaves, 0, tuple(range(len(texts))),
        tuple(Query(text) for text in texts), tuple(range(len(cells))), cells, (), 0,
    )  # fmt: skip
    return sheet, note


def _leaves(size: _Size, each: int) -> tuple[tuple[Leaf, ...], Text | None]:
    """The mean of all, each layer, each step, as many as there is room for; and what was left out."""
    whole = [Leaf(_LAYERS, _STEPS, _flat(size.by_step.mean(0)))]
    steps = [Leaf(_LAYERS, _number(n), _flat(one)) for n, one in enumerate(size.by_step)]
    layers = [Leaf(Text(name, name), _STEPS, _flat(one)) for name, one in zip(size.layers, size.by_layer, strict=True)]
    plans: list[tuple[list[Leaf], Text | None]] = [
        ([*whole, *steps, *layers], None),
        ([*whole, *layers], _NO_STEPS),
        (whole, _MEAN_ONLY),
    ]
    leaves, note = next((plan for plan in plans if len(plan[0]) * each <= ROOM), plans[-1])
    return tuple(leaves), note


def _number(n: int) -> Text:
    return Text(str(n), str(n))


def _flat(maps: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: maps.flatten(-2)
