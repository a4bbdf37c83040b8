import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError
from hf_attnviz.functional import alignment_error_rate, dtw, linked, monotonicity
from tests.functional import reference
from tests.functional.stacks import close, quick

pairs = st.frozensets(st.tuples(st.integers(0, 3), st.integers(0, 3)))


@st.composite
def costs(draw, whole=False):
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return generator.integers(-1, 3, size=shape).astype(float) if whole else generator.normal(size=shape)


@quick
@given(pairs, pairs, pairs)
def test_error_rate_matches_counting(links, sure, more):
    possible = sure | more
    hits = sum(1 for link in links if link in sure) + sum(1 for link in links if link in possible)
    total = len(links) + len(sure)
    got = alignment_error_rate(links, sure, possible)
    assert math.isnan(got) if total == 0 else got == pytest.approx(1 - hits / total, abs=1e-12)


@quick
@given(pairs, pairs)
def test_error_rate_of_sure_links_is_zero(sure, more):
    if sure:
        assert alignment_error_rate(sure, sure, sure | more) == 0


def test_sure_links_are_possible():
    with pytest.raises(ArgumentError, match=r"pass possible \| sure"):
        alignment_error_rate({(0, 0)}, sure={(0, 0)}, possible=set())


@quick
@given(st.one_of(costs(), costs(whole=True)))
def test_paths_are_those_of_whisper(cost):
    path, total = dtw(torch.from_numpy(cost))
    wanted, least = reference.dtw_whisper(cost.tolist())
    assert path.tolist() == [list(cell) for cell in wanted]
    assert total == pytest.approx(least, abs=1e-12)


@quick
@given(st.one_of(costs(), costs(whole=True)))
def test_the_least_total_is_the_least_of_all_paths(cost):
    path, total = dtw(torch.from_numpy(cost), ties="least")
    assert total == pytest.approx(reference.cheapest_path(cost.tolist()), abs=1e-12)
    assert total == pytest.approx(sum(cost[i, j] for i, j in path.tolist()), abs=1e-12)
    assert path[0].tolist() == [0, 0] and path[-1].tolist() == [cost.shape[0] - 1, cost.shape[1] - 1]
    assert {tuple(move) for move in (path[1:] - path[:-1]).tolist()} <= {(1, 1), (1, 0), (0, 1)}


@quick
@given(costs())
def test_without_ties_both_rules_agree(cost):
    first, second = dtw(torch.from_numpy(cost)), dtw(torch.from_numpy(cost), ties="least")
    assert first[0].tolist() == second[0].tolist() and first[1] == second[1]


def test_the_rule_of_whisper_can_miss_the_cheapest_path():
    cost = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    assert dtw(cost)[1] == 3.0 and dtw(cost, ties="least")[1] == 1.0


def test_transformers_takes_the_same_paths():
    whisper = pytest.importorskip("transformers.models.whisper.generation_whisper")
    generator = np.random.default_rng(0)
    for _ in range(20):
        cost = generator.normal(size=(6, 11)).astype(np.float32)
        rows, columns = whisper._dynamic_time_warping(cost)
        assert dtw(torch.from_numpy(cost))[0].tolist() == np.stack([rows, columns], 1).tolist()


@quick
@given(st.lists(st.integers(0, 5), max_size=7))
def test_monotonicity_matches_counting(places):
    got = monotonicity(torch.tensor(places, dtype=torch.int64))
    for name, wanted in reference.monotonicity(places).items():
        close(got[name], wanted)


def test_monotonicity_of_many_rows_at_once():
    places = torch.tensor([[0, 1, 2], [2, 1, 0], [0, 0, 1]])
    got = monotonicity(places)
    close(got["fraction"], [1, 0, 1])
    close(got["kendall_tau"], [1, -1, 2 / 3])


@quick
@given(st.permutations(range(6)))
def test_scipy_agrees_without_ties(places):
    got = monotonicity(torch.tensor(places))["kendall_tau"]
    assert float(got) == pytest.approx(scipy.stats.kendalltau(range(6), places).statistic, abs=1e-12)


def test_a_target_without_any_weight_has_no_link():
    weights = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [0.0, 0.2], [0.5, 0.5]])
    assert linked(weights).int().tolist() == [[0, 0], [0, 0], [0, 1], [1, 0]]


def test_links_of_weights_that_lie_anywhere_in_memory():
    weights = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for method in ("argmax", "dtw"):
        turned = weights.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        assert torch.equal(linked(turned, method=method), linked(weights, method=method))


def test_infinite_costs_forbid_cells():
    path, total = dtw(torch.tensor([[0.0, torch.inf, 1.0], [2.0, torch.inf, 0.0], [1.0, 4.0, 0.0]]))
    assert path.tolist() == [[0, 0], [1, 0], [2, 1], [2, 2]] and total == 6
    with pytest.raises(ArgumentError, match="finite cost"):
        dtw(torch.full((3, 3), torch.inf))
    with pytest.raises(ArgumentError, match="minus infinity"):
        dtw(torch.tensor([[0.0, -torch.inf], [0.0, 0.0]]))


def test_the_order_of_unknown_places_is_unknown():
    got = monotonicity(torch.tensor([[0.0, torch.nan, 2.0], [0.0, 1.0, 2.0]]))
    close(got["fraction"], [math.nan, 1])
    close(got["kendall_tau"], [math.nan, 1])


def test_errors():
    with pytest.raises(ShapeError, match="row, column"):
        dtw(torch.zeros(3))
    with pytest.raises(ShapeError, match="not empty"):
        dtw(torch.zeros(0, 3))
    with pytest.raises(ShapeError, match="floating"):
        dtw(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ArgumentError, match="NaN"):
        dtw(torch.full((2, 2), torch.nan))
    with pytest.raises(UnknownNameError, match="whisper, least"):
        dtw(torch.zeros(2, 2), ties="first")
    with pytest.raises(ShapeError, match="single number"):
        monotonicity(torch.tensor(3))
