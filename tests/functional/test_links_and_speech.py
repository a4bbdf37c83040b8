import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError
from hf_attnviz.functional import dtw, from_pharaoh, joined, linked, median_filter, spoken_frames, to_pharaoh
from tests.functional import reference_alignment as reference
from tests.functional.stacks import TOLERANCES, close, quick

seeds = st.integers(0, 2**32 - 1)
links = st.frozensets(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8)


def drawn(seed, *shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


def cells(found):
    return {tuple(cell) for cell in found.nonzero().tolist()}


@quick
@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_argmax_links_are_those_of_the_loop(seed, targets, sources):
    weights = drawn(seed, 2, 3, targets, sources)
    weights[0, 0, 0, 0] = math.nan
    found = linked(torch.from_numpy(weights))
    for place in itertools.product(range(2), range(3)):
        assert cells(found[place]) == reference.argmax_links(weights[place].tolist())


@quick
@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_dtw_links_are_the_path_of_each_map(seed, targets, sources):
    weights = torch.from_numpy(drawn(seed, 2, 2, targets, sources))
    found = linked(weights, method="dtw")
    for place in itertools.product(range(2), range(2)):
        assert cells(found[place]) == set(map(tuple, dtw(-weights[place])[0].tolist()))
        assert found[place].any(0).all() and found[place].any(1).all()  # a path leaves no target and no source out


def test_of_equal_weights_the_first_is_linked():
    assert cells(linked(torch.full((3, 4), 0.25))) == {(0, 0), (1, 0), (2, 0)}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(seeds, st.lists(st.booleans(), min_size=1, max_size=5), st.lists(st.booleans(), min_size=1, max_size=5))
def test_words_sum_over_sources_and_average_over_targets(dtype, seed, rows, columns):
    targets, sources = (np.cumsum([0, *begins[1:]]).tolist() for begins in (rows, columns))
    weights = drawn(seed, 2, len(rows), len(columns))
    got = joined(torch.from_numpy(weights).to(dtype), targets, sources)
    assert got.dtype == dtype
    for head in range(2):
        close(got[head], reference.joined(weights[head].tolist(), targets, sources), TOLERANCES[dtype])
    close(got.sum(-1), torch.ones(got.shape[:-1]), TOLERANCES[dtype])


@quick
@given(seeds, st.integers(1, 12), st.sampled_from([1, 3, 5, 7]))
def test_the_running_median(seed, length, width):
    rows = np.random.default_rng(seed).normal(size=(2, 3, length))
    got = median_filter(torch.from_numpy(rows), width)
    close(got, [[reference.median_filter(row.tolist(), width) for row in block] for block in rows])


def test_transformers_takes_the_same_median():
    whisper = pytest.importorskip("transformers.models.whisper.generation_whisper")
    values = torch.randn(2, 3, 5, 11, generator=torch.Generator().manual_seed(0))
    close(median_filter(values, 7), whisper._median_filter(values, 7), 0)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(seeds, st.sampled_from([1, 3, 4]), st.integers(1, 12), st.sampled_from([1, 3, 7]))
def test_the_frames_of_rows_are_those_of_the_loop(dtype, seed, rows, frames, width):
    attention = drawn(seed, 2, rows, frames)
    """Not of two rows: all their scores are ±1, and only rounding says which of equal paths is taken."""
    got = spoken_frames(torch.from_numpy(attention).to(dtype), median_width=width)
    assert got.tolist() == reference.spoken_frames(attention.tolist(), width)
    assert got.tolist() == sorted(got.tolist())


@quick
@given(seeds)
def test_frames_that_all_rows_weigh_alike_tell_nothing(seed):
    attention = torch.from_numpy(drawn(seed, 2, 3, 6))
    attention[..., 2] = 0.5
    assert spoken_frames(attention, median_width=1).tolist() == reference.spoken_frames(attention.tolist(), 1)


@quick
@given(links)
def test_links_go_to_text_and_back(found):
    line = to_pharaoh(found)
    assert line == reference.pharaoh(found)
    assert from_pharaoh(line) == (found, found)


def test_possible_links():
    sure, possible = from_pharaoh(" 0-0\t3p12 3p12 ")
    assert sure == {(0, 0)} and possible == {(0, 0), (3, 12)}
    assert from_pharaoh("") == (frozenset(), frozenset())


@pytest.mark.parametrize("line", ["0-", "-1-0", "0–0", "1-2-3", "0-0,1-1", "٣-٤", "1-" + "9" * 5000, "0-0\x00"])
def test_what_is_no_link_is_refused(line):
    with pytest.raises(ArgumentError, match="0-0 or 1p2"):
        from_pharaoh(line)


def test_errors():
    with pytest.raises(ArgumentError, match="places from 0"):
        to_pharaoh({(-1, 0)})
    with pytest.raises(UnknownNameError, match="argmax, dtw"):
        linked(torch.eye(2), method="best")
    with pytest.raises(ShapeError, match="none empty"):
        linked(torch.zeros(2, 0))
    with pytest.raises(ShapeError, match="floating"):
        linked(torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(ArgumentError, match="NaN"):
        linked(torch.full((2, 2), math.nan), method="dtw")
    with pytest.raises(ShapeError, match="a word for each"):
        joined(torch.eye(2), [0], [0, 1])
    with pytest.raises(ArgumentError, match="without a gap"):
        joined(torch.eye(2), [0, 2], [0, 1])
    with pytest.raises(ArgumentError, match="odd width"):
        median_filter(torch.zeros(4), 2)
    with pytest.raises(ArgumentError, match="NaN"):
        spoken_frames(torch.full((1, 2, 3), math.nan))
