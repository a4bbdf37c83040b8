"""What uniform attention gives each key: held against a plain sum, cell by cell."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional import uniform_received
from tests.functional.stacks import close, crossed, quick, stacks


def by_hand(stack) -> np.ndarray:
    _, batch, _, queries, keys = stack.array.shape
    found = np.zeros((batch, keys))
    for example, query in np.ndindex(batch, queries):
        stands = int(stack.positions[query])
        real = bool(stack.valid_queries[example, query])
        seen = [k for k in range(keys) if stack.valid[example, k] and (not stack.causal or k <= stands)]
        for key in seen if real else []:
            found[example, key] += 1 / len(seen)
    return found


def masks(stack) -> dict:
    return {name: getattr(stack, name) for name in ("valid", "valid_queries", "positions", "causal")}


@quick
@given(st.one_of(stacks(), crossed()))
def test_it_is_the_sum_over_rows(stack):
    close(uniform_received(**masks(stack)), by_hand(stack))


def test_no_map_is_built():
    """A map of so many tokens would be 40 GB; all that rows give arrives."""
    valid = torch.ones(1, 100_000, dtype=torch.bool)
    for causal, last in ((True, 1e-5), (False, 1.0)):
        found = uniform_received(valid=valid, causal=causal)
        assert float(found.sum()) == pytest.approx(100_000, rel=1e-11)
        assert float(found[0, -1]) == pytest.approx(last, rel=1e-11)


def test_rows_that_stand_nowhere_are_not_causal():
    with pytest.raises(ArgumentError, match="stand"):
        uniform_received(
            valid=torch.ones(1, 5, dtype=torch.bool), valid_queries=torch.ones(1, 4, dtype=torch.bool), causal=True
        )
