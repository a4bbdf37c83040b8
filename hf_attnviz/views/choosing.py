"""Any result as the picture that suits it: the command line, the demo and others need not know which."""

from collections.abc import Callable, Mapping
from typing import Final

from hf_attnviz.axes import HEAD, OTHER_HEAD, STATISTIC, STEP
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.view import View
from hf_attnviz.views.comparison import compare_view
from hf_attnviz.views.evolution import evolution_view
from hf_attnviz.views.head_map import head_map_view
from hf_attnviz.views.heatmap import correlation_view, heatmap
from hf_attnviz.views.roles import roles_view

_BY_METHOD: Final[Mapping[str, Callable[..., View]]] = {"head roles": roles_view, "head map": head_map_view}


def picture(result: Result, *, title: Text | str | None = None) -> View:
    """Lines over decoding steps, bars or heat maps of a comparison, roles, a map or a square of heads; else a heat map.

    Raises:
        ArgumentError: fewer than two axes, or an empty one; something that is no result.
    """
    if not isinstance(result, Result):
        raise ArgumentError(
            Text(
                "expected a Result of an analysis (head_statistics(trace), rollout(trace) …), got "
                f"{type(result).__name__}: draw a trace with head_view(trace) or report(trace), a Trust with its .view",
                "应为某种分析的 Result（head_statistics(trace)、rollout(trace) 等），得到的是 "
                f"{type(result).__name__}：trace 请用 head_view(trace) 或 report(trace) 绘制，Trust 请用它的 .view",
            )
        )
    names = [axis.name for axis in result.axes]
    if result.method.startswith("comparison"):
        return compare_view(result, title=title)
    if names == [STATISTIC, STEP, *names[2:]] or ("keys" in result.parameters and STEP in names):
        return evolution_view(result, title=title)
    for method, draw in _BY_METHOD.items():
        if result.method == method:
            return draw(result, title=title)
    if names[-2:] == [HEAD, OTHER_HEAD]:
        return correlation_view(result, title=title)
    return heatmap(result, title=title)
