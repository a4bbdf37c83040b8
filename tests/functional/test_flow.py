import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional import flow, flows, uniform_like
from tests.functional import reference_structure as reference
from tests.functional.stacks import close, quick, stacks

FLOWS = {torch.float64: 1e-7, torch.float32: 2e-5}


def single(stack):
    """The first example alone, `[layer, head, query, key]`."""
    return stack.single(0)[:, 0]


@pytest.mark.parametrize("dtype", FLOWS, ids=str)
@quick
@given(stacks(max_tokens=5, max_layers=4), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_matches_the_reference(dtype, stack, residual):
    attention = single(stack)
    got = flow(attention.to(dtype), residual=residual)
    assert got.dtype == dtype
    close(got, reference.flow(attention.numpy(), residual), FLOWS[dtype])


@pytest.mark.parametrize("seed", range(4))
def test_deep_stacks_keep_the_order_of_their_layers(seed):
    """Sharp maps without residual: what a layer in the middle lets through depends on which stands above it."""
    scores = torch.randn(5, 2, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    attention = (6 * scores).softmax(-1)
    close(flow(attention, residual=0.05), reference.flow(attention.numpy(), 0.05), 1e-7)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(stacks(min_tokens=3, max_tokens=3, max_layers=3))
def test_the_largest_flow_is_the_smallest_cut(stack):
    attention = single(stack)
    found = flow(attention)
    for query, key in ((2, 0), (2, 1), (1, 1)):
        assert float(found[query, key]) == pytest.approx(
            reference.smallest_cut(attention.numpy(), 0.5, query, key), abs=1e-7
        )


@quick
@given(stacks(max_tokens=5), st.randoms(use_true_random=False))
def test_the_order_of_heads_does_not_matter(stack, random):
    attention = single(stack)
    order = list(range(attention.shape[1]))
    random.shuffle(order)
    close(flow(attention[:, order]), flow(attention), 1e-7)


@quick
@given(stacks(min_tokens=2, max_tokens=5))
def test_chosen_rows_are_those_of_the_whole(stack):
    attention = single(stack)
    whole = flow(attention)
    close(flow(attention, queries=[-1, 0]), whole[[-1, 0]], 0)
    close(flow(attention, normalise=True).sum(-1), torch.ones(len(whole)))
    if stack.causal:
        assert (whole.triu(1) == 0).all()


def test_one_layer_is_its_own_flow():
    attention = torch.rand(1, 2, 4, 4, dtype=torch.float64).softmax(-1)
    close(flow(attention), 0.5 * attention[0].mean(0) + 0.5 * torch.eye(4), 1e-8)


def test_two_ways_of_a_diamond_by_hand():
    """From row 2 half goes through token 0, half through token 1; both pass no more than 0.3 and 0.2 to token 2."""
    top = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0]])
    bottom = torch.tensor([[0.7, 0, 0.3], [0, 0.8, 0.2], [0, 0, 1]])
    found = flow(torch.stack([bottom, top])[:, None].double(), residual=0)
    close(found[2], [0.5, 0.5, 0.5], 1e-8)


def test_uniform_causal_attention_fills_token_zero_with_depth():
    attention = torch.ones(1, 8, 8, dtype=torch.float64).tril().softmax(-1).tril()
    attention = attention / attention.sum(-1, keepdim=True)
    shallow, deep = (
        flow(uniform_like(attention.expand(n, 1, 8, 8)[:, None])[:, 0], queries=[7])[0, 0] for n in (2, 12)
    )
    assert shallow < 0.6 and deep > 0.9


def test_weights_above_one_are_scaled_not_cut():
    attention = torch.full((3, 1, 3, 3), 3.0, dtype=torch.float64)
    close(flow(attention), reference.flow(attention.numpy(), 0.5), 1e-7)


def test_errors():
    good = torch.full((2, 1, 3, 3), 1 / 3)
    with pytest.raises(ShapeError, match=r"\[layer, head, query, key\]"):
        flow(good[0])
    with pytest.raises(ShapeError, match="both ends"):
        flow(good[..., :2])
    with pytest.raises(ArgumentError, match="queries from -3 to 2, got 3"):
        flow(good, queries=[3])
    with pytest.raises(ArgumentError, match="NaN"):
        flow(good.masked_fill(torch.eye(3).bool(), torch.nan))
    with pytest.raises(ArgumentError, match="infinity"):
        flow(good.masked_fill(torch.eye(3).bool(), torch.inf))
    with pytest.raises(ArgumentError, match="got none"):
        flows([])
    with pytest.raises(ArgumentError, match="residual"):
        flow(good, residual=2)
