"""How much each input token mattered for one scalar, by attention and its gradient; and how much each head did.

Sources: Chefer, Gur & Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
Transformers" (2021), equations 5 to 11; Michel, Levy & Neubig, "Are Sixteen Heads Really Better than One?" (2019),
equation 2. Gradients are of one scalar, and mean nothing without its name.
"""

import torch
from torch import Tensor

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional.checks import check_axes, check_floating, check_square, upcast
from hf_attnviz.language import Text

Pair = tuple[Tensor, Tensor]


def attention_gradient(attention: Tensor, gradient: Tensor) -> Tensor:
    """Weight times gradient, sign kept: both `[layer, batch, head, query, key]`, and so is the product.

    To first order, minus what the scalar would change by if that one weight became 0, the other weights as they are.

    >>> weights, slope = torch.tensor([0.25, 0.75]), torch.tensor([4.0, -2.0])
    >>> attention_gradient(weights.view(1, 1, 1, 1, 2), slope.view(1, 1, 1, 1, 2)).flatten()
    tensor([ 1.0000, -1.5000])
    """
    check_axes(attention)
    _check_gradient(attention, gradient, "attention")
    return upcast(attention) * upcast(gradient)


def relevance(attention: Tensor, gradient: Tensor) -> Tensor:
    """Relevance of the key tokens for the query tokens after all layers, `[batch, query, key]`.

    Equations 5 and 6: Ā = the mean over heads of max(0, A⊙∇A), cut off at 0 before the mean; R = I, then R += Ā R layer
    by layer. Rows do not sum to one; each holds the token's own 1, with which it began.

    attention, gradient: `[layer, batch, head, query, key]`, as many queries as keys. Padding must be cut away, or hold
    weights or gradients of 0.

    >>> attention = torch.full((1, 1, 1, 2, 2), 0.5)
    >>> relevance(attention, torch.tensor([[2.0, -2], [0, 4]]).expand(1, 1, 1, 2, 2))
    tensor([[[2., 0.],
             [0., 3.]]])
    """
    added = _positive_mean(attention, gradient)
    check_square(attention, Text("relevance", "相关性传播"))
    found = torch.zeros_like(added[0])
    for mixing in added:
        found = _grown(found, mixing)
    return found + _identity(found)


def relevance_encoder_decoder(*, encoder: Pair, decoder: Pair, cross: Pair) -> dict[str, Tensor]:
    """Relevance in an encoder-decoder for one example: "encoder", "decoder" and "cross" (a row a target token, a column
    a source token).

    encoder, decoder, cross: attention and gradient, each `[layer, head, query, key]`.

    Self-attention adds by equations 6 and 7, cross-attention by equation 10, R_cross += R̄_decoderᵀ Ā R̄_encoder, where
    R̄ (equations 8 and 9) is R with what it holds beyond the identity divided by its row sums; rows that hold nothing
    beyond it stay 0 there. (Equation 11 adds nothing: no source token looks at the target.) The transposed R̄_decoder
    is the paper's: a target token is credited with what later tokens took from it.

    Raises ShapeError where source or target differ in length between the three, or decoder and cross in layers.
    """
    pairs = {"encoder": encoder, "decoder": decoder, "cross": cross}
    added = {name: _positive_mean(*(one[:, None] for one in pair))[:, 0] for name, pair in pairs.items()}
    _check_three(added)
    source, target, across = (torch.zeros_like(added[name][0]) for name in pairs)
    for mixing in added["encoder"]:
        source = _grown(source, mixing)
    seen = _normalised(source)
    for own, other in zip(added["decoder"], added["cross"], strict=True):
        target, across = _grown(target, own), across + own @ across
        across = across + _normalised(target).mT @ other @ seen
    return {"encoder": source + _identity(source), "decoder": target + _identity(target), "cross": across}


def head_importance(head_output: Tensor, gradient: Tensor, *, normalise: bool = False) -> Tensor:
    """How much the scalar rests on each head, `[layer, head]`: the mean over examples of |Σ O·∇O|.

    head_output, gradient: `[layer, batch, head, token, size]`; the sum runs over tokens and features before its
    absolute value is taken, so what one token gains can be lost by another. Because O = A V, the same sum over queries
    and keys of A·∇A gives the same number: attention and its gradient, `[layer, batch, head, query, key]`, do as well.
    normalise: divide by the l2 norm of each layer's heads; NaN where that is 0.

    >>> output = torch.tensor([[3.0], [4.0]]).view(1, 1, 2, 1, 1)
    >>> head_importance(output, -torch.ones_like(output), normalise=True)
    tensor([[0.6000, 0.8000]])
    """
    check_axes(head_output)
    _check_gradient(head_output, gradient, "head_output")
    by_example = (upcast(head_output) * upcast(gradient)).sum((-2, -1))
    scores = by_example.abs().mean(1)
    return scores / scores.norm(dim=-1, keepdim=True) if normalise else scores


def _positive_mean(attention: Tensor, gradient: Tensor) -> Tensor:
    """Ā of each layer, `[layer, batch, query, key]` (equation 5)."""
    return attention_gradient(attention, gradient).clamp(min=0).mean(-3)


def _identity(like: Tensor) -> Tensor:
    """The identity for the rows of `like`, `[…, query, key]`."""
    size = like.shape[-2]
    return torch.eye(size, dtype=like.dtype, device=like.device).expand(*like.shape[:-2], size, size)


def _grown(beyond: Tensor, mixing: Tensor) -> Tensor:
    """R − I after one more layer, R += Ā R: kept apart from I, for 1 + 1e-9 is 1, and a sure model's gradients are
    that small."""
    return beyond + mixing + mixing @ beyond


def _normalised(beyond: Tensor) -> Tensor:
    """R̄ from R − I (equations 8 and 9); its entries are not negative, so a sum of 0 is an empty row."""
    sums = beyond.sum(-1, keepdim=True)
    return beyond / torch.where(sums == 0, 1, sums) + _identity(beyond)


def _check_gradient(values: Tensor, gradient: Tensor, name: str) -> None:
    if not isinstance(gradient, Tensor) or gradient.shape != values.shape:
        came = tuple(gradient.shape) if isinstance(gradient, Tensor) else type(gradient).__name__
        raise ShapeError(
            Text(
                f"expected a gradient shaped like {name}, {tuple(values.shape)}, got {came}; capture with "
                "gradients=True and call backward() on one scalar",
                f"梯度的形状应与 {name} 相同，即 {tuple(values.shape)}，得到 {came}；请以 gradients=True 捕获，"
                "并对一个标量调用 backward()",
            )
        )
    check_floating(gradient, Text("gradient", "梯度"))


def _check_three(added: dict[str, Tensor]) -> None:
    check_square(added["encoder"], Text("relevance of the encoder", "编码器的相关性传播"))
    check_square(added["decoder"], Text("relevance of the decoder", "解码器的相关性传播"))
    target, source = added["cross"].shape[-2:]
    lengths = added["decoder"].shape[-1], added["encoder"].shape[-1]
    if (target, source) != lengths or len(added["cross"]) != len(added["decoder"]):
        raise ShapeError(
            Text(
                f"expected cross-attention of {len(added['decoder'])} layers with {lengths[0]} queries (the decoder's "
                f"tokens) and {lengths[1]} keys (the encoder's), got {len(added['cross'])} layers with {target} and "
                f"{source}; take all three from one forward pass",
                f"交叉注意力应有 {len(added['decoder'])} 层、{lengths[0]} 个查询（解码器的词元）和 {lengths[1]} "
                f"个键（编码器的词元），得到 {len(added['cross'])} 层、{target} 个与 {source} 个；三者请取自同一次前向",
            )
        )
