"""Comprehensiveness, sufficiency, AOPC and Kendall's τ against definitions written out with fractions and loops."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from hf_attnviz import functional
from hf_attnviz.errors import ArgumentError, ShapeError
from tests.functional.stacks import TOLERANCES, quick

BINS = ("0.01", "0.05", "0.1", "0.2", "0.5")


def top(scores, share):
    """The places of the ceil(share·n) highest scores, by asking for each place how many stand before it."""
    wanted = -((-Fraction(share) * len(scores)) // 1)
    before = [
        sum(other > own or (other == own and j < i) for j, other in enumerate(scores)) for i, own in enumerate(scores)
    ]
    return {place for place, ahead in enumerate(before) if ahead < wanted}


def slow(table, scores, *, alone):
    """p(all) − p(rest), the probabilities read from a table by the set of what is kept."""
    everything = frozenset(range(len(scores)))
    found = []
    for share in BINS:
        taken = top(scores, share)
        found.append(table[everything] - table[frozenset(taken if alone else everything - taken)])
    return found


def slow_tau_b(x, y):
    same = opposite = ties_x = ties_y = 0
    for i, j in itertools.combinations(range(len(x)), 2):
        a, b = (x[i] > x[j]) - (x[i] < x[j]), (y[i] > y[j]) - (y[i] < y[j])
        same, opposite = same + (a * b > 0), opposite + (a * b < 0)
        ties_x, ties_y = ties_x + (a == 0), ties_y + (b == 0)
    pairs = len(x) * (len(x) - 1) // 2
    below = math.sqrt((pairs - ties_x) * (pairs - ties_y))
    return (same - opposite) / below if below else math.nan


@pytest.mark.parametrize("dtype", TOLERANCES)
@quick
@given(st.integers(1, 7), st.integers(0, 2**31), st.booleans())
def test_both_measures_against_every_subset(dtype, tokens, seed, tied):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(tokens, generator=generator, dtype=torch.float64)
    scores = scores.round() if tied else scores
    subsets = [frozenset(s) for n in range(tokens + 1) for s in itertools.combinations(range(tokens), n)]
    values = torch.rand(len(subsets), generator=generator, dtype=torch.float64).tolist()
    table = dict(zip(subsets, values, strict=True))

    def predict(keep):
        return torch.tensor(table[frozenset(keep.nonzero().flatten().tolist())], dtype=dtype)

    for function, alone in ((functional.comprehensiveness, False), (functional.sufficiency, True)):
        expected = slow(table, scores.tolist(), alone=alone)
        result = function(predict, scores.to(dtype))
        assert result.dtype == dtype
        assert result.tolist() == pytest.approx(expected, abs=TOLERANCES[dtype])
        assert functional.aopc(result).item() == pytest.approx(math.fsum(expected) / 5, abs=TOLERANCES[dtype])


def test_the_number_of_removed_tokens_is_not_raised_by_rounding():
    """0.2·35 and 0.1·30 come out above 7 and at 3 in floating point."""
    for tokens in range(1, 400):
        counts = functional.top_shares(torch.arange(float(tokens))).sum(-1).tolist()
        assert counts == [-((-Fraction(share) * tokens) // 1) for share in BINS]


@quick
@given(st.integers(1, 5))
def test_outcomes_counts_what_rankings_can_differ_in(tokens):
    seen = {
        tuple(map(tuple, functional.top_shares(torch.tensor(order, dtype=torch.float32)).tolist()))
        for order in itertools.permutations(range(tokens))
    }
    assert functional.outcomes(tokens) == len(seen)


@pytest.mark.parametrize("dtype", TOLERANCES)
@quick
@given(st.integers(2, 9), st.integers(0, 2**31))
def test_kendall_tau_against_pairs_and_scipy(dtype, tokens, seed):
    scores = (torch.randn(4, tokens, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2).round()
    result = functional.kendall_tau(scores)
    assert result.dtype == dtype
    for one, other in itertools.product(range(4), repeat=2):
        expected = slow_tau_b(scores[one].tolist(), scores[other].tolist())
        assert result[one, other].item() == pytest.approx(expected, abs=TOLERANCES[dtype], nan_ok=True)
        theirs = kendalltau(scores[one].numpy(), scores[other].numpy()).statistic
        assert result[one, other].item() == pytest.approx(theirs, abs=TOLERANCES[dtype], nan_ok=True)


def test_what_has_no_order_has_no_tau():
    result = functional.kendall_tau(torch.tensor([[1.0, 1, 1], [1, 2, 3], [torch.nan, 2, 3]]))
    assert result[1, 1] == 1
    assert result.isnan().sum() == 8


def test_a_hand_worked_case():
    """Two of four tokens carry the answer; the ranking knows one of them."""

    def predict(keep):
        return 0.1 + 0.5 * float(keep[0]) + 0.3 * float(keep[2])

    scores = torch.tensor([0.9, 0.8, 0.1, 0.0])
    found = functional.comprehensiveness(predict, scores)
    assert found.tolist() == pytest.approx([0.5] * 5)
    assert functional.sufficiency(predict, scores).tolist() == pytest.approx([0.3] * 5)


def test_errors():
    with pytest.raises(ShapeError, match=r"scores \[token\].*rank one example"):
        functional.comprehensiveness(lambda keep: 0.5, torch.ones(1, 3))
    with pytest.raises(ArgumentError, match="NaN, which have no rank"):
        functional.sufficiency(lambda keep: 0.5, torch.tensor([1.0, torch.nan]))
    with pytest.raises(ArgumentError, match="0.1 is the top tenth"):
        functional.comprehensiveness(lambda keep: 0.5, torch.ones(3), bins=(10,))
    with pytest.raises(ShapeError, match="stack the rankings"):
        functional.kendall_tau(torch.ones(3))


def test_predict_answers_with_one_number_whatever_its_shape():
    scores = torch.tensor([0.3, 0.2, 0.1])
    assert functional.comprehensiveness(lambda keep: torch.full((1, 1), 0.5), scores).shape == (5,)
    with pytest.raises(ShapeError, match=r"one probability of predict, got sizes \(2,\)"):
        functional.sufficiency(lambda keep: torch.zeros(2), scores)
    with pytest.raises(ArgumentError, match="at least one share"):
        functional.comprehensiveness(lambda keep: 0.5, scores, bins=())
