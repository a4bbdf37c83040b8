"""Attention flow of chosen rows, labelled, beside that of uniform attention."""

from collections.abc import Sequence
from typing import Any

from hf_attnviz import functional
from hf_attnviz.analysis.caveats import UNTESTED
from hf_attnviz.analysis.pooling import stack_of
from hf_attnviz.axes import KEY, QUERY
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace

SMALL = 16  # tokens up to which all rows are quick at any depth
_NOTES = (
    Text(
        "Each key was asked for by itself: rows do not sum to one, and a number says how much could come from there, "
        "not how much does.",
        "每个键都单独求最大流：一行之和不为一；数值表示最多可能来自该处多少，而不是实际来自多少。",
    ),
    Text(
        "Flow fills up: with depth it nears one on many tokens, also under uniform attention. Read it against that.",
        "注意力流会饱和：层数一多，许多词元都接近 1，均匀注意力下也是如此。请与均匀注意力对照阅读。",
    ),
)


def flow(
    trace: Trace,
    *,
    stack: str | None = None,
    residual: float = 0.5,
    normalise: bool = False,
    queries: Sequence[int] | None = None,
) -> Result:
    """The most that can flow from each input token up to a position, layers being pipes: ``[query, key]``, 0 to 1.

    ``baseline`` is the flow through uniform attention under the same mask. A maximum-flow problem a pair (two, with the
    baseline): what will take more than ten seconds says so first.

    Args:
        queries: the rows wanted, negative ones from the end; default: all rows up to 16 tokens; beyond, the last row of
            a causal stack (it alone sees all tokens), the first of any other (where BERT and ViT read the whole).
        residual, normalise: see :func:`hf_attnviz.functional.flow`.
        stack: a self-attention stack; default: the only one.

    Raises:
        NotKeptError: cross-attention, or maps without all their rows.
        ArgumentError: a row that is not there.
    """
    chosen = stack_of(trace, stack).whole()
    rows = list(queries) if queries is not None else _telling(chosen)
    maps = chosen.stacked()
    uniform = functional.uniform_like(maps[:, None])[:, 0]
    options: dict[str, Any] = {"residual": residual, "normalise": normalise, "queries": rows}
    values, baseline = functional.flows([maps, uniform], **options)
    tokens = len(chosen.queries)
    left_out = Text(
        f"{len(rows)} of {tokens} rows; queries=range({tokens}) gives all.",
        f"{tokens} 行中的 {len(rows)} 行；queries=range({tokens}) 可得全部。",
    )
    return Result(
        values,
        (Axis(QUERY, tuple(chosen.queries.texts[row] for row in rows)), Axis(KEY, chosen.keys.texts)),
        "attention flow",
        {"stack": chosen.name, **options, "queries": tuple(rows)},
        "Abnar & Zuidema 2020",
        "share" if normalise else "capacity, 0 to 1",
        (*_NOTES, UNTESTED, *([left_out] if len(rows) < tokens else [])),
        baseline=baseline,
    )


def _telling(stack: AttentionStack) -> list[int]:
    tokens = len(stack.queries)
    if tokens <= SMALL:
        return list(range(tokens))
    return [tokens - 1 if all(m.causal for m in stack) else 0]
