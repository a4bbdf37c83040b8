"""Which tokens a position is made of, through the layers: contributions as a graph."""

from collections.abc import Callable, Mapping
from typing import Final

from hf_attnviz import analysis
from hf_attnviz.analysis.pooling import listed_traces
from hf_attnviz.analysis.rollout import layer_by_layer
from hf_attnviz.axes import STATISTIC
from hf_attnviz.errors import ArgumentError, NotKeptError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.stack_names import stack_name
from hf_attnviz.trace import AttentionStack, Trace
from hf_attnviz.view import View
from hf_attnviz.views.flow import THRESHOLD, Mixing, graph_view


def _rollout(trace: Trace, stack: str, residual: float) -> Result:
    return layer_by_layer(trace, stack=stack, residual=residual)


def _norms(trace: Trace, stack: str, residual: float) -> Result:
    """Norms behind the layer's norm where every layer has one, else of the sum with the residual."""
    found = analysis.norms(trace, stack=stack)
    known = found.axis(STATISTIC).labels
    behind = "normalised" in known and not bool(found.select(statistic="normalised").values.isnan().all((1, 2)).any())
    return found.select(statistic="normalised" if behind else "with_residual")


def _alti(trace: Trace, stack: str, residual: float) -> Result:
    return analysis.alti(trace, stack=stack, rolled=False)


_METHODS: Final[Mapping[str, Callable[[Trace, str, float], Result]]] = {
    "rollout": _rollout,
    "norms": _norms,
    "alti": _alti,
}


def flow_view(
    trace: Trace,
    *,
    method: str = "rollout",
    stack: str | None = None,
    query: int | None = None,
    threshold: float = THRESHOLD,
    residual: float = 0.5,
    title: Text | str | None = None,
) -> View:
    """A graph of contributions: positions after each layer, lines for what they take of each other, thin ones left out.

    Args:
        trace: with whole self-attention maps; for norms and ALTI captured with ``keep=["maps", "contributions"]``.
        method: what a layer's contributions are. ``"rollout"``: weights, mean over heads, with the residual (Abnar &
            Zuidema 2020). ``"norms"``: lengths of what is moved, with the residual (Kobayashi et al. 2021). ``"alti"``
            (Ferrando et al. 2022). Shares through several layers are their product in each case.
        stack: default: every stack that has whole maps; a menu chooses.
        query: the position whose paths are shown at first, negative ones from the end; default: the last of a causal
            stack (it alone sees all tokens), the first of any other (where BERT and ViT read the whole).
        threshold: lines below this share are left out at first, as in the LM Transparency Tool (Tufanov et al. 2024).
        residual: the share of the residual in rollout.

    Raises:
        NotKeptError: no stack with whole maps, or, for norms and ALTI, none that tells of what its output is made.
        UnknownNameError: another method, or no such position.
        ArgumentError: a threshold outside 0…1, or several traces.
    """
    if method not in _METHODS:
        raise UnknownNameError(
            Text(
                f"unknown method {method!r}; known: {listed(_METHODS)}",
                f"未知方法 {method!r}；可用：{listed(_METHODS)}",
            )
        )
    traces = listed_traces(trace)
    if len(traces) > 1:
        raise ArgumentError(
            Text(
                f"a graph is of one trace, got {len(traces)}: call it for each, flow_view(traces[0])",
                f"一张贡献图只讲一个 trace，得到 {len(traces)} 个：请各调用一次，如 flow_view(traces[0])",
            )
        )
    chosen = [traces[0].stack(stack).whole()] if stack is not None else _whole(traces[0], method)
    found = [
        Mixing(
            stack_name(one.name),
            _METHODS[method](traces[0], one.name, residual),
            _row(one, query),
            one.maps[0].produced,
        )
        for one in chosen
    ]
    name = _TITLES[method]
    model = traces[0].model
    named = Text(f"{name.en}: {model}", f"{name.zh}：{model}") if model else name
    return graph_view(found, threshold=threshold, title=title or named)


_TITLES: Final = {
    "rollout": Text("Paths of attention through the layers", "注意力逐层的路径"),
    "norms": Text("Paths through the layers, by norms", "逐层的路径（按范数）"),
    "alti": Text("Paths through the layers, by ALTI", "逐层的路径（按 ALTI）"),
}


def _whole(trace: Trace, method: str) -> list[AttentionStack]:
    """The stacks that a method can follow; one that it cannot, where there is no other: it says why."""
    found = [one for one in trace.stacks.values() if _followed(one)]
    if not found:
        raise NotKeptError(
            Text(
                f"this needs a self-attention stack with every row, and the trace has none; it has: {trace!r}. "
                "Capture the "
                'whole run from its first token, with keep="maps" and without queries=',
                f"这需要含有每一行的自注意力堆栈，而这个 trace 没有；它有：{trace!r}。请从第一个词元起捕获整个运行，用 "
                'keep="maps"，不要用 queries=',
            )
        )
    apart = [one for one in found if method == "rollout" or all(m.decomposition is not None for m in one)]
    return apart or found[:1]


def _followed(one: AttentionStack) -> bool:
    """Whether a stack can be followed through its layers."""
    return one.has_weights and all(m.whole for m in one) and len({m.shape for m in one}) == 1


def can_flow(trace: Trace) -> bool:
    """Whether a trace has a stack whose layers can be followed."""
    return any(map(_followed, trace.stacks.values()))


def _row(one: AttentionStack, query: int | None) -> int:
    rows = len(one.queries)
    if query is None:
        return rows - 1 if all(m.causal for m in one) else 0
    if not -rows <= query < rows:
        raise UnknownNameError(
            Text(
                f"expected a position from {-rows} to {rows - 1}, got {query}",
                f"位置应为 {-rows} 到 {rows - 1}，得到 {query}",
            )
        )
    return query % rows
