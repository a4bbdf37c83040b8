"""What becomes of a block's output without the value of one key, key by key.

Where a value vector is zero in all heads, the kernel mixes what it mixed minus the weight times that value; the weights
stay as they are, and are not spread over the other keys. The block runs again with that, once a key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from hf_attnviz.capturing.blocks import NO_BLOCK, Kernel
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text
from hf_attnviz.reducing.tile import Tile


@dataclass(eq=False)
class KeptZeroing:
    """How far each row of a block's output turns without each key: kept as rows of a map with one head.

    Attributes:
        weights: ``[batch, 1, query, key]``: 1 − cosine of the output with and without; NaN until the block has ended.
        positions: ``[batch, query]``.
        attention, values: what ran, ``[batch, head, query, key]`` and ``[batch, key_value_head, key, size]``.
        asked: which modules are asked, and who is told that a key begins.
    """

    weights: torch.Tensor
    positions: torch.Tensor
    attention: torch.Tensor
    values: torch.Tensor | None
    asked: "Zeroing"
    refusal: Text | None = NO_BLOCK

    def read(self, kernel: Kernel, known: dict[Any, Any]) -> None:
        """Run the block without each key in turn."""
        module = kernel.real[kernel.event].module
        if module is None or id(module) not in self.asked.modules:
            return
        values, mixed, whole = self.values, kernel.mixed, kernel.real[-1].tensor
        if values is None or self.attention.dim() != 4 or values.shape[-1] != mixed.shape[-1]:
            raise CaptureError(
                Text("it computes its attention in a way that does not show its values", "它计算注意力的方式不显露其值")
            )
        if whole.shape[:2] != mixed.shape[:2] or mixed.shape[2] != self.attention.shape[1]:
            raise CaptureError(
                Text("its positions are not those that its block puts out", "它的位置不是它所在的块所输出的位置")
            )
        values = values.repeat_interleave(mixed.shape[2] // values.shape[1], dim=1)
        for key in range(values.shape[2]):
            self.asked.begins()
            part = self.attention[..., key].transpose(1, 2)[..., None] * values[:, None, :, key]
            less = mixed - part.to(mixed)
            turned = _turned(whole, kernel.block.output({kernel.number: partial(_always, less)}))
            self.weights[:, 0, :, key] = turned.to(self.weights)


@dataclass(frozen=True)
class Zeroing:
    """Instead of maps: how far each row of a block's output turns when one key's value is zero.

    Args:
        modules: the attention modules that are asked, by ``id(module)``.
        begins: called before each key.
    """

    modules: frozenset[int]
    begins: Callable[[], object]
    name: str = "maps"
    needs: frozenset[str] = frozenset({"maps", "vectors", "block"})

    def update(self, state: KeptZeroing | None, tile: Tile) -> KeptZeroing:
        """Take the weights and the values of a call; calls come whole."""
        kind = torch.promote_types(tile.weights.dtype, torch.float32)
        scores = torch.full_like(tile.weights[:, :1], torch.nan, dtype=kind)
        return KeptZeroing(scores, tile.positions, tile.weights, tile.vectors.get("value"), self)

    def result(self, state: KeptZeroing) -> KeptZeroing:
        """The scores, filled in when the block ends."""
        return state


def _always(given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    return given


def _turned(whole: torch.Tensor, less: torch.Tensor) -> torch.Tensor:
    """1 − cosine of the rows of both ``[batch, query, width]``: half the square of the distance on the unit sphere, so
    that alike rows have exactly 0."""
    one, other = (torch.nn.functional.normalize(rows.double(), dim=-1) for rows in (whole, less))
    return (one - other).square().sum(-1) / 2
