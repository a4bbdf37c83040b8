"""How far across a picture each head looks, labelled."""

import math
from collections.abc import Sequence

from hf_attnviz import functional
from hf_attnviz.analysis.beside import interval_note, scored
from hf_attnviz.analysis.caveats import nan_weights
from hf_attnviz.analysis.pooling import Pooled, pooled
from hf_attnviz.axes import STATISTIC
from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional.checks import upcast
from hf_attnviz.functional.image_distance import image_distance_by_example
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

_OTHERS = Text(
    "[CLS], registers and other tokens that are no patches count neither as queries nor as keys; rows are divided by "
    "what is left of them.",
    "[CLS]、register 等非图块词元既不作查询也不作键；每行按剩余部分重新归一。",
)


def image_distance(
    traces: Trace | Sequence[Trace], *, stack: str | None = None, patch_size: float | None = None
) -> Result:
    """The mean distance between a patch and what it looks at: ``[statistic, layer, head]``, one statistic.

    Args:
        patch_size: the side of a patch in pixels; default: distances are told in patches.
        stack: a self-attention stack of patches; default: the only one.

    Raises:
        ArgumentError: keys that are not the patches of one picture, row by row; traces of different grids.
        NotKeptError: maps without all their rows.
    """
    data = pooled(traces, stack)
    layouts = {_patches(one.whole().keys) for one in data.stacks}
    if len(layouts) > 1:
        raise ArgumentError(
            Text(
                f"expected pictures of one grid, got {len(layouts)} kinds; analyse those alike together",
                f"各图片的网格应相同，得到 {len(layouts)} 种；请把相同的一起分析",
            )
        )
    places, grid = layouts.pop()
    side = 1.0 if patch_size is None else patch_size
    found, uniform = (
        image_distance_by_example(maps[..., places, :][..., places], grid=grid, patch_size=side, prefix=0)
        for maps in (data.attention, functional.uniform_like(data.attention, valid=data.valid))
    )
    return Result(
        axes=(Axis(STATISTIC, ("image_distance",)), data.layer_axis, data.head_axis),
        method="image distance",
        parameters={**data.what, "grid": grid, "patch_size": patch_size},
        source="Dosovitskiy et al. 2021, appendix D.7",
        unit="patches" if patch_size is None else "pixels",
        notes=(_OTHERS, *_beside(data, places), *nan_weights(data.attention), interval_note(data.attention.shape[1])),
        **scored({"image_distance": found}, {"image_distance": uniform}),
    )


def _beside(data: Pooled, places: tuple[int, ...]) -> list[Text]:
    """How much weight of the patches lies on what is left out."""
    rows = upcast(data.attention[..., places, :])
    share = float(1 - rows[..., places].sum(-1).mean((1, 3)).nanmean())
    if len(places) == rows.shape[-1] or math.isnan(share):
        return []
    return [
        Text(
            f"{share:.0%} of the patches' weight lies on these other tokens (mean over heads).",
            f"图块权重的 {share:.0%} 落在这些其他词元上（各头平均）。",
        )
    ]


def _patches(keys: Labels) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Where the patches stand, row by row, and their grid."""
    places = [n for n, cell in enumerate(keys.cells or ()) if cell is not None]
    cells = [cell for cell in keys.cells or () if cell is not None]
    grid = (max((row for row, _ in cells), default=-1) + 1, max((column for _, column in cells), default=-1) + 1)
    if not cells or cells != [(row, column) for row in range(grid[0]) for column in range(grid[1])]:
        raise ArgumentError(
            Text(
                f"expected the patches of one picture, row by row, got {len(cells)} patches among {len(keys)} keys; "
                "choose the stack of a vision tower (stack=…)",
                f"应为一张图片逐行排列的图块，得到 {len(keys)} 个键中的 {len(cells)} 个图块；请用 stack=… "
                "选择视觉塔的堆栈",
            )
        )
    return tuple(places), grid
