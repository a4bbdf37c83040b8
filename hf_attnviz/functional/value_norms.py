"""How much of each key arrives at each query: norms of what is moved, not weights alone.

Source: Kobayashi et al., "Attention is Not Only a Weight: Analyzing Transformers with Vector Norms" (2020), equation 5,
and "Incorporating Residual and Normalization Layers into Analysis of Masked Language Models" (2021), equations 5 to 9.
A weight says how much of a vector is taken; a small vector moves little whatever its weight. Steps: project each
value, weigh it, sum over heads, take the norm; then with the residual, then through the norm behind it.

The sum over heads needs no vector a pair: ‖Σ_h a_h f_h(x_j)‖² = aᵀ·G_j·a with G_j[h, h′] = f_h(x_j)·f_h′(x_j), in
float64, for the square root of what is left of a cancellation has half its digits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.decomposition import Decomposition, HeldNorm
from hf_attnviz.functional.checks import upcast
from hf_attnviz.functional.parts import LayerNorm, decomposed, own_parts, projected, rows_of


def value_norms(
    attention: Tensor,
    hidden: Tensor,
    w_v: Tensor,
    b_v: Tensor | None,
    w_o: Tensor,
    *,
    b_o: Tensor | None = None,
    residual: Tensor | None = None,
    layer_norm: LayerNorm | None = None,
    rms: bool = False,
    positions: Tensor | None = None,
) -> dict[str, Tensor]:
    """Norms of one layer's parts, by name.

    attention: `[batch, head, query, key]`. hidden: `[batch, key, width]`, what the values are made of: behind the
    block's first norm where it has one (GPT-2, Llama). w_v: `[width, key_value_head · size]`, applied as
    `hidden @ w_v + b_v`. w_o: `[head · size, width]`, applied as `heads @ w_o + b_o`.
    residual: `[batch, query, width]`, the stream to which the sum is added. layer_norm: `(weight, bias, eps)` of the
    norm behind that sum (post-LN blocks); rms: it subtracts no mean. positions: `[query]`, the key on which each query
    stands, -1 for cross-attention; None: query i stands on key i.

    Gives, with f_h(x_j) the projected value:
    `value` `[batch, head, key]`: ‖f_h(x_j)‖; `weighted` `[batch, head, query, key]`: ‖a f_h(x_j)‖;
    `summed` `[batch, query, key]`: ‖Σ_h a f_h(x_j)‖; `with_residual`: the same with the query's own residual added to
    its own key's part; `normalised`: that through the norm, its statistics held fast: minus own mean, over the
    deviation of the whole vector, times the weight. `mixing` `[batch, query]`: ‖parts of other keys together‖ over
    that plus ‖own part‖; `mixing_with_residual`, `mixing_normalised`: the same at those stages. `output`
    `[batch, query, width]`: all parts, constants and residual added up, which must be the layer's own output.
    Without `residual` or `layer_norm` the entries of that stage are left out. `mixing` of a query that stands on no
    key is NaN; there the residual alone is its own.

    Raises ShapeError where sizes do not fit; the message says which.

    >>> one = torch.eye(2)[None]
    >>> found = value_norms(torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]]), 2 * one, one[0], None, one[0])
    >>> found["summed"][0].tolist(), found["mixing"][0].tolist()
    ([[1.0, 1.0], [2.0, 0.0]], [0.5, 1.0])
    """
    parts = decomposed(attention, hidden, w_v, b_v, w_o, b_o, residual, layer_norm, rms)
    each = [norms_of(weights, one, positions=positions) for weights, one in zip(attention, parts, strict=True)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def norms_of(attention: Tensor, parts: Decomposition, *, positions: Tensor | None = None) -> dict[str, Tensor]:
    """The norms of `value_norms` for one example whose parts are at hand, attention `[head, query, key]`.

    Where the parts go through a norm before they meet the residual, `with_residual` is behind it.
    """
    dtype, weights, parts = upcast(attention).dtype, attention.double(), parts.to(torch.float64)
    rows = rows_of(positions, attention.shape[1], attention.shape[2], attention.device)
    through = stages(parts)
    value, pairs = _pairs(weights, parts, through)
    own, mixed = own_parts(weights, parts, rows), parts.mixed(weights)
    found = {"value": value, "weighted": weights.abs() * value[:, None], "output": parts.output(weights)}
    for stage, norms in zip(through, pairs, strict=True):
        self_part = stage.part(own, own=True).norm(dim=-1)
        others = stage.part(mixed - own, own=False).norm(dim=-1)
        on_key = rows >= 0
        found[stage.name] = norms.index_put((on_key.nonzero()[:, 0], rows[on_key]), self_part[on_key])
        nothing_own = ~on_key if stage.residual is None else torch.zeros_like(on_key)
        found[f"mixing{stage.suffix}"] = (others / (others + self_part)).masked_fill(nothing_own, torch.nan)
    return {name: tensor.to(dtype) for name, tensor in found.items()}


@dataclass(frozen=True, eq=False)
class Stage:
    """How far parts have come: through a norm, to the residual, through the norm behind that."""

    name: str
    suffix: str
    inner: HeldNorm | None = None
    residual: Tensor | None = None
    outer: HeldNorm | None = None

    @property
    def norms(self) -> list[HeldNorm]:
        """The norms passed so far."""
        return [norm for norm in (self.inner, self.outer) if norm is not None]

    def direction(self, vectors: Tensor) -> Tensor:
        """Vectors `[..., width]` at this stage, before the norms divide each query by its scale."""
        for norm in self.norms:
            vectors = norm.direction(vectors)
        return vectors

    def part(self, vectors: Tensor, *, own: bool) -> Tensor:
        """Parts `[query, width]` at this stage; `own`: those of the query itself, to which the residual belongs."""
        vectors = vectors if self.inner is None else self.inner.part(vectors)
        vectors = vectors + self.residual if own and self.residual is not None else vectors
        return vectors if self.outer is None else self.outer.part(vectors)


def stages(parts: Decomposition) -> list[Stage]:
    """The stages that the parts of a layer go through."""
    found = [Stage("summed", "")]
    if parts.residual is not None:
        found.append(Stage("with_residual", "_with_residual", parts.inner, parts.residual))
    if parts.outer is not None:
        found.append(Stage("normalised", "_normalised", parts.inner, parts.residual, parts.outer))
    return found


def _pairs(weights: Tensor, parts: Decomposition, through: list[Stage]) -> tuple[Tensor, list[Tensor]]:
    """‖f_h(x_j)‖ `[head, key]`, and at each stage ‖Σ_h a f_h(x_j)‖ `[query, key]` without any residual."""
    values = weights.new_empty(weights.shape[0], weights.shape[2])
    found = [weights.new_empty(weights.shape[1:]) for _ in through]
    for block, vectors in projected(weights, parts):
        values[:, block] = vectors.norm(dim=-1).T
        for stage, norms in zip(through, found, strict=True):
            direction = stage.direction(vectors)
            gram = direction @ direction.transpose(1, 2)
            squares = torch.einsum("hqk,khg,gqk->qk", weights[..., block], gram, weights[..., block])
            norms[:, block] = squares.clamp(min=0).sqrt()
    for stage, norms in zip(through, found, strict=True):
        for norm in stage.norms:
            norms /= norm.scale[:, None]
    return values, found
