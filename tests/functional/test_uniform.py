import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.functional import head_statistics, rollout, uniform_attention, uniform_like
from tests.functional import reference_structure as reference
from tests.functional.stacks import TOLERANCES, close, crossed, quick, stacks


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(st.one_of(stacks(rubbish="zero"), crossed().filter(lambda s: not s.attention.isnan().any())))
def test_matches_the_reference(dtype, stack):
    got = uniform_like(stack.attention.to(dtype), valid=stack.valid)
    assert got.dtype == dtype
    close(got, reference.uniform_like(stack.array, stack.valid.tolist()), TOLERANCES[dtype])


@quick
@given(stacks(rubbish="zero"))
def test_the_mask_that_is_read_is_the_mask_that_is_told(stack):
    size = stack.attention.shape[-1]
    told = uniform_attention(size, size, causal=stack.causal, valid=stack.valid, dtype=torch.float64)
    for layer in uniform_like(stack.attention, valid=stack.valid):
        close(layer[:, 0], told.nan_to_num(), 1e-12)


def test_sliding_windows_and_layers_of_their_own():
    scores = torch.randn(2, 1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    places = torch.arange(6)
    causal = places <= places[:, None]
    window = causal & (places > places[:, None] - 2)
    maps = torch.stack([scores[0].masked_fill(~window, -torch.inf), scores[1].masked_fill(~causal, -torch.inf)])
    uniform = uniform_like(maps.softmax(-1))
    close(uniform[0, 0, 0, 5], [0, 0, 0, 0, 0.5, 0.5])
    close(uniform[1, 0, 0, 5], [1 / 6] * 6, 1e-7)
    drift = rollout(uniform)[-1, 0, -1]
    assert drift[:2].tolist() == pytest.approx([1.25 / 12, 1 / 12], abs=1e-6)
    assert head_statistics(uniform, causal=True)["normalised_entropy"][1] == pytest.approx(1, abs=1e-6)


def test_one_head_of_a_layer_is_enough_to_see_a_key():
    maps = torch.stack([torch.eye(3), torch.eye(3).roll(1, 1)])[None, None]
    close(uniform_like(maps)[0, 0, 0], [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])


def test_a_row_without_weight_stays_zero():
    maps = torch.tensor([[0.0, 0.0], [0.5, 0.5]])[None, None, None]
    close(uniform_like(maps)[0, 0, 0], [[0, 0], [0.5, 0.5]])
