"""Statistics made of three numbers a row: held against the plain reference, which has the whole map."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional import head_statistics, statistics_of_rows, uniform_attention, uniform_rows
from tests.functional import reference
from tests.functional.stacks import TOLERANCES, close, crossed, quick, stacks

NAMES = {"entropy", "normalised_entropy", "effective_span", "distance", "first_token", "first_token_after_first_row"}


def by_hand(stack) -> dict[str, torch.Tensor]:
    """Three numbers of each row, cell by cell, of the keys that it may see; NaN where the row is."""
    layers, batch, heads, queries, keys = stack.array.shape
    found = {name: np.full((layers, batch, heads, queries), np.nan) for name in ("entropy", "distance", "sink")}
    for layer, example, head, query in np.ndindex(layers, batch, heads, queries):
        stands = int(stack.positions[query])
        seen = [k for k in range(keys) if stack.valid[example, k] and (not stack.causal or k <= stands)]
        row = {key: float(stack.array[layer, example, head, query, key]) for key in seen}
        place = layer, example, head, query
        found["entropy"][place] = -sum(w * np.log(w) for w in row.values() if w != 0)
        found["distance"][place] = sum(w * abs(stands - key) for key, w in row.items()) if stands >= 0 else np.nan
        first = next(key for key in range(keys) if stack.valid[example, key])
        found["sink"][place] = row.get(first, 0.0)
    return {name: torch.from_numpy(values) for name, values in found.items()}


def masks(stack) -> dict:
    return {name: getattr(stack, name) for name in ("valid", "valid_queries", "positions", "causal")}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(st.one_of(stacks(), crossed()))
def test_it_is_what_the_maps_give(dtype, stack):
    rows = {name: values.to(dtype) for name, values in by_hand(stack).items()}
    found = statistics_of_rows(rows, **masks(stack))
    wanted = reference.head_statistics(stack.array, *stack.reference())
    from_maps = head_statistics(stack.attention, **masks(stack))
    assert set(found) == NAMES
    for name, tally in found.items():
        assert tally.mean().dtype == dtype
        close(tally.mean(), wanted[name], TOLERANCES[dtype])
        close(tally.mean(), from_maps[name], TOLERANCES[dtype])


@quick
@given(st.one_of(stacks(), crossed()))
def test_uniform_rows_are_those_of_uniform_attention(stack):
    sizes = stack.attention.shape[-2:]
    even = uniform_attention(*sizes, **masks(stack), dtype=torch.float64)[None, :, None]
    found = statistics_of_rows(uniform_rows(**masks(stack)), **masks(stack))
    for name, values in head_statistics(even, **masks(stack)).items():
        if name in NAMES:
            close(found[name].mean(), values)


def test_uniform_rows_by_hand():
    valid = torch.tensor([[True, True, True, True], [False, True, True, True]])
    causal = uniform_rows(valid=valid, causal=True)
    close(causal["entropy"][0, :, 0], [np.log([1, 2, 3, 4]), [np.nan, *np.log([1, 2, 3])]])
    close(causal["distance"][0, :, 0], [[0, 0.5, 1, 1.5], [np.nan, 0, 0.5, 1]])
    close(causal["sink"][0, :, 0], [[1, 1 / 2, 1 / 3, 1 / 4], [np.nan, 1, 1 / 2, 1 / 3]])
    both = uniform_rows(valid=valid)
    close(both["distance"][0, :, 0], [[6 / 4, 4 / 4, 4 / 4, 6 / 4], [np.nan, 3 / 3, 2 / 3, 3 / 3]])
    rows = uniform_rows(
        valid=valid[:1], valid_queries=torch.ones(1, 2, dtype=torch.bool), positions=torch.tensor([-1, 3])
    )
    close(rows["distance"][0, 0, 0], [np.nan, 1.5])
    close(rows["entropy"][0, 0, 0], np.log([4, 4]))


def test_no_map_is_built():
    """A map of so many tokens would be 40 GB."""
    valid = torch.ones(1, 100_000, dtype=torch.bool)
    for causal, distance in ((True, 99_999 / 4), (False, (100_000**2 - 1) / 3e5)):
        found = statistics_of_rows(uniform_rows(valid=valid, causal=causal), valid=valid, causal=causal)
        assert float(found["distance"].mean()) == pytest.approx(distance, rel=1e-12)


@quick
@given(stacks(), st.integers(1, 4))
def test_padding_changes_nothing(stack, more):
    rows = by_hand(stack)
    filled = {name: torch.nn.functional.pad(values, (0, more), value=torch.nan) for name, values in rows.items()}
    longer = {name: torch.nn.functional.pad(getattr(stack, name), (0, more)) for name in ("valid", "valid_queries")}
    positions = torch.arange(longer["valid"].shape[-1])
    found = statistics_of_rows(filled, **longer, positions=positions, causal=stack.causal)
    for name, tally in statistics_of_rows(rows, **masks(stack)).items():
        close(found[name].mean(), tally.mean())
        close(found[name].totals, tally.totals)


def test_what_does_not_fit_is_refused():
    rows = {name: torch.rand(2, 1, 3, 4) for name in ("entropy", "distance", "sink")}
    valid = torch.ones(1, 4, dtype=torch.bool)
    statistics_of_rows(rows, valid=valid)
    with pytest.raises(ShapeError, match="got entropy, sink; distance is missing"):
        statistics_of_rows({name: rows[name] for name in ("entropy", "sink")}, valid=valid)
    with pytest.raises(ShapeError, match="expected one shape"):
        statistics_of_rows(rows | {"sink": torch.rand(2, 1, 3, 5)}, valid=valid)
    with pytest.raises(ShapeError, match=r"\[layer, batch, head, query\], got 3 axes"):
        statistics_of_rows(rows | {"sink": torch.rand(1, 3, 4)}, valid=valid)
    with pytest.raises(ArgumentError, match="rows that stand nowhere"):
        statistics_of_rows(rows, valid=torch.ones(1, 5, dtype=torch.bool), valid_queries=valid, causal=True)
