"""How differently two distributions are spread: one definition of each divergence, for two rows and for all heads.

Sources: Lin, "Divergence Measures Based on the Shannon Entropy" (1991), section IV (Jensen–Shannon, equal weights);
Hellinger (1909); Jeffreys, "An Invariant Form for the Prior Probability" (1946). The forms over all heads take them
flattened, `[head, pair]`, any number of rows end to end, and give the sum over these rows, `[head, other_head]`.
"""

import torch
from torch import Tensor

from hf_attnviz.functional.entropy import entropy

HEADS_AT_ONCE = 16  # bounds the middle distributions held in memory


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """H((p+q)/2) − (H(p)+H(q))/2 over the last axis, in nats: 0 for equal rows, ln 2 for rows that share no key.

    `first` and `second` `[..., key]` → `[...]`, never below 0. NaN where a row holds NaN.

    >>> jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([0.0000, 0.6931])
    """
    return (entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2).clamp_min(0)


def pairwise_jensen_shannon(heads: Tensor) -> Tensor:
    """Jensen–Shannon divergence in nats between all heads `[head, pair]`; one head against a block at a time."""
    own = entropy(heads)
    result = heads.new_zeros(len(heads), len(heads))
    for head, weights in enumerate(heads):
        starts = range(head + 1, len(heads), HEADS_AT_ONCE)
        middle = torch.cat([own[:0], *(entropy((weights + heads[at : at + HEADS_AT_ONCE]) / 2) for at in starts)])
        result[head, head + 1 :] = (middle - (own[head] + own[head + 1 :]) / 2).clamp_min(0)
    return _both_ways(result, heads)


def pairwise_hellinger(heads: Tensor) -> Tensor:
    """Squared Hellinger distance ½Σ(√p − √q)² between all heads `[head, pair]`, in [0, 1] a row; one product."""
    roots = heads.sqrt()
    shared = roots @ roots.T
    own = heads.sum(-1)
    return _both_ways(((own[:, None] + own) / 2 - shared).clamp_min(0).triu(1), heads)


def pairwise_jeffreys(heads: Tensor) -> Tensor:
    """Jeffreys' divergence Σ(p − q)(ln p − ln q) in nats between all heads `[head, pair]`; two products.

    Infinite where one head gives exactly nothing to a key that the other looks at.
    """
    nothing = heads == 0
    logarithms = heads.masked_fill(nothing, 1).log()
    own = (heads * logarithms).sum(-1)
    crossed = heads @ logarithms.T
    missed = heads @ nothing.to(heads.dtype).T > 0
    divergence = (own[:, None] + own - crossed - crossed.T).clamp_min(0)
    return _both_ways(divergence.masked_fill(missed | missed.T, torch.inf).triu(1), heads)


def _both_ways(upper: Tensor, heads: Tensor) -> Tensor:
    """The symmetric matrix with this upper triangle: 0 on the diagonal, NaN there too for a head that holds NaN."""
    undefined = heads.isnan().any(-1)
    full = upper.triu(1) + upper.triu(1).T
    return full.masked_fill(undefined[:, None] | undefined, torch.nan)
