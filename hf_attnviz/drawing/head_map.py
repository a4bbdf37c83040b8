"""The heads of a trace as points on a plane, with what each does, and beside them how far they are apart."""

from collections.abc import Sequence

from hf_attnviz import analysis, views
from hf_attnviz.analysis.pooling import listed_traces
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.trace import Trace
from hf_attnviz.view import View


def head_map_view(
    data: Result | Trace | Sequence[Trace], *, stack: str | None = None, title: Text | str | None = None
) -> View:
    """All heads as points, those that look alike side by side; beside them their distances in cluster order.

    Args:
        data: a trace, or several of one model, of which heads are also told their statistics; or the result of
            ``head_map(traces)``, whose points are drawn alone.
        stack: default: the only one.
        title: the page's heading.

    Raises:
        ArgumentError: neither traces nor such a result, no head with a place, or ``stack`` with a result.
        UnknownStackError: several stacks, and none named.
        NotKeptError: the weights were not kept.
    """
    if isinstance(data, Result):
        if stack is not None:
            raise ArgumentError(
                Text(
                    "stack chooses of a trace; a result is of one stack already: head_map(trace, stack=…)",
                    "stack 用于 trace；Result 已经属于一个堆栈：head_map(trace, stack=…)",
                )
            )
        return views.head_map_view(data, title=title)
    model = listed_traces(data)[0].model
    named = Text(f"Map of the heads: {model}", f"注意力头分布图：{model}")
    likeness = analysis.head_correlation(data, stack=stack, method="js")
    return views.head_map_view(
        analysis.head_map(data, stack=stack, likeness=likeness),
        statistics=analysis.head_statistics(data, stack=stack),
        likeness=likeness,
        title=title or (named if model else None),
    )
