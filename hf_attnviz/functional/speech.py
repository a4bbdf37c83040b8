"""When each token was spoken, by the cross-attention of a speech model.

Source: the code released with Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022),
which the paper does not describe. Steps: standardise each frame's weights over the rows of a head; smooth each row with
a running median over frames; take the mean over heads; find the path of least −weight by dynamic time warping. A row's
time is the first frame of its stretch of the path.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional.alignment import dtw
from hf_attnviz.functional.checks import check_axes, upcast
from hf_attnviz.language import Text


def median_filter(values: Tensor, width: int) -> Tensor:
    """The median of the `width` values around each along the last axis, the ends mirrored (the end itself not twice).

    Unchanged where there are no more values than half a width, which leaves nothing to mirror. Raises ArgumentError
    unless width is odd.

    >>> median_filter(torch.tensor([0.0, 9.0, 1.0, 2.0, 3.0]), 3)
    tensor([9., 1., 2., 2., 2.])
    """
    if width < 1 or width % 2 == 0:
        raise ArgumentError(
            Text(
                f"expected an odd width of 1 or more, got {width}; Whisper's is 7",
                f"width 应为不小于 1 的奇数，得到 {width}；Whisper 用 7",
            )
        )
    half, length = width // 2, values.shape[-1]
    if length <= half:
        return values
    places = torch.arange(-half, length + half, device=values.device).abs()
    places = torch.where(places >= length, 2 * (length - 1) - places, places)
    return values[..., places].unfold(-1, width, 1).median(-1).values


def spoken_frames(attention: Tensor, *, median_width: int = 7) -> Tensor:
    """The first frame of each row's stretch of the path, from `attention` `[head, query, key]`: int64 `[query]`.

    The heads are those that align (Whisper names them in its generation config), the rows those of the text in order,
    the keys the frames of the sound without the silence that fills it up. Rows are standardised over `query`: a frame
    to which all rows give the same weight tells nothing and counts 0. Raises ArgumentError for NaN or an even width.

    >>> spoken_frames(torch.eye(3).repeat_interleave(2, 1)[None], median_width=1)
    tensor([0, 2, 4])
    """
    check_axes(attention, "head query key")
    weights = upcast(attention)
    deviation = weights - weights.mean(1, keepdim=True)
    spread = weights.std(1, correction=0, keepdim=True)
    scores = torch.where(spread > 0, deviation / spread, deviation * 0)  # × 0 and not 0: NaN stays NaN
    path, _ = dtw(-median_filter(scores, median_width).mean(0))
    begins = torch.cat([path[:1, 0] >= 0, path[1:, 0] > path[:-1, 0]])
    return path[begins, 1]
