"""Which heads have which role, all heads of all layers side by side."""

from typing import Final

from hf_attnviz.axes import HEAD, LAYER, STATISTIC, head_name
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.view import View
from hf_attnviz.views.heatmap import heatmap

_AXES: Final = [STATISTIC, LAYER, HEAD]


def roles_view(result: Result, *, title: Text | str | None = None) -> View:
    """A row for each role (or other statistic), a column for each head: ``L0H3`` is head 3 of layer 0.

    Raises:
        ArgumentError: the axes are not ``statistic, layer, head``.
    """
    if [axis.name for axis in result.axes] != _AXES:
        raise ArgumentError(
            Text(
                f"expected axes {listed(_AXES)}, as head_roles gives; got {listed(a.name for a in result.axes)}: use "
                "heatmap(result)",
                f"应有轴 {listed(_AXES)}，如 head_roles 所给；得到 {listed((a.name for a in result.axes), '无')}："
                "请用 heatmap(result)",
            )
        )
    statistics, layers, heads = result.axes
    names = tuple(head_name(int(layer), int(head)) for layer in layers.labels for head in heads.labels)
    return heatmap(result.reshaped(lambda values: values.flatten(1), (statistics, Axis(HEAD, names))), title=title)
