"""Which heads look at the same things, labelled and put in order."""

from collections.abc import Sequence

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.caveats import left_out, parked
from hf_attnviz.analysis.correlation_kept import Sums, sums_of
from hf_attnviz.analysis.pooling import Pooled, listed_traces, pooled
from hf_attnviz.axes import HEAD, OTHER_HEAD
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

_LIKENESS = ("pearson", "spearman", "cosine")
_UNITS = {
    "pearson": "correlation, −1 to 1",
    "spearman": "rank correlation, −1 to 1",
    "cosine": "cosine, 0 to 1",
    "hellinger": "squared distance, 0 to 1",
}  # the others are divergences in nats
_MOST_NAMED = 8
_BEHIND_THE_MASK = Text(
    "Pairs behind the causal mask are left out: their zeros would count as agreement.",
    "因果掩码之后的配对已略去：它们的零会被当作一致。",
)
_SHARED_TREND = Text(
    "Causal heads share the trend that long rows have small weights, which raises every correlation; "
    "centred=True takes it out.",
    "因果注意力的各头都有“行越长权重越小”的共同趋势，会抬高所有相关系数；centred=True 可去除它。",
)


def head_correlation(
    traces: Trace | Sequence[Trace], *, method: str = "pearson", stack: str | None = None, centred: bool = False
) -> Result:
    """How alike all heads of all layers are: ``[head, other_head]``, head = layer · heads + head.

    Only pairs that the mask allows are compared; a constant head has no correlation and is NaN. The axes carry the
    hierarchical order (average linkage, optimal leaves) in which a picture shows groups of like heads as blocks.

    Args:
        method: ``"pearson"``, ``"spearman"``, ``"cosine"``, ``"js"`` (Jensen–Shannon, in nats), ``"js_clark"``,
            ``"hellinger"``, ``"jeffreys"``; see :func:`hf_attnviz.functional.head_similarity`.
        centred: subtract each row's 1/n first, so that row length, a trend that all heads share, does not count.

    Traces that keep no weights: of those captured with ``keep="gram"`` the heads of one layer each, to the digits of
    the weights themselves; with ``keep="sketch"`` all heads, estimated, ``low`` and ``high`` the interval of the
    estimate; ``"pearson"`` and ``"cosine"`` only.

    Raises:
        NotKeptError: the traces keep neither weights nor what this method can be made of.
    """
    traces = listed_traces(traces)
    sums = sums_of([trace.stack(stack) for trace in traces], method=method, centred=centred)
    if sums is not None:
        return _from_sums(sums, method, centred)
    data = pooled(traces, stack)
    values = functional.head_similarity(data.attention, method=method, centred=centred, **data.masks)
    distance = (1 - values).clamp_min(0) if method in _LIKENESS else values
    known = distance[~distance.isnan()]
    # jeffreys is infinite where one head ignores what another looks at: no tree can be drawn then
    order = tuple(functional.linkage_order(distance).tolist()) if bool(known.isfinite().all()) else None
    return Result(
        values,
        (Axis(HEAD, data.head_names, order), Axis(OTHER_HEAD, data.head_names, order)),
        f"head similarity ({method})",
        {**data.what, "method": method, "centred": centred, "allowed_only": True},
        "Clark et al. 2019, section 6" if method.startswith("js") else "",
        _UNITS.get(method, "nats"),
        (
            *((_SHARED_TREND,) if data.causal and not centred and method in _LIKENESS else ()),
            *((_BEHIND_THE_MASK,) if data.causal else ()),
            parked(data),
            *left_out(data),
            *_constant(data, values),
        ),
    )


def _from_sums(data: Sums, method: str, centred: bool) -> Result:
    values, low, high, notes = data.likeness(method)
    order = _order(values, [m.heads for m in data.stacks[0]])
    return Result(
        values,
        (Axis(HEAD, data.head_names, order), Axis(OTHER_HEAD, data.head_names, order)),
        f"head similarity ({method})",
        {**data.what, "method": method, "centred": centred, "allowed_only": True},
        "",
        _UNITS[method],
        (
            *notes,
            *((_SHARED_TREND,) if data.causal and not centred else ()),
            *((_BEHIND_THE_MASK,) if data.causal else ()),
            data.parked,
            *_unknown(data.head_names, values.diagonal().isnan()),
        ),
        low,
        high,
    )


def _order(values: torch.Tensor, heads: Sequence[int]) -> tuple[int, ...]:
    """Like heads side by side; layer after layer where layers are not compared."""
    distance = (1 - values).clamp_min(0)
    known = ~values.diagonal().isnan()
    if not bool(distance[known][:, known].isnan().any()):
        return tuple(functional.linkage_order(distance).tolist())
    found, start = [], 0
    for count in heads:
        part = slice(start, start + count)
        found += [start + place for place in functional.linkage_order(distance[part, part]).tolist()]
        start += count
    return tuple(found)


def _constant(data: Pooled, values: torch.Tensor) -> list[Text]:
    """Heads without a likeness to any, though no weight of theirs is NaN."""
    whole = ~data.attention.isnan().any((1, 3, 4)).flatten()
    return _unknown(data.head_names, values.diagonal().isnan().cpu() & whole.cpu())


def _unknown(names: Sequence[str], heads: torch.Tensor) -> list[Text]:
    places = heads.nonzero().flatten().tolist()
    if not places:
        return []
    more = f" … (+{len(places) - _MOST_NAMED})" if len(places) > _MOST_NAMED else ""
    named = " ".join(names[n] for n in places[:_MOST_NAMED]) + more
    return [
        Text(
            f"Undefined (NaN): {named}. What does not vary over the pairs compared has no correlation.",
            f"未定义（NaN）：{named}。在所比较的配对上没有变化的头没有相关性。",
        )
    ]
