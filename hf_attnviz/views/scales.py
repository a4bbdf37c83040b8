"""Where the colours of a picture begin and end: fixed, around zero, or as its numbers say."""

from typing import Final, Literal

from hf_attnviz.views.words import CHANGE_IN

Scale = tuple[float, float] | Literal["centred"] | None

WHOLE: Final = (-1.0, 1.0)
_CORRELATIONS: Final = ("correlation, −1 to 1", "rank correlation, −1 to 1")


def colour_scale(statistic: str, unit: str) -> Scale:
    """A fixed range for correlations, around zero for changes, None for what the numbers themselves span."""
    if statistic == "change" or statistic.startswith(CHANGE_IN):
        return "centred"
    return WHOLE if statistic == "pearson" or unit in _CORRELATIONS else None
