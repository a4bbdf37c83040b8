"""What a reader must know of the weights before believing a number made of them: what is parked where, what was left
out, and why a number is undefined."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.pooling import Pooled, SideBySide
from hf_attnviz.functional import Tally
from hf_attnviz.functional.checks import upcast
from hf_attnviz.language import Text
from hf_attnviz.trace import AttentionStack

UNTESTED: Final = Text(
    "Whether the answer depends on it is not told here: av.trust(model, inputs) holds it against random rankings.",
    "这里并未说明回答是否依赖于它：av.trust(model, inputs) 会将其与随机排序对照检验。",
)
CLOSED_FORM: Final = Text(
    "The baseline is even over all keys that causality leaves a row, for statistics do not tell of windows: in a layer "
    "with a window, uniform attention has less entropy, span and distance than stands here, and more on each key.",
    "基线在因果性所允许的全部键上均匀，因为统计量不含窗口的信息：有窗口的层中，均匀注意力的熵、跨度与距离小于此处所列，"
    "而每个键上的权重更大。",
)
_FIRST_TOKEN: Final = Text("the first token", "第一个词元")
_NAN: Final = Text(
    "Some weights are NaN, as a row is that may look at nothing; what is made of them is NaN.",
    "有些权重是 NaN（例如不能看任何键的行）；由它们得出的数也是 NaN。",
)
_EMPTY: Final = Text(
    "Some keys get exactly nothing from every head of a layer although they do not lie behind the causal mask, as "
    "beyond a window. They count as keys: their zeros raise likeness, and normalised entropy divides by them too.",
    "有些键不在因果掩码之后，却在某一层的所有头上权重恰为零（如窗口之外）。它们仍计为键："
    "这些零会抬高相似度，归一化熵的分母也包含它们。",
)


def drift_note(drift: float, here: float, *, first: Text = _FIRST_TOKEN) -> Text:
    """What of a rollout is the model's doing: what its last row puts on what stands ``first``, and what it would put
    there under uniform attention (``drift``)."""
    if math.isnan(drift) or math.isnan(here):
        return Text(
            "The last row is undefined, here or under uniform attention, so that its drift is not known.",
            "最后一行在此处或均匀注意力下未定义，因此其漂移未知。",
        )
    return Text(
        f"Under uniform attention with the same mask the last row would put {drift:.2f} on {first.en} at this depth; "
        f"here it puts {here:.2f}. Only the difference is the model's doing.",
        f"若注意力完全均匀而掩码相同，到这一深度最后一行会有 {drift:.2f} 落在{first.zh}上；"
        f"这里是 {here:.2f}。只有两者之差才是模型所为。",
    )


def nan_weights(attention: torch.Tensor) -> list[Text]:
    """Said when some weight is NaN."""
    return [_NAN] if bool(attention.isnan().any()) else []


def left_out(data: Pooled) -> list[Text]:
    """Rows that were not kept, keys that nobody looks at, weights that are NaN."""
    return [*sampled(data.stacks), *([_EMPTY] if _empty_keys(data) else []), *nan_weights(data.attention)]


def undefined(
    found: Mapping[str, Tally],
    lacking: Text,
    *,
    told: Iterable[str] = (),
    words: Mapping[str, tuple[Text, Text]] = MappingProxyType({}),
) -> list[Text]:
    """Which numbers no row counts for, and what the rows lack; without those that are told of elsewhere. ``words``
    are what they are called."""
    names = [name for name, tally in found.items() if name not in set(told) and not bool(tally.counts.any())]
    if not names:
        return []
    named = [words[name][0] if name in words else Text(name, name) for name in names]
    en, zh = ", ".join(one.en for one in named), "、".join(one.zh for one in named)
    return [Text(f"Undefined here: {en}. {lacking.en}", f"此处未定义：{zh}。{lacking.zh}")]


def parked(data: Pooled) -> Text:
    """How much weight lies on the first key and on special tokens, mean over rows and heads."""
    return parked_share(data.attention, special_keys(data), int(data.valid_queries.sum()))


def special_keys(data: SideBySide) -> torch.Tensor:
    """Which keys are special tokens, ``[batch, key]``."""
    special = torch.zeros_like(data.valid)
    for row, stack in zip(special, data.stacks, strict=True):
        row[: len(stack.keys)] = torch.tensor(stack.keys.special)
    return special


def parked_share(attention: torch.Tensor, special: torch.Tensor, rows: int, *, where: Text | None = None) -> Text:
    """The same of ``[layer, batch, head, query, key]`` that is zero where no token is; ``special`` ``[batch, key]``;
    ``where`` names the text."""
    received = torch.stack([upcast(layer).sum(-2) for layer in attention])
    return parked_received(received, special, rows, where=where)


def parked_received(received: torch.Tensor, special: torch.Tensor, rows: int, *, where: Text | None = None) -> Text:
    """The same of what each key receives from all ``rows``, ``[layer, batch, head, key]``."""
    one = received[..., 0].sum(1) / rows
    special = special.to(received.device)
    others = (received * special[:, None]).sum((1, 3)) / rows
    first, marked = (float(share.nanmean()) for share in (one, others))
    en, zh = (" in " + where.en, where.zh) if where else ("", "")
    if math.isnan(first):
        return Text(f"How much weight is parked{en} is not known: it is NaN.", f"{zh}停放了多少权重未知：为 NaN。")
    too = (
        (f" and {marked:.0%} on special tokens", f"，{marked:.0%} 落在特殊词元上") if bool(special.any()) else ("", "")
    )
    return Text(
        f"{first:.0%} of all weight{en} lies on the first token{too[0]} (mean over heads): read what stands here with "
        "that in mind.",
        f"{zh}全部权重的 {first:.0%} 落在第一个词元上{too[1]}（各头平均）：看这些数值时请记住这一点。",
    )


def sampled(stacks: Sequence[AttentionStack]) -> list[Text]:
    """Said of self-attention that lacks rows."""
    maps = [stack.maps[0] for stack in stacks if stack.maps[0].positions is not None]
    held, wanted = sum(len(m.queries) for m in maps), sum(len(m.keys) for m in maps)
    if held >= wanted:
        return []
    return [
        Text(
            f"{held} of {wanted} rows were kept: all numbers are of these.",
            f"{wanted} 行中只保留了 {held} 行：所有数值都只来自这些行。",
        )
    ]


def _empty_keys(data: Pooled) -> bool:
    """Whether a real key before the row gets exactly nothing from all heads of a layer."""
    keys = torch.arange(data.attention.shape[-1])
    open_to = data.valid_queries[:, :, None] & data.valid[:, None, :]
    if data.causal:
        open_to = open_to & (keys <= data.positions[:, None])
    open_to = open_to.to(data.attention.device)
    seen = (functional.uniform_like(layer[None])[0, :, 0] > 0 for layer in data.attention)
    return any(bool((open_to & ~one).any()) for one in seen)
