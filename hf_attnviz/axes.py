"""The short list of axis names, so that one thing is never called by two names."""

from typing import Final

LAYER: Final = "layer"
HEAD: Final = "head"
QUERY: Final = "query"
KEY: Final = "key"
STEP: Final = "step"
BATCH: Final = "batch"
STATISTIC: Final = "statistic"
OTHER_HEAD: Final = "other_head"
OTHER_LAYER: Final = "other_layer"
METHOD: Final = "method"
OTHER_METHOD: Final = "other_method"
REMOVAL: Final = "removal"
SHARE: Final = "share"
SEGMENT: Final = "segment"  # a stretch of the keys: system, user, document, image …
RANK: Final = "rank"  # the place in a list of the largest, from 0
PIECE: Final = "piece"  # a window, a tile or a picture: what a model makes of one sequence before it attends
GROUP: Final = "group"  # tokens that are taken together
SKETCH: Final = "sketch"  # one of the random directions that stand for a long axis
OTHER_SKETCH: Final = "other_sketch"

NAMES: Final = frozenset({LAYER, HEAD, QUERY, KEY, STEP, BATCH, STATISTIC, OTHER_HEAD, OTHER_LAYER}) | {
    METHOD,
    OTHER_METHOD,
    REMOVAL,
    SHARE,
    SEGMENT,
    RANK,
    GROUP,
    PIECE,
    SKETCH,
    OTHER_SKETCH,
}


def head_name(layer: int, head: int) -> str:
    """The name of one head as it is printed everywhere.

    >>> head_name(0, 11)
    'L0H11'
    """
    return f"L{layer}H{head}"
