"""Names of axes, units and statistics for people, in both languages."""

from typing import Final

from hf_attnviz import axes
from hf_attnviz.language import Text

_AXES: Final = {
    axes.LAYER: Text("layer", "层"),
    axes.HEAD: Text("head", "头"),
    axes.QUERY: Text("query", "查询"),
    axes.KEY: Text("key", "键"),
    axes.STEP: Text("step", "步"),
    axes.BATCH: Text("example", "样本"),
    axes.STATISTIC: Text("statistic", "统计量"),
    axes.OTHER_HEAD: Text("other head", "另一个头"),
    axes.OTHER_LAYER: Text("other layer", "另一层"),
}
_UNITS: Final = {"share": Text("share", "占比"), "nats": Text("nats", "奈特"), "tokens": Text("tokens", "词元")}


def axis_word(name: str) -> Text:
    """What an axis is called on a picture."""
    return _AXES.get(name, Text(name, name))


def unit_word(unit: str) -> Text:
    """What a unit is called on a picture."""
    return _UNITS.get(unit, Text(unit, unit))


def unit_line(unit: str) -> Text:
    """A longer unit as a line of its own."""
    return Text(f"Unit: {unit}", f"单位：{unit}")
