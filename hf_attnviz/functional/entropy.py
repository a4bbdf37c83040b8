"""How spread attention is: Shannon's entropy of a row, H = −Σ a ln a, in nats.

Source: Shannon, "A Mathematical Theory of Communication" (1948), section 6; over attention rows as in Clark et al.,
"What Does BERT Look At?" (2019), section 3.3.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional.checks import check_floating, upcast
from hf_attnviz.language import Text


def entropy(attention: Tensor) -> Tensor:
    """Entropy of each row, `[..., query, key]` → `[..., query]`, in nats: 0 on one key, ln n when even over n keys.

    A key without weight adds nothing (0 ln 0 = 0). NaN marks a row that holds NaN, infinity or a negative weight.
    Raises ShapeError without a key axis, or for integers.

    >>> entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([0.0000, 0.6931])
    """
    if attention.ndim == 0:
        raise ShapeError(
            Text(
                "expected attention [..., query, key], got a single number; pass whole rows",
                "应为注意力 [..., query, key]，得到单个数；请传入整行",
            )
        )
    check_floating(attention, "attention")
    weights = upcast(attention)
    negative: Tensor = torch.special.xlogy(weights, weights).sum(-1)
    return 0.0 - negative.masked_fill(negative == torch.inf, torch.nan)  # unlike -negative, never -0
