"""Statistics row by row and key by key, as they run along a text: what the picture of a long one is made of."""

from typing import Any

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.caveats import CLOSED_FORM
from hf_attnviz.analysis.pooling import stack_of
from hf_attnviz.axes import HEAD, KEY, LAYER, QUERY, STATISTIC
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace

_NO_BASELINE = Text(
    "Without baseline: it is not known which keys a row may see, or that differs by layer.",
    "没有基线：不清楚一行可以看哪些键，或各层不同。",
)
_EARLY = Text(
    "In a causal stack early keys can be seen by more rows, so they receive more for no reason of the model's: hold "
    "them against the baseline.",
    "在因果的栈中，靠前的键能被更多的行看到，因此无关模型也会得到更多：请与基线对照。",
)


def row_statistics(trace: Trace, *, stack: str | None = None) -> Result:
    """What each row looks like, row by row: ``[statistic, layer, head, query]``.

    The statistics are those of :func:`head_statistics` before they are averaged over rows: ``entropy`` (nats),
    ``effective_span`` and ``distance`` (tokens), ``first_token`` (share). Beside them, as ``baseline``, stands what a
    row gets that is even over the keys that it may see.

    Raises:
        NotKeptError: no statistics were kept.
    """
    chosen = stack_of(trace, stack).alike()
    entropy, distance, sink = (_of_layers(chosen, name) for name in ("entropy", "distance", "sink"))
    found = {"entropy": entropy, "effective_span": entropy.exp(), "distance": distance, "first_token": sink}
    values = torch.stack(list(found.values()))
    baseline = None
    if _known(chosen):
        even = functional.uniform_rows(**_masks(chosen))
        rows = [even["entropy"], even["entropy"].exp(), even["distance"], even["sink"]]
        baseline = torch.stack(rows)[:, :, 0].to(values).expand_as(values)
    return Result(
        values,
        (Axis(STATISTIC, tuple(found)), *_heads(chosen), Axis(QUERY, chosen.queries.texts)),
        "row statistics",
        {"stack": chosen.name, "causal": _causal(chosen)},
        "Clark et al. 2019; Vig & Belinkov 2019",
        "nats (entropy), tokens (span, distance), shares (all others)",
        (CLOSED_FORM if baseline is not None else _NO_BASELINE,),
        baseline=baseline,
    )


def received(trace: Trace, *, stack: str | None = None) -> Result:
    """What each key receives, the sum of its column over all rows: ``[layer, head, key]``.

    Beside it, as ``baseline``, stands what it would receive of rows that are even over the keys that they may see.

    Raises:
        NotKeptError: no statistics were kept.
    """
    chosen = stack_of(trace, stack).alike()
    values = _of_layers(chosen, "received")
    known = _known(chosen)
    baseline = functional.uniform_received(**_masks(chosen)).to(values).expand_as(values) if known else None
    return Result(
        values,
        (*_heads(chosen), Axis(KEY, chosen.keys.texts)),
        "attention received",
        {"stack": chosen.name, "causal": _causal(chosen), "rows": len(chosen.queries)},
        "",
        "rows",
        (*((_EARLY,) if _causal(chosen) else ()), CLOSED_FORM if known else _NO_BASELINE),
        baseline=baseline,
    )


def _of_layers(stack: AttentionStack, name: str) -> torch.Tensor:
    """One of the statistics of all layers, ``[layer, head, …]``."""
    return torch.stack([m.statistics[name].detach().cpu() for m in stack])


def _heads(stack: AttentionStack) -> tuple[Axis, Axis]:
    heads = tuple(map(str, range(stack.maps[0].heads)))
    return Axis(LAYER, tuple(map(str, stack.layers))), Axis(HEAD, heads)


def _causal(stack: AttentionStack) -> bool:
    return all(m.causal for m in stack)


def _known(stack: AttentionStack) -> bool:
    """Whether it is known which keys a row may see, alike in all layers."""
    told = all(m.kind == "cross" or m.has_weights or m.looks_back is not None for m in stack)
    return told and len({m.causal for m in stack}) == 1


def _masks(stack: AttentionStack) -> dict[str, Any]:
    """What functions of rows must be told of them."""
    queries, keys, places = len(stack.queries), len(stack.keys), stack.maps[0].positions
    return {
        "valid": torch.ones(1, keys, dtype=torch.bool),
        "valid_queries": torch.ones(1, queries, dtype=torch.bool),
        "positions": torch.tensor([-1] * queries if places is None else places),
        "causal": _causal(stack),
    }
