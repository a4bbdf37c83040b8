"""What stands at each position of a picture's or a sound's tower: patches with their grid, frames with their seconds.

A tower is described by what its own convolutions make of the size of its input, and by the tokens that it puts before
and behind. The description is believed only where it accounts for every position; else there are no labels.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing.families import (
    ATTENTION_CLASS,
    BLOCKWISE,
    FEATURE_MAP,
    MEDIA,
    MEDIA_SIZES,
    MERGES,
    SHUFFLED,
    SPECTROGRAM_PATCHES,
    TOKENS_AFTER,
    TOKENS_BEFORE,
)
from hf_attnviz.labels import Labels, Segment

Cell = tuple[int, int]
Media = Mapping[str, Any]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def media_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a forward is given of pictures and sound: the shapes of the large tensors, the small ones as lists."""
    shapes = {name: tuple(given[name].shape) for name in MEDIA if isinstance(given.get(name), torch.Tensor)}
    tables = {name: given[name] for name in MEDIA_SIZES if isinstance(given.get(name), torch.Tensor)}
    sizes = {name: table.tolist() for name, table in tables.items() if table.dim() == 2 and not table.is_meta}
    return shapes | sizes if shapes else {}


# ---- labels of one picture or one sound


def patches(grid: Cell, order: Sequence[Cell] | None = None, part: int = 0) -> Labels:
    """Labels of a picture's patches, row by row or in the order given; :func:`numbered` comes last."""
    rows, columns = grid
    cells = [(r, c) for r in range(rows) for c in range(columns)] if order is None else list(order)
    marks = [Segment("patch", 0, 1, grid=grid, part=part)] * len(cells)
    none = [None] * len(cells)
    return Labels.of([f"r{r} c{c}" for r, c in cells], none, none, marks, cells)


def frames(count: int, step: float | None, first: float = 0.0) -> Labels:
    """Labels of a sound's frames, ``step`` seconds each from second ``first`` on; their numbers where none is known."""
    if step is None:
        return Labels.plain(map(str, range(count)), "frame")
    times = [first + step * n for n in range(count)]
    marks = [Segment("frame", 0, 1, seconds=(time, time + step)) for time in times]
    none = [None] * count
    return Labels.of([f"{time:.2f}s" for time in times], none, none, marks)


def specials(texts: Sequence[str]) -> Labels:
    """Labels of positions that are no part of the picture."""
    none = [None] * len(texts)
    return Labels.of(texts, none, none, ["special"] * len(texts))


def numbered(pictures: Sequence[Labels], only: Sequence[int] | None = None) -> list[Labels]:
    """The labels of several pictures, each with the number of its picture, tile or video frame; one alone has none.

    Args:
        pictures: their labels; a picture in tiles has parts 0, 1 …
        only: which of them are wanted; None for all.
    """
    counts = [1 + max((mark.part or 0 for mark in one.marks if mark.kind == "patch"), default=0) for one in pictures]
    alone = sum(counts) == 1
    wanted = range(len(pictures)) if only is None else only
    return [_numbered(pictures[n], None if alone else sum(counts[:n])) for n in wanted]


def _numbered(one: Labels, first: int | None) -> Labels:
    texts, marks = list(one.texts), list(one.marks)
    for n, mark in enumerate(one.marks):
        if mark.kind == "patch":
            part = None if first is None else first + (mark.part or 0)
            marks[n] = replace(mark, part=part)
            texts[n] = texts[n] if part is None else f"#{part} {texts[n]}"
    return Labels.of(texts, one.ids, one.words, marks, one.cells or ())


def blockwise(grid: Cell, merge: int) -> list[Cell]:
    """The cells of a grid, ``merge`` × ``merge`` block by block."""
    rows, columns = grid
    return [
        (r + i, c + j)
        for r in range(0, rows, merge)
        for c in range(0, columns, merge)
        for i in range(merge)
        for j in range(merge)
    ]


# ---- towers


@dataclass(frozen=True)
class Tower:
    """The part of a model that reads pictures or sound: the tokens it adds, and its own convolutions.

    Only those convolutions count that make their input smaller; ``first`` is the first of all.
    """

    first: Convolution | None
    convolutions: tuple[Convolution, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]

    def sizes(self, size: Sequence[int]) -> tuple[int, ...]:
        """What the convolutions make of a size ``[time]``, ``[row, column]`` or ``[frame, row, column]``."""
        for one in self.convolutions:
            size = [_convolved(one, axis, n) for axis, n in enumerate(size)]
        return tuple(size)


def tower_of(model: nn.Module, module: str) -> Tower:
    """The tower that an attending module stands in: the smallest part around it that begins with convolutions.

    Where other blocks attend between the convolutions and the module, it may read something else: then it has none.
    """
    names = module.split(".")
    for depth in range(len(names) - 1, -1, -1):
        part = model.get_submodule(".".join(names[:depth]))
        before = _before(part, ".".join(names[depth:]))
        every = [one for one in before.values() if isinstance(one, Convolution)]
        found = [one for one in every if max(_each(one.stride, 1)) > 1]
        if found:
            own = _blocks(".".join(names[depth:]))
            others = (name for name, one in before.items() if ATTENTION_CLASS.search(type(one).__name__))
            if any(_blocks(name) != own for name in others):
                break
            return Tower(every[0], tuple(found), _added(part, TOKENS_BEFORE), _added(part, TOKENS_AFTER))
    return Tower(None, (), (), ())


def _before(part: nn.Module, module: str) -> dict[str, nn.Module]:
    """The modules of a part of the model, as they were put there, before one of them; those around it left out."""
    found = {}
    for name, one in part.named_modules():
        if name == module:
            break
        if name and not module.startswith(f"{name}."):
            found[name] = one
    return found


def _blocks(name: str) -> str:
    """The list of blocks that a module stands in: its name up to the first number."""
    return ".".join(itertools.takewhile(lambda part: not part.isdigit(), name.split(".")))


def _added(part: nn.Module, names: Mapping[str, str]) -> tuple[str, ...]:
    """The tokens that a tower adds to its patches, by the parameters that hold them."""
    texts: list[str] = []
    for name, parameter in part.named_parameters():
        what = names.get(name.rpartition(".")[2])
        if what is not None:
            count = parameter.shape[-2] if parameter.dim() > 1 else 1
            texts += (
                [f"[{what}]"] if count == 1 and what not in ("REG", "DET") else [f"[{what} {n}]" for n in range(count)]
            )
    return tuple(texts)


def _convolved(one: Convolution, axis: int, size: int) -> int:
    kernel, stride = _each(one.kernel_size, axis + 1)[axis], _each(one.stride, axis + 1)[axis]
    padding, dilation = one.padding, _each(one.dilation, axis + 1)[axis]
    around = 0 if isinstance(padding, str) else _each(padding, axis + 1)[axis]
    return (size + 2 * around - dilation * (kernel - 1) - 1) // stride + 1


def _each(value: Any, count: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * count


@dataclass(eq=False)
class Positions:
    """What stands at the positions of a run's towers.

    Attributes:
        model: the model that ran.
        media: what it was given of pictures and sound, see :func:`media_of`.
        rate: steps a second of the sound as the model is given it (samples, or columns of a spectrogram), or None.
    """

    model: nn.Module
    media: Media
    rate: float | None = None
    _known: dict[Any, Labels | None] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        """How many pictures or sounds the run was given at once; 0 where none."""
        return int(next(iter(self.media.values()))[0]) if self.media else 0

    def labels(self, module: str, stack: str, length: int, begins: float = 0.0) -> Labels | None:
        """Labels, to be numbered, of what one row of a tower's batch reads; None where that is not known for sure.

        Args:
            module, stack: the name of an attending module, and the stack it stands in.
            length: how many positions it reads.
            begins: the second of the recording at which the sound begins.
        """
        key = (module, stack, length, begins)
        if key not in self._known:
            found = self._labels(module, stack, begins) if self.media else None
            self._known[key] = found if found is not None and len(found) == length else None
        return self._known[key]

    def rows(self, module: str) -> list[Labels]:
        """The patches of each row of a tower's batch, without the tokens that the tower adds; all are alike."""
        tower, shape = tower_of(self.model, module), self._pixels()
        if shape is None or not tower.convolutions or self.setting("model_type") in SHUFFLED:
            return []
        grid = self._grid(tower, shape)
        return [patches((grid[0], grid[1]))] * math.prod(shape[:-3]) if len(grid) == 2 else []

    @cached_property
    def grids(self) -> list[Cell]:
        """Rows and columns of patches of each picture or video frame, where the input says so itself."""
        given = [self.media[name] for name in ("image_grid_thw", "video_grid_thw") if name in self.media]
        return [(h, w) for t, h, w in given[0] for _ in range(t)] if len(given) == 1 else []

    @property
    def blockwise(self) -> bool:
        """Whether the tower reads the pictures one after another, each in a call of its own, block by block."""
        return bool(self.grids) and self.setting("model_type") in BLOCKWISE

    def block(self, index: int, length: int) -> Labels | None:
        """Labels, to be numbered, of the picture that a tower reads block by block in its call number ``index``."""
        if not self.blockwise or index >= len(self.grids):
            return None
        found = patches(self.grids[index], blockwise(self.grids[index], self.merge))
        return found if len(found) == length else None

    @property
    def tile(self) -> Cell | None:
        """Rows and columns of pixels of the pictures, or tiles of pictures, that are read."""
        shape = self._pixels()
        return (shape[-2], shape[-1]) if shape is not None else None

    @property
    def merge(self) -> int:
        """How many patches, along each side of the picture, become one position of the decoder."""
        found = (self.setting(name) for name in MERGES)
        return next((value for value in found if isinstance(value, int)), 1)

    def setting(self, name: str) -> Any:
        """A setting of the model, or else of the part of it that reads pictures."""
        config = getattr(self.model, "config", None)
        parts = [config, getattr(config, "vision_config", None)]
        return next((value for value in (getattr(part, name, None) for part in parts) if value is not None), None)

    # ---- the ways to know

    def _labels(self, module: str, stack: str, begins: float) -> Labels | None:
        if self.setting("model_type") in SHUFFLED:
            return None
        if stack == "encoder" and self.setting("model_type") in FEATURE_MAP:
            return self._feature_map()
        tower = tower_of(self.model, module)
        found = self._sound(tower, begins) if stack == "audio" or not self._pixels() else self._picture(tower)
        return None if found is None else Labels.joined([specials(tower.before), found, specials(tower.after)])

    def _picture(self, tower: Tower) -> Labels | None:
        shape = self._pixels()
        if shape is None or not tower.convolutions:
            return None
        grid = self._grid(tower, shape)
        if not grid:
            return None
        count = grid[0] if len(grid) == 3 else 1
        return Labels.joined([patches((grid[-2], grid[-1]), part=part) for part in range(count)])

    def _grid(self, tower: Tower, shape: Sequence[int]) -> tuple[int, ...]:
        """Rows and columns of patches, frames before them where the convolution goes over frames; () for none."""
        first = tower.first
        if isinstance(first, nn.Conv2d) and shape[-3] == first.in_channels:
            return tower.sizes(shape[-2:])
        if isinstance(first, nn.Conv3d) and len(shape) == 5 and first.in_channels in shape[1:3]:
            count = shape[1] if shape[2] == first.in_channels else shape[2]
            return tower.sizes((count, *shape[-2:]))
        return ()

    def _feature_map(self) -> Labels | None:
        shape, cell = self._pixels(), FEATURE_MAP[self.setting("model_type")]
        if shape is None or len(shape) != 4 or self.setting("dilation"):
            return None
        return patches((math.ceil(shape[-2] / cell), math.ceil(shape[-1] / cell)))

    def _sound(self, tower: Tower, begins: float) -> Labels | None:
        shape = next((self.media[name] for name in ("input_features", "input_values") if name in self.media), None)
        if shape is None:
            return None
        if self.setting("model_type") in SPECTROGRAM_PATCHES and len(shape) == 3:
            rows, columns = tower.sizes((shape[2], shape[1]))
            return patches((rows, columns))
        steps = _time(shape, tower)
        if steps is None:
            return None
        stride = math.prod(_each(one.stride, 1)[0] for one in tower.convolutions)
        return frames(tower.sizes([steps])[0], None if self.rate is None else stride / self.rate, begins)

    def _pixels(self) -> tuple[int, ...] | None:
        """The shape of the pictures ``[…, channel, row, column]``; None for none, several kinds, or cut beforehand."""
        given = [self.media[name] for name in ("pixel_values", "pixel_values_videos") if name in self.media]
        return tuple(given[0]) if len(given) == 1 and len(given[0]) >= 4 else None


def _time(shape: Sequence[int], tower: Tower) -> int | None:
    """How many steps in time an input has: the axis that is not the channels; None where it could be either."""
    if tower.first is None or not all(isinstance(one, nn.Conv1d) for one in (tower.first, *tower.convolutions)):
        return None
    if len(shape) == 2:
        return shape[1] if tower.first.in_channels == 1 else None
    others = [size for size in shape[1:] if size != tower.first.in_channels]
    return others[0] if len(shape) == 3 and len(others) == 1 else None
