"""How far across a picture a head looks.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), section 4.5 and appendix D.7 (attention distance).
Steps: keep the patches at both ends; divide each row by what is left of it; the mean distance of a row by its weights;
the mean over all patches of all examples.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.bootstrap import Tally
from hf_attnviz.functional.checks import check_axes, check_square, upcast
from hf_attnviz.language import Text


def image_distance(attention: Tensor, *, grid: tuple[int, int], patch_size: float, prefix: int = 1) -> Tensor:
    """Mean attention distance of `attention` `[layer, batch, head, query, key]`: `[layer, head]`, in pixels.

    Euclidean, between the centres of patches of patch_size pixels that stand in rows and columns as grid says, row by
    row, behind prefix other tokens ([CLS], registers), which count neither as queries nor as keys. A row that gives
    patches no weight has no distance and is left out; NaN where none is left, or a row holds NaN.

    >>> looks_right = torch.eye(4)[[0, 2, 1, 3]].view(1, 1, 1, 4, 4)  # two patches by two, two swap
    >>> float(image_distance(looks_right, grid=(2, 2), patch_size=16, prefix=0)) / 16  # half of √2
    0.7071067690849304
    """
    return image_distance_by_example(attention, grid=grid, patch_size=patch_size, prefix=prefix).mean()


def image_distance_by_example(attention: Tensor, *, grid: tuple[int, int], patch_size: float, prefix: int = 1) -> Tally:
    """The same before it is pooled, `[example, layer, head]`."""
    check_axes(attention)
    check_square(attention, Text("distance across a picture", "图像上的距离"))
    rows, columns = grid
    tokens = attention.shape[-1]
    if prefix < 0 or rows < 1 or columns < 1 or prefix + rows * columns != tokens:
        raise ShapeError(
            Text(
                f"expected {prefix} + {rows} × {columns} tokens, got {tokens}; grid is rows and columns of patches, "
                "prefix the tokens before them",
                f"应为 {prefix} + {rows} × {columns} 个词元，得到 {tokens} 个；grid 是图块的行数与列数，prefix "
                "是其前的词元数",
            )
        )
    if not patch_size > 0:
        raise ArgumentError(
            Text(
                f"expected patch_size above 0, got {patch_size}; it is the side of a patch in pixels",
                f"patch_size 应大于 0，得到 {patch_size}；它是图块的边长，单位像素",
            )
        )
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(attention.device, torch.float64)
    apart = patch_size * (places[:, None] - places).square().sum(-1).sqrt()
    found = [_layer(upcast(layer)[..., prefix:, prefix:], apart) for layer in attention]
    totals, counts = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
    return Tally(totals, counts)


def _layer(weights: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    """Σ of the distances of one layer's rows, and how many have one: `[example, head]` each."""
    left = weights.sum(-1)
    distance = (weights * apart.to(weights.dtype)).sum(-1) / left
    return distance.masked_fill(left == 0, 0).sum(-1), (left != 0).sum(-1)
