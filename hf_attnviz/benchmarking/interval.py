"""The median and the interval of its order statistics: no distribution is assumed, nothing is drawn at random.

Of n independent samples, the number below the true median is Binomial(n, ½), so the k-th smallest and the k-th largest
enclose it with probability 1 − 2·P(fewer than k below): Thompson, "On confidence ranges for the median" (1936). The
interval is the narrowest of these that covers at least the level asked for.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text

LEVEL = 0.95


@dataclass(frozen=True)
class Median:
    """A median and the ends of its interval; NaN ends where too few samples were taken for one."""

    value: float
    low: float
    high: float


def median(samples: Sequence[float], level: float = LEVEL) -> Median:
    """The median of some samples and its interval; six are the fewest that have one of 95 %.

    >>> median([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    Median(value=3.5, low=1.0, high=9.0)
    """
    if not samples or not 0 < level < 1:
        raise ArgumentError(
            Text(
                f"expected one sample or more and a level between 0 and 1, got {len(samples)} and {level}",
                f"应至少有一个样本，level 应在 0 与 1 之间，得到 {len(samples)} 与 {level}",
            )
        )
    ordered, k = sorted(samples), rank(len(samples), level)
    ends = (ordered[k - 1], ordered[-k]) if k else (math.nan, math.nan)
    return Median(statistics.median(ordered), *ends)


def rank(samples: int, level: float = LEVEL) -> int:
    """Which sample from either end bounds the interval, counted from 1; 0 where even the outermost two are too near.

    >>> [rank(n) for n in (5, 6, 15, 21)]
    [0, 1, 4, 6]
    """
    below, k = 1, 0  # how many of the 2**n equally likely patterns have k samples or fewer on one side
    while 2 * below <= (1 - level) * 2**samples:
        k += 1
        below += math.comb(samples, k)
    return k
