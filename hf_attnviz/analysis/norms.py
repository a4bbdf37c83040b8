"""Norms of what is moved, labelled, beside the weights by which it is moved."""

from collections.abc import Sequence
from typing import Any, Final

import torch

from hf_attnviz.analysis.caveats import UNTESTED, nan_weights
from hf_attnviz.analysis.pooling import stack_of
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.axes import HEAD, KEY, LAYER, QUERY, STATISTIC
from hf_attnviz.functional.value_norms import norms_of
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace

_SOURCE: Final = "Kobayashi et al. 2020 and 2021"
_OF_PAIRS: Final = ("summed", "with_residual", "normalised")
_FREE: Final = Text(
    "What is added whatever was attended to (the bias behind the values, that of a norm) belongs to no key and is left "
    "out; so is the MLP.",
    "与所关注内容无关而恒定加入的部分（值之后的偏置、归一化的偏置）不属于任何键，未计入；MLP 也未计入。",
)
_NOT_USE: Final = Text(
    "A norm says how much is moved, not what becomes of it: it is no proof of influence.",
    "范数说明搬运了多少，而不说明之后如何使用：它不能证明影响。",
)
_NONE_OWN: Final = Text(
    "NaN: cross-attention stands on no key of its own, so that without the residual nothing is the query's own.",
    "NaN：交叉注意力的查询不对应任何键，不计残差时没有属于自身的部分。",
)
_NO_NORM: Final = Text(
    "NaN: that layer sends the sum through no norm before it goes on.", "NaN：该层的和在继续传递之前不经过归一化。"
)
_NOTHING: Final = Text("NaN: a row in which nothing is moved has no shares.", "NaN：没有搬运任何内容的行没有占比。")


def norms(trace: Trace, *, stack: str | None = None, heads: bool = False, shares: bool = True) -> Result:
    """How much of each key is moved to each query, by layer: ``[statistic, layer, query, key]``.

    Statistics: ``mean_weight`` (over heads), ``summed`` (the norm of the sum over heads), ``with_residual`` (the same,
    the residual added to the query's own key), and, where a layer norms that sum, ``normalised``. Definitions:
    :func:`hf_attnviz.functional.value_norms`.

    Args:
        trace: captured with ``keep=["maps", "contributions"]``.
        stack: which stack; default: the only one.
        heads: each head by itself, ``[statistic, layer, head, query, key]``: ``weight`` and ``weighted``, ‖a·f(x)‖.
        shares: divide each row by its sum, so that norms and weights can be compared; else lengths as they are.

    Raises:
        NotKeptError: the trace does not tell of what a layer's output is made; the message says what to do.
    """
    chosen = stack_of(trace, stack)
    found = [layer_norms(m) for m in chosen]
    weights = chosen.stacked().to(found[0]["summed"].dtype)
    names = ("weighted",) if heads else _known(found, _OF_PAIRS)
    values = torch.stack([weights if heads else weights.mean(1), *(_stacked(found, name) for name in names)])
    name = "weight" if heads else "mean_weight"
    notes = [_special(chosen, weights.mean(1), _stacked(found, "summed")), *nan_weights(weights)]
    notes += [_NO_NORM] if any(name not in one for one in found for name in names) else []
    if shares:
        sums = values.sum(-1, keepdim=True)
        values = values / sums
        notes += [_NOTHING] if bool((sums == 0).any()) else []
    of_heads = [Axis(HEAD, tuple(map(str, range(weights.shape[1]))))] if heads else []
    axes = [Axis(STATISTIC, (name, *names)), layer_axis(chosen), *of_heads, *pair_axes(chosen)]
    about = {"stack": chosen.name, "shares": shares} | proof_of(chosen)
    unit = "share" if shares else "length of a vector (weights: share)"
    return Result(values, tuple(axes), "value norms", about, _SOURCE, unit, (*notes, _FREE, _NOT_USE, UNTESTED))


def mixing_ratio(trace: Trace, *, stack: str | None = None) -> Result:
    """How much of each query's vector comes from other keys, by layer: ``[statistic, layer, query]``.

    ‖what other keys add, together‖ over that plus ‖what is the query's own‖: ``mixing`` of what attention adds alone,
    ``mixing_with_residual``, and, where a layer norms the sum, ``mixing_normalised``. Arguments and errors as in
    :func:`norms`.
    """
    chosen = stack_of(trace, stack)
    found = [layer_norms(m) for m in chosen]
    names = _known(found, ("mixing", "mixing_with_residual", "mixing_normalised"))
    values = torch.stack([_stacked(found, name) for name in names])
    notes = [_NONE_OWN] if bool((rows_of(chosen.maps[0]) < 0).any()) else []
    notes += [_NO_NORM] if any(name not in one for one in found for name in names) else []
    notes += nan_weights(chosen.stacked())
    axes = (Axis(STATISTIC, names), layer_axis(chosen), pair_axes(chosen)[0])
    about = {"stack": chosen.name} | proof_of(chosen)
    return Result(values, axes, "mixing ratio", about, "Kobayashi et al. 2021", "share", (*notes, _FREE, _NOT_USE))


def layer_norms(m: AttentionMap) -> dict[str, torch.Tensor]:
    """The norms of one layer of a trace, by name.

    Raises:
        NotKeptError: the trace does not tell of what its output is made.
    """
    parts = m.taken_apart()
    return norms_of(m.plain().weights, parts, positions=rows_of(m))


def rows_of(m: AttentionMap) -> torch.Tensor:
    """On which key each query stands; -1 where keys are something else than what reads them: cross-attention, pooled
    patches."""
    known = m.positions is not None and max(m.positions, default=-1) < len(m.keys)
    return torch.tensor(m.positions if known else [-1] * len(m.queries), device=m.weights.device)


def layer_axis(stack: AttentionStack) -> Axis:
    """The layers by their block index."""
    return Axis(LAYER, tuple(map(str, stack.layers)))


def pair_axes(stack: AttentionStack) -> tuple[Axis, Axis]:
    """Queries and keys."""
    return Axis(QUERY, stack.maps[0].row_texts), Axis(KEY, stack.keys.texts)


def proof_of(stack: AttentionStack) -> dict[str, Any]:
    """How the blocks are built, and by how much the parts of the worst layer miss its real output."""
    parts = [m.taken_apart() for m in stack]
    return {
        "blocks": ", ".join(dict.fromkeys(one.form for one in parts)),
        "largest_deviation": max(one.error for one in parts),
    }


def _known(found: Sequence[dict[str, torch.Tensor]], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if any(name in one for one in found))


def _stacked(found: Sequence[dict[str, torch.Tensor]], name: str) -> torch.Tensor:
    """One statistic of all layers; NaN in layers that have none."""
    some = next(one[name] for one in found if name in one)
    return torch.stack([one.get(name, torch.full_like(some, torch.nan)) for one in found])


def _special(stack: AttentionStack, weights: torch.Tensor, summed: torch.Tensor) -> Text:
    """How much special tokens, or else the first token, take of weights and of norms, mean over rows and layers."""
    keys = [n for s in stack.keys.segments if s.kind == "special" for n in range(s.start, s.stop)]
    en, zh = ("Special tokens take", "特殊词元") if keys else ("The first token takes", "第一个词元")
    by_weight, by_norm = (
        float((one[..., keys or [0]].sum(-1) / one.sum(-1)).nanmean()) for one in (weights, summed)
    )  # shares of each row, so that rows that move much count no more than others
    return Text(
        f"{en} {by_weight:.0%} of the weights and {by_norm:.0%} of the norms (shares of a row, mean over rows and "
        "layers).",
        f"{zh}占权重的 {by_weight:.0%}，占范数的 {by_norm:.0%}（每行的占比，对各行各层取平均）。",
    )
