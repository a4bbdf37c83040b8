"""Every head of every layer on one page, with what analyses say of each head."""

from collections.abc import Sequence
from dataclasses import replace

from hf_attnviz import analysis
from hf_attnviz.axes import HEAD, LAYER
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views.groups import Group, groups
from hf_attnviz.views.head_grid import Panel, grid_view


def head_grid(
    trace: Trace,
    *,
    stack: str | None = None,
    layer: int | None = None,
    statistic: str | Result | None = None,
    exact: bool = False,
    title: Text | str | None = None,
) -> View:
    """Every head of every layer: small coarse maps and, beneath each, its number by a statistic; one head enlarged.

    Weights of the enlarged head carry the bound that the page states, at most 0.004 while 25 MB hold them. Saves as
    html, svg, png and pdf; the files show the small maps.

    Args:
        trace: one sequence with its weights.
        stack: one stack; None shows a menu of all.
        layer: the layer whose first head is enlarged at first; default: the first.
        statistic: what the map of the heads shows at first: a name of ``head_statistics``, ``head_roles`` or ``sinks``
            (``"entropy"``, ``"induction"``, ``"sink_mass"``), or a result of your own, ``[layer, head]`` or
            ``[statistic, layer, head]``; a menu offers the others.
        exact: embed 16-bit floats, whatever they take; the page says how much.
        title: the page's heading.

    Raises:
        NotKeptError: the weights were not kept.
        UnknownNameError: no such layer or statistic.
        ArgumentError: numbers of other heads; weights outside 0 to 1; exact weights that no browser would open.
    """
    found = groups(trace, stack)
    given = statistic if isinstance(statistic, Result) else None
    owner = None if given is None else _owner(found, given)
    panels = [Panel(group, _results(trace, group, given if n == owner else None)) for n, group in enumerate(found)]
    name = None if isinstance(statistic, Result) else statistic
    return grid_view(panels, layer=layer, statistic=name, exact=exact, model=trace.model, title=title)


def _results(trace: Trace, group: Group, given: Result | None) -> tuple[Result, ...]:
    """What is known of a group's heads, a result of the user's own first."""
    part = replace(trace, maps=group.maps)
    told = (analysis.head_statistics(part), analysis.head_roles(part), analysis.sinks(part))
    return told if given is None else (given, *told)


def _owner(found: Sequence[Group], given: Result) -> int:
    """Which group a result speaks of: the first with its layers and heads."""
    labels = [axis.labels for axis in given.axes if axis.name in (LAYER, HEAD)]
    for n, group in enumerate(found):
        if labels == [tuple(map(str, group.layers)), tuple(map(str, group.heads))]:
            return n
    return _none_fits(found, given)


def _none_fits(found: Sequence[Group], given: Result) -> int:
    drawn = "; ".join(f"{g.name.en}: layers {', '.join(map(str, g.layers))}, {len(g.heads)} heads" for g in found)
    raise ArgumentError(
        Text(
            f"{given!r} is about other heads than those drawn ({drawn}): its axes must be layer and head",
            f"{given!r} 所讲的头不是所画的（{drawn}）：它的轴应为 layer 与 head",
        )
    )
