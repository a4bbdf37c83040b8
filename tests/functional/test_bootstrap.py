import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional import Tally, head_statistics, statistics_by_example
from tests.functional import reference_structure as reference
from tests.functional.stacks import TOLERANCES, close, quick, stacks


def examples(seed, size, fewest_rows=0):
    """Rows of numbers, so many an example."""
    generator = np.random.default_rng(seed)
    return [generator.random(generator.integers(fewest_rows, 4)).tolist() for _ in range(size)]


def tally(rows, dtype=torch.float64):
    totals = torch.tensor([sum(one) for one in rows], dtype=dtype)
    return Tally(totals[:, None], torch.tensor([len(one) for one in rows])[:, None])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"resamples": 200, "seed": 7, "level": 0.5}], ids=["usual", "other"])
def test_matches_the_reference(dtype, seed, options):
    rows = examples(seed, 6 + seed, fewest_rows=1)
    found = tally(rows, dtype)
    close(found.mean(), [reference.mean(value for one in rows for value in one)], TOLERANCES[dtype])
    for got, wanted in zip(found.interval(**options), reference.interval(rows, **options), strict=True):
        assert got.dtype == dtype
        close(got, [wanted], TOLERANCES[dtype])


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_below_five_examples_with_a_row_there_is_none(seed, size):
    rows = examples(seed, size)
    low, high = tally(rows).interval()
    assert low.isnan().item() == high.isnan().item() == (sum(map(bool, rows)) < 5)


def test_draws_without_a_row_are_left_out():
    rows = [[1.0], [2.0], [3.0], [4.0], [5.0], *[[] for _ in range(20)]]
    close(tally(rows).interval(), np.array([reference.interval(rows)]).T)


def test_whole_examples_are_drawn_not_rows():
    """Two hundred equal rows in one of five examples are one example."""
    rows = [[0.0] * 200, [1.0], [1.0], [1.0], [1.0]]
    low, high = tally(rows).interval()
    assert low < 0.01 and high == 1  # a third of the draws do without it


def test_equal_examples_have_no_width():
    low, high = tally([[0.25, 0.5]] * 6).interval()
    assert low == high == 0.375


def test_the_best_of_alternatives_is_taken_in_every_draw():
    totals = torch.from_numpy(np.random.default_rng(3).random((7, 1, 2)))
    low, high = Tally(totals, torch.ones(7, 1, 2), best=True).interval(resamples=300)
    drawn = np.random.default_rng(0).integers(7, size=(300, 7))
    means = sorted(max(np.mean([totals[n, 0, side].item() for n in draw]) for side in (0, 1)) for draw in drawn)
    close(torch.stack([low, high]), [[reference.percentile(means, 0.025)], [reference.percentile(means, 0.975)]])


def test_an_alternative_that_is_nowhere_does_not_count():
    counts = torch.tensor([[[1.0, 0.0]]]).expand(6, 1, 2)
    found = Tally(torch.ones(6, 1, 2) * counts, counts, best=True)
    assert found.mean() == 1 and found.interval()[0] == 1
    assert Tally(torch.zeros(6, 1, 2), torch.zeros(6, 1, 2), best=True).mean().isnan()


def test_numbers_of_examples_leave_out_what_is_undefined():
    values = torch.tensor([[1.0], [torch.nan], [3.0]])
    assert Tally.of_examples(values).mean() == 2


def test_numbers_of_examples_in_bfloat16_are_averaged_in_float32():
    values = torch.tensor([0.5, 0.25, 0.125, 0.75, 1.0, 0.375]).bfloat16()[:, None]
    coarse, fine = (Tally.of_examples(one) for one in (values, values.double()))
    for got, wanted in zip((coarse.mean(), *coarse.interval()), (fine.mean(), *fine.interval()), strict=True):
        assert got.dtype == torch.float32
        close(got, wanted, 1e-6)


def test_many_columns_are_the_same_as_few():
    totals = torch.from_numpy(np.random.default_rng(0).random((5, 5000)))
    low, _ = Tally(totals, torch.ones(5, 1)).interval(resamples=50)
    for column in (0, 2047, 2048, 4999):
        close(low[column], Tally(totals[:, column : column + 1], torch.ones(5, 1)).interval(resamples=50)[0][0])


def test_no_example_is_refused():
    with pytest.raises(ArgumentError, match="at least one example"):
        Tally(torch.zeros(0, 2), torch.zeros(0, 2)).interval()


def test_what_is_no_level_is_refused():
    with pytest.raises(ArgumentError, match="level"):
        tally([[1.0]]).interval(level=95)
    with pytest.raises(ArgumentError, match="resample"):
        tally([[1.0]]).interval(resamples=0)


@quick
@given(stacks(max_tokens=5))
def test_pooled_statistics_are_the_sums_of_their_examples(stack):
    masks = {"valid": stack.valid, "causal": stack.causal}
    pooled = head_statistics(stack.attention, **masks)
    for name, found in statistics_by_example(stack.attention, **masks).items():
        counts = found.counts.expand(found.totals.shape)
        close(found.totals.sum(0) / counts.sum(0), pooled[name])
        for example in range(len(stack.valid)):
            alone = head_statistics(stack.single(example), causal=stack.causal)[name]
            close((found.totals / counts)[example], alone)
