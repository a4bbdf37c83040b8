"""The mixed keys of a decoder that reads words and pictures: which patch of which picture each placeholder stands for.

A picture's patches (a few of them merged to one, or the picture in tiles) take the places of as many placeholder
tokens. They are named only where all pictures of a batch account for all placeholders of it.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from hf_attnviz.capturing.families import PATCH_TOKENS, SUMMING_UP, TILED
from hf_attnviz.capturing.positions import Cell, Positions, numbered, patches
from hf_attnviz.labels import Labels, Segment


@dataclass(frozen=True)
class Share:
    """What belongs to one sequence of a batch.

    Attributes:
        labels: what the sequence's placeholders stand for, in order; None where it cannot be known for sure.
        pieces: which of the batch's pictures, or tiles of them, are the sequence's.
        total: how many the batch has.
    """

    labels: Labels | None
    pieces: range
    total: int


def placeholders(positions: Positions, ids: Sequence[int | None], settings: Sequence[str] = PATCH_TOKENS) -> list[int]:
    """The places of the tokens that stand for patches, or for what else these settings name."""
    told = [positions.setting(name) for name in settings]
    marks = {token for token in told if isinstance(token, int)}
    return [place for place, token in enumerate(ids) if token in marks]


def share(positions: Positions, module: str, ids: torch.Tensor, row: int) -> Share | None:
    """What of a batch's pictures belongs to a row of it.

    Args:
        positions: the run's pictures.
        module: the name of a module that attends in the pictures' tower.
        ids: the tokens of the batch ``[batch, length]``.
        row: which sequence of the batch.
    """
    counts = [len(placeholders(positions, one)) for one in ids.tolist()]
    pictures = _pictures(positions, module)
    ends = [0, *itertools.accumulate(map(len, pictures))]
    first, last = sum(counts[:row]), sum(counts[: row + 1])
    if not pictures or ends[-1] != sum(counts) or first not in ends or last not in ends:
        return None
    own = range(ends.index(first), ends.index(last))
    sizes = [1 + max(part for part in one.parts if part is not None) for one in pictures]
    pieces = range(sum(sizes[: own.start]), sum(sizes[: own.stop]))
    return Share(Labels.joined(numbered([pictures[n] for n in own])), pieces, sum(sizes))


def filled(labels: Labels, places: Sequence[int], pictures: Labels | None) -> Labels:
    """The labels of a sequence, its placeholders named by the patches they stand for; without them as latents."""
    if not places:
        return labels
    texts, marks, words = list(labels.texts), list(labels.marks), list(labels.words)
    cells: list[Cell | None] = list(labels.cells or (None,) * len(labels))
    known = pictures if pictures is not None and len(pictures) == len(places) else None
    for n, place in enumerate(places):
        words[place] = None
        marks[place] = known.marks[n] if known else Segment("latent", 0, 1)
        if known:
            texts[place], cells[place] = known.texts[n], known.cells[n] if known.cells else None
    return Labels.of(texts, labels.ids, words, marks, cells)


def _pictures(positions: Positions, module: str) -> list[Labels]:
    """What each picture becomes in the decoder's input; none where that is not known."""
    classes = (type(one).__name__.lower() for one in positions.model.modules())
    if any(word in name for name in classes for word in SUMMING_UP):
        return []
    if positions.grids:
        return list(_merged(positions.grids, positions.merge))
    rows = positions.rows(module)
    grids = [one.segments[0].grid for one in rows]
    if positions.setting("model_type") in TILED:
        return _tiled(positions, grids[0]) if grids and grids[0] else []
    return list(_merged([grid for grid in grids if grid], _merge(positions, len(rows[0]) if rows else 0)))


def _merge(positions: Positions, count: int) -> int:
    """How many of a picture's patches, along each side, become one position."""
    left, ratio = positions.setting("mm_tokens_per_image"), positions.setting("downsample_ratio")
    if left:
        return math.isqrt(count // left)
    return round(1 / ratio) if ratio else positions.merge


def _merged(grids: Iterable[Cell], merge: int) -> Iterable[Labels]:
    for rows, columns in grids:
        if merge < 1 or rows % merge or columns % merge:
            return
        yield patches((rows // merge, columns // merge))


# ---- pictures in tiles


def _tiled(positions: Positions, grid: Cell) -> list[Labels]:
    """Each picture as a whole, then in tiles: row by row over all tiles, without what was padded, each row ended."""
    tile = positions.tile
    canvases, sizes = positions.setting("image_grid_pinpoints"), positions.media.get("image_sizes")
    if tile is None or not canvases or not sizes:
        return []
    return [_in_tiles(grid, tile, best_canvas((h, w), canvases), (h, w)) for h, w in sizes]


def _in_tiles(grid: Cell, tile: Cell, canvas: Cell, size: Cell) -> Labels:
    rows, columns = canvas[0] // tile[0], canvas[1] // tile[1]
    whole = (rows * grid[0], columns * grid[1])
    top, left = _padding(whole, size)
    texts: list[str] = []
    marks: list[Segment] = []
    cells: list[Cell | None] = []
    for r in range(top, whole[0] - top):
        for c in range(left, whole[1] - left):
            cell = (r % grid[0], c % grid[1])
            texts.append(f"r{cell[0]} c{cell[1]}")
            marks.append(Segment("patch", 0, 1, grid, part=r // grid[0] * columns + c // grid[1] + 1))
            cells.append(cell)
        texts.append("↵")
        marks.append(Segment("special", 0, 1))
        cells.append(None)
    none = [None] * len(texts)
    return Labels.joined([patches(grid), Labels.of(texts, none, none, marks, cells)])


def best_canvas(size: Cell, canvases: Iterable[Sequence[int]]) -> Cell:
    """The canvas that keeps most of a picture's pixels, and of several such the one with least left over."""

    def kept(canvas: Sequence[int]) -> tuple[int, int]:
        scale = min(canvas[0] / size[0], canvas[1] / size[1])
        pixels = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return pixels, -(canvas[0] * canvas[1] - pixels)

    rows, columns = max(canvases, key=kept)
    return rows, columns


def _padding(whole: Cell, size: Cell) -> Cell:
    """How many rows above and below, or columns at the sides, of a canvas hold no part of the picture."""
    if size[1] / size[0] > whole[1] / whole[0]:
        return (whole[0] - int(round(size[0] * whole[1] / size[1], 7))) // 2, 0
    return 0, (whole[1] - int(round(size[1] * whole[0] / size[0], 7))) // 2
