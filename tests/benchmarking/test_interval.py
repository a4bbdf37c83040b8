"""The interval of a median, against patterns counted one by one, scipy's sign test, and medians that are known."""

import itertools
import math
import random

import pytest
from scipy import stats

from hf_attnviz.benchmarking.interval import median, rank
from hf_attnviz.errors import ArgumentError


def covered(samples: int, k: int) -> float:
    """How often the true median lies between the k-th sample from either end: each of 2**n patterns, one by one."""
    patterns = itertools.product((0, 1), repeat=samples)  # 1: this sample lies below the median
    return sum(k <= sum(pattern) <= samples - k for pattern in patterns) / 2**samples


@pytest.mark.parametrize("samples", range(6, 16))
def test_it_is_the_narrowest_that_covers_enough(samples: int) -> None:
    k = rank(samples)
    assert covered(samples, k) >= 0.95 > covered(samples, k + 1)


@pytest.mark.parametrize("samples", range(1, 6))
def test_too_few_samples_have_none(samples: int) -> None:
    assert covered(samples, 1) < 0.95
    found = median([1.0] * samples)
    assert found.value == 1
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("samples", [6, 7, 15, 16, 21, 50, 101])
def test_it_is_that_of_the_sign_test(samples: int) -> None:
    drawn = random.Random(samples)
    values = [drawn.gauss(1, 0.1) for _ in range(samples)]
    found, other = median(values), stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert (found.low, found.high) == (other.low, other.high)
    assert found.value == sorted(values)[samples // 2] if samples % 2 else found.low <= found.value <= found.high


def test_it_holds_the_true_median_as_often_as_it_says() -> None:
    drawn, hits = random.Random(0), 0
    for _ in range(2000):
        found = median([drawn.expovariate(1) for _ in range(15)])  # far from symmetric
        hits += found.low <= math.log(2) <= found.high
    exact = covered(15, rank(15))
    assert hits / 2000 == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2000))


def test_what_has_no_median_is_refused() -> None:
    with pytest.raises(ArgumentError, match="one sample or more"):
        median([])
