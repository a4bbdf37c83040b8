"""One attention layer taken apart: what each key adds to each query, f_h(x_j) = (x_j·W_V + b_V)_h · W_O^h.

Source: Kobayashi et al., "Attention is Not Only a Weight" (2020), equation 3, and "Incorporating Residual and
Normalization Layers into Analysis of Masked Language Models" (2021), section 3. Value head h // group serves query
head h where several share one.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hf_attnviz.decomposition import Decomposition, HeldNorm
from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.checks import check_axes, check_floating
from hf_attnviz.language import Text, told

LayerNorm = tuple[Tensor, Tensor | None, float]
_BLOCK = 2**22  # numbers at a time


def decomposed(
    attention: Tensor,
    hidden: Tensor,
    w_v: Tensor,
    b_v: Tensor | None,
    w_o: Tensor,
    b_o: Tensor | None,
    residual: Tensor | None,
    layer_norm: LayerNorm | None,
    rms: bool,
) -> list[Decomposition]:
    """The parts of each example in float64: the layer's weights applied to what it read. Arguments: `value_norms`.

    Raises ShapeError where sizes do not fit, and says which.
    """
    check_axes(attention, "batch head query key")
    batch, heads, queries, keys = attention.shape
    _check_shape(hidden, "hidden", (batch, keys, w_v.shape[0]))
    if w_o.shape[0] % heads:
        raise ShapeError(
            Text(
                f"expected w_o [head · size, width] for {heads} heads, got {tuple(w_o.shape)}",
                f"{heads} 个头的 w_o 应为 [head · size, width]，得到 {tuple(w_o.shape)}",
            )
        )
    size, width = w_o.shape[0] // heads, w_o.shape[1]
    shared = w_v.shape[1] // size
    if w_v.shape[1] % size or not shared or heads % shared:
        raise ShapeError(
            Text(
                f"expected w_v [width, key_value_head · size] with heads of size {size} that divide {heads} heads "
                f"among them, got {tuple(w_v.shape)}",
                f"w_v 应为 [width, key_value_head · size]，头的大小为 {size}，且能均分 {heads} 个头，得到 "
                f"{tuple(w_v.shape)}",
            )
        )
    for name, vector, length in (("b_v", b_v, w_v.shape[1]), ("b_o", b_o, width)):
        if vector is not None:
            _check_shape(vector, name, (length,))
    if residual is not None:
        _check_shape(residual, "residual", (batch, queries, width))
    values = hidden.double() @ w_v.double()
    values = values if b_v is None else values + b_v.double()
    values = values.reshape(batch, keys, shared, size).transpose(1, 2)
    constant = torch.zeros(width, dtype=torch.float64, device=w_o.device) if b_o is None else b_o.double()
    examples = []
    for n in range(batch):
        stream = None if residual is None else residual[n].double()
        one = Decomposition(values[n], w_o.double().reshape(heads, size, width), constant, stream)
        outer = None if layer_norm is None else _held(layer_norm, one.output(attention[n].double()), rms)
        examples.append(Decomposition(one.values, one.projection, constant, stream, outer=outer))
    return examples


def rows_of(positions: Tensor | None, queries: int, keys: int, device: torch.device) -> Tensor:
    """On which key each query stands `[query]`, -1 for none: as given, or its own number.

    Raises ShapeError where that cannot be told or does not fit.
    """
    if positions is None:
        if queries != keys:
            raise ShapeError(
                Text(
                    f"{queries} queries and {keys} keys: pass positions, the key on which each query stands, or -1 for "
                    "each query of cross-attention",
                    f"{queries} 个查询与 {keys} 个键：请传入 positions，即每个查询对应的键；交叉注意力的每个查询为 -1",
                )
            )
        return torch.arange(queries, device=device)
    if positions.is_floating_point() or tuple(positions.shape) != (queries,):
        raise ShapeError(
            Text(
                f"expected integer positions of shape {(queries,)}, got {positions.dtype} {positions.shape}",
                f"positions 应为整数，形状 {(queries,)}，得到 {positions.dtype} 的 {positions.shape}",
            )
        )
    lowest, highest = int(positions.min()), int(positions.max())
    if highest >= keys or lowest < -1:
        raise ArgumentError(
            Text(
                f"expected positions from -1 to {keys - 1}, got {lowest} to {highest}",
                f"positions 应为 -1 到 {keys - 1}，得到 {lowest} 到 {highest}",
            )
        )
    return positions.to(device)


def own_parts(attention: Tensor, parts: Decomposition, rows: Tensor) -> Tensor:
    """What each query's own key adds, `[query, width]`; zeros for a query that stands on no key."""
    heads = attention.shape[0]
    known = rows.clamp(min=0)
    weights = attention.gather(2, known[None, :, None].expand(heads, -1, 1))[..., 0] * (rows >= 0)
    values = parts.values.repeat_interleave(heads // len(parts.values), dim=0)[:, known]
    return torch.einsum("hq,hqs,hsw->qw", weights, values, parts.projection)


def projected(attention: Tensor, parts: Decomposition) -> Iterator[tuple[slice, Tensor]]:
    """f_h(x_j) `[key, head, width]` for a block of keys at a time: all of it may be larger than the memory."""
    heads, _, keys = attention.shape
    values = parts.values.repeat_interleave(heads // len(parts.values), dim=0)
    step = max(1, _BLOCK // max(heads * parts.projection.shape[-1], heads * attention.shape[1]))
    for start in range(0, keys, step):
        block = slice(start, min(start + step, keys))
        yield block, torch.einsum("hks,hsw->khw", values[:, block], parts.projection)


def _held(layer_norm: LayerNorm, stream: Tensor, rms: bool) -> HeldNorm:
    """The norm with the statistics of the vectors `[query, width]` that go into it."""
    weight, bias, eps = layer_norm
    _check_shape(weight, Text("the weight of layer_norm", "layer_norm 的权重"), stream.shape[-1:])
    if bias is not None:
        _check_shape(bias, Text("the bias of layer_norm", "layer_norm 的偏置"), stream.shape[-1:])
    spread = stream.square().mean(-1) if rms else stream.var(-1, unbiased=False)
    shift = torch.zeros_like(stream[0]) if bias is None else bias.double()
    return HeldNorm(weight.double(), shift, (spread + eps).sqrt(), centred=not rms)


def _check_shape(tensor: Tensor, named: Text | str, expected: tuple[int, ...]) -> None:
    name = told(named)
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != tuple(expected):
        came = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ShapeError(
            Text(
                f"expected {name.en} of shape {tuple(expected)}, got {came}",
                f"{name.zh} 的形状应为 {tuple(expected)}，得到 {came}",
            )
        )
    check_floating(tensor, name)
