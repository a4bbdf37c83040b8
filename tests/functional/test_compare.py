"""Words pooled, special tokens left out, heads compared: against plain loops, and by laws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional import compare_maps, pool_words, renormalised, row_statistics, word_groups
from tests.functional import reference_compare as reference
from tests.functional.stacks import TOLERANCES, close, crossed, quick, stacks

PAIR = st.one_of(stacks(max_tokens=5, max_layers=2, rubbish="nan"), crossed())


def other(stack, seed=0):
    """Another stack with the same masks: rows turned about and sharpened, still rows."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(stack.attention.shape, generator=generator, dtype=torch.float64)
    weights = stack.attention * noise
    return weights / weights.sum(-1, keepdim=True)


def compared(stack, first, second):
    masks = {"valid": stack.valid, "valid_queries": stack.valid_queries, "positions": stack.positions}
    return compare_maps(first, second, **masks, causal=stack.causal)


@st.composite
def worded(draw):
    """Rows `[head, query, key]` and the words of both ends: pieces in runs, tokens of no word between them."""
    sizes = [draw(st.integers(1, 7)) for _ in range(2)]
    ends = []
    for size in sizes:
        numbers, word = [], 0
        for _ in range(size):
            word += draw(st.integers(0, 1))
            numbers.append(None if draw(st.integers(0, 4)) == 0 else word)
        ends.append(numbers)
    seed = draw(st.integers(0, 2**32 - 1))
    scores = torch.randn(3, *sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return scores.softmax(-1), ends[1], ends[0]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(worded())
def test_words_are_pooled_as_the_reference_does(dtype, case):
    weights, words, query_words = case
    got = pool_words(weights.to(dtype), words, query_words=query_words)
    assert got.dtype == dtype
    close(got, [reference.pool(head.tolist(), words, query_words) for head in weights], TOLERANCES[dtype])
    close(got.sum(-1), torch.ones(got.shape[:-1]), TOLERANCES[dtype])
    assert word_groups(words) == reference.groups(words)


@quick
@given(worded())
def test_words_of_one_piece_change_nothing_and_heads_stay_apart(case):
    weights, words, query_words = case
    alone = pool_words(weights, list(range(len(words))), query_words=[None] * len(query_words))
    close(alone, weights, 0)
    order = torch.tensor([2, 0, 1])
    pooled = pool_words(weights, words, query_words=query_words)
    close(pool_words(weights[order], words, query_words=query_words), pooled[order], 0)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(worded(), st.data())
def test_renormalised_rows_sum_to_one_and_say_what_was_left_out(dtype, case, data):
    weights, words, _ = case
    left_out = data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))
    kept, share = renormalised(weights.to(dtype), torch.tensor(left_out))
    rows = [reference.renormalise(row, left_out) for row in weights.reshape(-1, len(words)).tolist()]
    if not all(left_out):
        close(kept.reshape(-1, len(words)), [row for row, _ in rows], TOLERANCES[dtype])
        close(kept.sum(-1), torch.ones(kept.shape[:-1]), TOLERANCES[dtype])
    else:
        assert kept.isnan().all()
    close(share.reshape(-1), [out for _, out in rows], TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(PAIR)
def test_heads_are_compared_as_the_reference_does(dtype, stack):
    second = other(stack)
    got = compared(stack, stack.attention.to(dtype), second.to(dtype))
    layers, _, heads = stack.attention.shape[:3]
    for layer in range(layers):
        for head in range(heads):
            sides = [side[layer, :, head].tolist() for side in (stack.attention, second)]
            js, pearson = reference.maps(*sides, *stack.reference())
            close(got["js"][layer, head], js, TOLERANCES[dtype])
            if dtype == torch.float64:
                close(got["pearson"][layer, head], pearson, 1e-9)
            elif not math.isnan(pearson):
                close(got["pearson"][layer, head], pearson, 2e-5)


@quick
@given(PAIR)
def test_a_stack_is_like_itself_and_comparing_is_symmetric(stack):
    itself, second = compared(stack, stack.attention, stack.attention), other(stack)
    assert (itself["js"][~itself["js"].isnan()] == 0).all()
    known = itself["pearson"][~itself["pearson"].isnan()]
    close(known, torch.ones_like(known), 1e-12)
    one, back = compared(stack, stack.attention, second), compared(stack, second, stack.attention)
    for name in one:
        close(one[name], back[name], 1e-12)
    assert not (one["js"] > math.log(2) + 1e-12).any()


@quick
@given(PAIR)
def test_permuting_heads_permutes(stack):
    heads = torch.arange(stack.attention.shape[2]).flip(0)
    second = other(stack)
    got = compared(stack, stack.attention[:, :, heads], second[:, :, heads])
    for name, values in compared(stack, stack.attention, second).items():
        close(got[name], values[:, heads], 1e-12)


@quick
@given(stacks(min_tokens=2))
def test_padding_changes_nothing(stack):
    """One example alone, without its padding, has the numbers that it has in the batch when it is the only real one."""
    second = other(stack)
    valid = stack.valid.clone()
    valid[1:] = False
    got = compare_maps(stack.attention, second, valid=valid, positions=stack.positions, causal=stack.causal)
    cut = [side[:, :1][..., stack.valid[0], :][..., stack.valid[0]] for side in (stack.attention, second)]
    for name, values in compare_maps(*cut, causal=stack.causal).items():
        close(got[name], values, 1e-12)


def test_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64).view(1, 1, 1, 2, 2)
    second = torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=torch.float64).view(1, 1, 1, 2, 2)
    got = compare_maps(first, second)
    assert got["js"].item() == pytest.approx(math.log(2) / 2, abs=1e-12)
    assert got["pearson"].item() == pytest.approx(-1, abs=1e-12)
    assert compare_maps(first, torch.full_like(first, 0.5))["pearson"].isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(worded(), st.data())
def test_the_row_of_a_word(dtype, case, data):
    weights, words, _ = case
    own = data.draw(st.integers(0, len(words) - 1))
    special, choices = [word is None for word in words], data.draw(st.integers(1, len(words)))
    got = row_statistics(weights.to(dtype), own=own, special=torch.tensor(special), choices=choices)
    for place, row in enumerate(weights.reshape(-1, len(words)).tolist()):
        for name, value in reference.row(row, own, special, choices).items():
            assert got[name].dtype == dtype
            close(got[name].reshape(-1)[place], value, TOLERANCES[dtype])


def test_what_cannot_be_is_told():
    weights = torch.full((2, 3, 3), 1 / 3)
    with pytest.raises(ShapeError, match="one entry of words a key .* got 2 entries"):
        pool_words(weights, [0, 1])
    with pytest.raises(ShapeError, match="one entry of query_words a query"):
        pool_words(weights, [0, 1, 2], query_words=[0])
    with pytest.raises(ShapeError, match=r"left_out of dtype torch\.bool and shape \(3,\)"):
        renormalised(weights, torch.tensor([True]))
    with pytest.raises(ShapeError, match="two stacks of the same sizes"):
        compare_maps(weights[None, None], weights[None, None, :1])
    with pytest.raises(ArgumentError, match="behind the causal mask"):
        compare_maps(weights[None, None], weights[None, None], causal=True)
