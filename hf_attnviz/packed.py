"""Rows of attention in a quarter of their memory: float16, and of each block of rows only the keys that it looks at.

A causal map of T tokens has T² places and T²/2 weights; in blocks of 128 rows, each from the first to the last key to
which any of its rows gives weight, it takes T²/2 + 64·T numbers of two bytes. A weight read back is the float16 nearest
to it: within 2⁻¹¹ of its size, or within 3e-8 where it is below 6.1e-5.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.functional import pad

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.language import Text
from hf_attnviz.storage import typed

ROWS: Final = 128
_TYPES: Final = {str(one): one for one in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Attention ``[..., query, key]`` without the zeros on either side of what each block of rows looks at.

    Attributes:
        blocks: ``[..., row, key]`` in float16, blocks of rows in order.
        starts: on which key each block begins; keys before it, and after its last, weigh nothing.
        keys: how many keys there are.
        dtype: the type that is given back.
    """

    blocks: tuple[torch.Tensor, ...]
    starts: tuple[int, ...]
    keys: int
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not self.blocks or len(self.blocks) != len(self.starts) or self.dtype not in _TYPES.values():
            raise ShapeError(
                Text(
                    f"expected blocks of rows with a start each, and a floating-point type; got {len(self.blocks)} "
                    f"blocks, {len(self.starts)} starts and {self.dtype}",
                    f"应为各带起点的行块和一种浮点类型；得到 {len(self.blocks)} 块、{len(self.starts)} 个起点和 "
                    f"{self.dtype}",
                )
            )
        for start, block in zip(self.starts, self.blocks, strict=True):
            fits = block.dtype == torch.float16 and block.dim() >= 2 and block.shape[:-2] == self.blocks[0].shape[:-2]
            if not fits or start < 0 or start + block.shape[-1] > self.keys:
                raise ShapeError(
                    Text(
                        f"expected blocks [..., row, key] of float16 within {self.keys} keys, got one of "
                        f"{tuple(block.shape)} in {block.dtype} from key {start} on",
                        f"应为 {self.keys} 个键以内、float16 的块 [..., row, key]，得到的一块是 {tuple(block.shape)}、"
                        f"{block.dtype}，从键 {start} 开始",
                    )
                )

    @classmethod
    def of(cls, weights: torch.Tensor) -> "PackedRows":
        """Pack weights ``[..., query, key]``: keys to which no row of a block gives weight are left out at both ends.

        Raises:
            ShapeError: no floating-point numbers, or no rows.
            ArgumentError: numbers beyond what float16 can hold.
        """
        if not weights.is_floating_point() or weights.dim() < 2 or not weights.shape[-2]:
            raise ShapeError(
                Text(
                    f"expected weights [..., query, key], got {tuple(weights.shape)} of {weights.dtype}",
                    f"应为权重 [..., query, key]，得到 {weights.dtype} 的 {tuple(weights.shape)}",
                )
            )
        tiles = (weights[..., n : n + ROWS, :] for n in range(0, weights.shape[-2], ROWS))
        return cls._packed(tiles, weights.shape[-1], weights.dtype)

    @classmethod
    def joined(cls, parts: Sequence["PackedRows"]) -> "PackedRows":
        """The rows of all parts, one after another; a part with fewer keys looks at none of the others."""
        blocks = tuple(block for part in parts for block in part.blocks)
        starts = tuple(start for part in parts for start in part.starts)
        return cls(blocks, starts, max(part.keys for part in parts), parts[0].dtype)

    @property
    def shape(self) -> torch.Size:
        """That of the weights, unpacked."""
        return torch.Size((*self.blocks[0].shape[:-2], sum(block.shape[-2] for block in self.blocks), self.keys))

    @property
    def nbytes(self) -> int:
        """The memory that the blocks take, in bytes."""
        return sum(block.nbytes for block in self.blocks)

    def tiles(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Each block with its first row and its first key."""
        row = 0
        for start, block in zip(self.starts, self.blocks, strict=True):
            yield row, start, block
            row += block.shape[-2]

    def rows(self, places: Sequence[int]) -> torch.Tensor:
        """The weights ``[..., row, key]`` of chosen rows, in the type in which they came.

        Raises:
            ArgumentError: a row that is not there.
        """
        wanted = torch.tensor(places, dtype=torch.long, device=self.blocks[0].device)
        if bool(((wanted < 0) | (wanted >= self.shape[-2])).any()):
            raise ArgumentError(
                Text(
                    f"expected rows from 0 to {self.shape[-2] - 1}, got {list(places)}",
                    f"行号应为 0 到 {self.shape[-2] - 1}，得到 {list(places)}",
                )
            )
        found = torch.zeros((*self.shape[:-2], len(places), self.keys), dtype=self.dtype, device=wanted.device)
        for first, start, block in self.tiles():
            here = ((wanted >= first) & (wanted < first + block.shape[-2])).nonzero().flatten()
            stop = start + block.shape[-1]
            found[..., here, start:stop] = block[..., wanted[here] - first, :].to(self.dtype)
        return found

    def unpacked(self) -> torch.Tensor:
        """The weights ``[..., query, key]``, in the type in which they came."""
        return self.rows(range(self.shape[-2]))

    def alone(self, place: int) -> "PackedRows":
        """One place of the first axis, without that axis: one row of a batch."""
        return PackedRows(tuple(block[place] for block in self.blocks), self.starts, self.keys, self.dtype)

    def cut(
        self, rows: Sequence[int] | None = None, keys: Sequence[int] | None = None, *, before: int = 0
    ) -> "PackedRows":
        """These rows and key columns, in this order, with ``before`` keys without weight in front of them."""
        rows = range(self.shape[-2]) if rows is None else rows
        if not len(rows):
            raise ShapeError(Text("expected at least one row to keep, got none", "应至少保留一行，得到零行"))
        tiles = (self.rows(rows[n : n + ROWS]) for n in range(0, len(rows), ROWS))
        columns = slice(None) if keys is None else list(keys)
        cut = (pad(tile[..., columns], (before, 0)) for tile in tiles)
        return self._packed(cut, before + (self.keys if keys is None else len(keys)), self.dtype)

    def to(self, device: torch.device | str) -> "PackedRows":
        """The same on another device."""
        return PackedRows(tuple(block.to(device) for block in self.blocks), self.starts, self.keys, self.dtype)

    def described(self) -> dict[str, Any]:
        """What a file says of it, beside its tensors."""
        return {"starts": self.starts, "keys": self.keys, "dtype": str(self.dtype)}

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """The blocks by name, for a file."""
        return {f"{prefix}.{n}": block for n, block in enumerate(self.blocks)}

    @classmethod
    def restored(cls, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], prefix: str) -> "PackedRows":
        """What :meth:`described` and :meth:`tensors` told."""
        starts = typed(about["starts"], int, each=True)
        blocks = tuple(tensors[f"{prefix}.{n}"] for n in range(len(starts)))
        return cls(blocks, starts, typed(about["keys"], int), _TYPES[typed(about["dtype"], str)])

    @classmethod
    def _packed(cls, tiles: Iterable[torch.Tensor], keys: int, dtype: torch.dtype) -> "PackedRows":
        found = [_seen(tile.detach()) for tile in tiles]
        return cls(tuple(block for _, block in found), tuple(start for start, _ in found), keys, dtype)


def _seen(tile: torch.Tensor) -> tuple[int, torch.Tensor]:
    """The first key to which any row gives weight, and the tile in float16 from there to the last one."""
    half = tile.to(torch.float16)
    if bool((half.isinf() & tile.isfinite()).any()):
        raise ArgumentError(
            Text(
                f"expected numbers that float16 can hold, got {float(tile.abs().nan_to_num().max()):.3g}; keep such a "
                "map unpacked",
                f"应为 float16 能表示的数，得到 {float(tile.abs().nan_to_num().max()):.3g}；"
                "这样的图请不要压缩保存（packed=False）",
            )
        )
    places = (half != 0).flatten(0, -2).any(0).nonzero().flatten()  # NaN is weight too
    start, stop = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
    return start, half[..., start:stop].clone(memory_format=torch.contiguous_format)
