"""How differently two distributions are spread: one definition of each divergence, for two rows and for all heads.

Sources: Lin, "Divergence Measures Based on the Shannon Entropy" (1991), section IV (Jensen–Shannon, equal weights);
Hellinger (1909); Jeffreys, "An Invariant Form for the Prior Probability" (1946). The forms over all heads take them
flattened, `[head, pair]`, any number of rows end to end, and give the sum over these rows, `[head, other_head]`.
"""

import torch
from torch import Tensor

from hf_attnviz.functional.correlation import products
from hf_attnviz.functional.entropy import entropy
from hf_attnviz.language import Text
from hf_attnviz.progress import shown

HEADS_AT_ONCE = 16  # bounds the middle distributions held in memory
_WHAT = Text("Jensen–Shannon divergence of heads", "注意力头之间的 Jensen–Shannon 散度")


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """H((p+q)/2) − (H(p)+H(q))/2 over the last axis, in nats: 0 for equal rows, ln 2 for rows that share no key.

    `first` and `second` `[..., key]` → `[...]`, never below 0. NaN where a row holds NaN.

    >>> jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([0.0000, 0.6931])
    """
    return (entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2).clamp_min(0)


def pairwise_jensen_shannon(heads: Tensor) -> Tensor:
    """Jensen–Shannon divergence in nats between all heads `[head, pair]`; one head against a block at a time.

    Not a matrix product, so its cost is quadratic in heads: long work announces itself.
    """
    own = entropy(heads)
    result = heads.new_zeros(len(heads), len(heads))
    work = [(head, at) for head in range(len(heads)) for at in range(head + 1, len(heads), HEADS_AT_ONCE)]
    for head, at in shown(work, len(work), _WHAT):
        others = slice(at, at + HEADS_AT_ONCE)
        middle = entropy((heads[head] + heads[others]) / 2)
        result[head, others] = (middle - (own[head] + own[others]) / 2).clamp_min(0)
    return _both_ways(result, heads)


def pairwise_hellinger(heads: Tensor) -> Tensor:
    """Squared Hellinger distance ½Σ(√p − √q)² between all heads `[head, pair]`, in [0, 1] a row; one product."""
    shared = products(heads, first=torch.sqrt, second=torch.sqrt)
    own = shared.diagonal()
    return _both_ways(((own[:, None] + own) / 2 - shared).clamp_min(0).triu(1), heads)


def pairwise_jeffreys(heads: Tensor) -> Tensor:
    """Jeffreys' divergence Σ(p − q)(ln p − ln q) in nats between all heads `[head, pair]`; two products.

    Infinite where one head gives exactly nothing to a key that the other looks at.
    """
    crossed = products(heads, first=torch.positive, second=lambda part: part.masked_fill(part == 0, 1).log())
    own = crossed.diagonal()
    missed = products(heads, first=torch.positive, second=lambda part: (part == 0).double()) > 0
    divergence = (own[:, None] + own - crossed - crossed.T).clamp_min(0)
    return _both_ways(divergence.masked_fill(missed | missed.T, torch.inf).triu(1), heads)


def _both_ways(upper: Tensor, heads: Tensor) -> Tensor:
    """The symmetric matrix with this upper triangle: 0 on the diagonal, NaN there too for a head that holds NaN."""
    undefined = heads.isnan().any(-1)
    full = upper.triu(1) + upper.triu(1).T
    return full.masked_fill(undefined[:, None] | undefined, torch.nan).to(heads.dtype)
