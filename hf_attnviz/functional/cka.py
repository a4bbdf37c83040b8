"""How alike what heads put out is, whatever the basis: centred kernel alignment with a linear kernel.

Sources: Kornblith et al., "Similarity of Neural Network Representations Revisited" (2019), section 3, equation 4; the
debiased form puts the unbiased estimator of HSIC there: Song et al., "Feature Selection via Dependence Maximization"
(2012), theorem 2. Steps: products between the features of two heads, never between all tokens, so that memory does not
grow with their square.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional.checks import check_floating, upcast
from hf_attnviz.functional.similarity import ULPS_OF_A_CONSTANT
from hf_attnviz.language import Text

FEWEST_TOKENS = 4  # the unbiased estimator divides by n − 3


def cka(head_outputs: Tensor, *, debiased: bool = False) -> Tensor:
    """Linear CKA between all heads of `head_outputs` `[head, token, size]`: `[head, head]`, 1 on the diagonal.

    Columns are centred. Biased upward: of two heads without anything in common it nears 1 when tokens are not many more
    than the size of a head. debiased=True is right on average then, and can be a little below 0 (or, on few tokens,
    above 1).

    NaN: a head that puts out the same for every token, one that holds NaN; debiased, fewer than four tokens, or a head
    whose own term is not above 0.

    >>> outputs = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [3.0, 2.0]], [[1.0, 0.0], [0.0, -1.0], [2.0, -3.0]]])
    >>> cka(outputs)  # one is the other, turned
    tensor([[1., 1.],
            [1., 1.]])
    """
    if head_outputs.ndim != 3 or 0 in head_outputs.shape:
        raise ShapeError(
            Text(
                f"expected head_outputs [head, token, size], none empty, got sizes {tuple(head_outputs.shape)}; "
                "put the tokens of all examples end to end",
                f"应为 head_outputs [head, token, size]，且都不为空，得到的大小为 {tuple(head_outputs.shape)}；"
                "请把所有样本的词元首尾相接",
            )
        )
    check_floating(head_outputs, "head_outputs")
    outputs = upcast(head_outputs)
    rounding = ULPS_OF_A_CONSTANT * torch.finfo(head_outputs.dtype).eps * outputs.abs().amax((1, 2))
    centred = outputs - outputs.mean(1, keepdim=True)
    varies = centred.abs().amax((1, 2)) > rounding
    products = _unbiased(centred) if debiased else _squared_products(centred)
    own = products.diagonal()
    defined = varies & (own > 0)
    norms = own.where(defined, 1).sqrt()
    likeness = products / norms / norms[:, None]
    return likeness.fill_diagonal_(1).masked_fill(~(defined[:, None] & defined), torch.nan)


def _squared_products(outputs: Tensor) -> Tensor:
    """‖XᵀY‖² of all heads, a head against all others at a time: `[head, head]`."""
    return torch.stack([(head.T @ outputs).square().sum((1, 2)) for head in outputs])


def _unbiased(centred: Tensor) -> Tensor:
    """HSIC₁ of all heads, `[head, head]`, from features: K = XXᵀ without its diagonal is never laid out."""
    heads, tokens, _ = centred.shape
    if tokens < FEWEST_TOKENS:
        return centred.new_full((heads, heads), torch.nan)
    lengths = centred.square().sum(-1)  # the diagonals, [head, token]
    traces = _squared_products(centred) - lengths @ lengths.T
    rows = (centred @ centred.sum(1)[:, :, None]).squeeze(-1) - lengths  # row sums of K without its diagonal
    sums = rows.sum(-1)
    pairs = traces + sums[:, None] * sums / ((tokens - 1) * (tokens - 2)) - 2 / (tokens - 2) * (rows @ rows.T)
    return (pairs + pairs.T) / 2 / (tokens * (tokens - 3))
