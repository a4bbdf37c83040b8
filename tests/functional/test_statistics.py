import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional import entropy, head_statistics, uniform_attention
from hf_attnviz.functional.statistics import STATISTICS
from tests.functional import reference
from tests.functional.stacks import TOLERANCES, close, crossed, quick, stacks

POSITIONAL = ("distance", "previous_token", "next_token", "self_token", "previous_token_argmax")


def statistics(stack, attention=None):
    attention = stack.attention if attention is None else attention
    return head_statistics(
        attention,
        valid=stack.valid,
        valid_queries=stack.valid_queries,
        positions=stack.positions,
        causal=stack.causal,
    )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(st.one_of(stacks(), crossed()))
def test_matches_the_reference(dtype, stack):
    got = statistics(stack, stack.attention.to(dtype))
    wanted = reference.head_statistics(stack.array, *stack.reference())
    assert tuple(got) == STATISTICS and set(got) == set(wanted)
    for name in STATISTICS:
        assert got[name].dtype == dtype
        close(got[name], wanted[name], TOLERANCES[dtype])


@quick
@given(stacks())
def test_square_maps_need_only_valid(stack):
    short = head_statistics(stack.attention, valid=stack.valid, causal=stack.causal)
    for name, values in statistics(stack).items():
        close(short[name], values, 0)


@quick
@given(stacks())
def test_padding_changes_nothing(stack):
    """Pooled over a padded batch = pooled over the unpadded examples, each weighed by its rows."""
    pooled = head_statistics(stack.attention, valid=stack.valid, causal=stack.causal)
    singles = [head_statistics(stack.single(b), causal=stack.causal) for b in range(len(stack.valid))]
    rows = stack.valid.sum(-1).double()
    for name in ("entropy", "effective_span", "distance", "self_token", "first_token", "confidence"):
        each = torch.stack([single[name] for single in singles], -1)
        close(pooled[name], (each * rows).sum(-1) / rows.sum())


@quick
@given(stacks(), st.randoms(use_true_random=False))
def test_permuting_heads_permutes_the_results(stack, random):
    order = list(range(stack.attention.shape[2]))
    random.shuffle(order)
    permuted = statistics(stack, stack.attention[:, :, order])
    for name, values in statistics(stack).items():
        close(permuted[name], values[:, order], 0)


@quick
@given(stacks(rubbish="zero"))
def test_entropy_lies_between_zero_and_the_bound(stack):
    nats = entropy(stack.attention)
    bound = stack.attention.gt(0).sum(-1).clamp_min(1).log()
    assert (nats >= 0).all() and (nats <= bound + 1e-12).all()
    for name in ("normalised_entropy", "confidence", "previous_token", "self_token", "first_token"):
        values = statistics(stack)[name].nan_to_num()
        assert (values >= 0).all() and (values <= 1 + 1e-12).all()


@quick
@given(stacks(min_tokens=2))
def test_uniform_attention_reaches_the_bound(stack):
    size = stack.attention.shape[-1]
    uniform = uniform_attention(size, size, causal=stack.causal, valid=stack.valid, dtype=torch.float64)
    got = head_statistics(uniform[None, :, None], valid=stack.valid, causal=stack.causal)
    close(got["normalised_entropy"], [[1.0]])


@quick
@given(stacks(rubbish="zero"))
def test_bfloat16_is_only_rounded_once(stack):
    coarse = stack.attention.bfloat16()
    exact = statistics(stack, coarse.double())
    for name, values in statistics(stack, coarse).items():
        assert values.dtype == torch.float32
        close(values, exact[name], 1e-5)


def test_entropy_of_known_rows():
    close(entropy(torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]])), [0, math.log(3)], 1e-6)
    assert entropy(torch.tensor([-0.1, 1.1])).isnan()
    assert entropy(torch.tensor([torch.inf, 0.5])).isnan()
    assert math.copysign(1, entropy(torch.tensor([1.0, 0.0]))) == 1


@quick
@given(stacks(rubbish="uniform"))
def test_entropy_matches_the_reference(stack):
    rows = stack.array.reshape(-1, stack.array.shape[-1])
    close(entropy(stack.attention).flatten(), [reference.entropy(row) for row in rows])


def test_a_perfect_previous_token_head():
    head = torch.eye(5).roll(-1, 1)
    head[0] = torch.eye(5)[0]
    got = head_statistics(head[None, None, None], causal=True)
    assert got["previous_token"] == 1 and got["previous_token_argmax"] == 1
    assert got["next_token"].isnan()
    close(got["self_token"], [[0.2]], 1e-6)
    close(got["first_token"], [[0.4]], 1e-6)
    close(got["first_token_after_first_row"], [[0.25]], 1e-6)


def test_pooled_rows_are_not_the_mean_of_examples():
    attention = torch.stack([torch.eye(3), torch.full((3, 3), 1 / 3)])
    attention[0, 1:] = torch.tensor([1.0, 0, 0])
    valid = torch.tensor([[True, False, False], [True, True, True]])
    got = head_statistics(attention[None, :, None], valid=valid)
    close(got["entropy"], [[3 * math.log(3) / 4]], 1e-6)


def test_cross_attention_has_no_places():
    got = head_statistics(torch.full((1, 1, 1, 2, 4), 0.25))
    assert all(got[name].isnan().all() for name in POSITIONAL)
    assert not any(got[name].isnan().any() for name in STATISTICS if name not in POSITIONAL)


def test_square_cross_attention_says_that_rows_stand_nowhere():
    got = head_statistics(torch.full((1, 1, 1, 3, 3), 1 / 3), positions=torch.full((3,), -1))
    assert all(got[name].isnan().all() for name in POSITIONAL)


def test_one_token():
    got = head_statistics(torch.ones(1, 1, 1, 1, 1))
    nothing = {
        "normalised_entropy",
        "previous_token",
        "next_token",
        "previous_token_argmax",
        "first_token_after_first_row",
    }
    assert {name for name in STATISTICS if got[name].isnan()} == nothing


def test_no_valid_token_is_nan_and_not_zero():
    got = head_statistics(torch.full((1, 1, 1, 2, 2), 0.5), valid=torch.zeros(1, 2, dtype=torch.bool))
    assert all(got[name].isnan().all() for name in STATISTICS)


@quick
@given(stacks(rubbish="zero"))
def test_what_lies_on_padding_is_ignored(stack):
    spoilt = stack.attention.masked_fill(~stack.valid[:, None, None, :], torch.nan)
    wanted = statistics(stack)
    for name, values in statistics(stack, spoilt).items():
        close(values, wanted[name], 0)


@pytest.mark.parametrize("undefined", [torch.nan, torch.inf])
def test_a_row_with_one_undefined_cell_is_undefined_in_every_number(undefined):
    maps = torch.full((1, 1, 2, 4, 4), 0.25)
    maps[0, 0, 1, 2, 3] = undefined
    got = head_statistics(maps)
    assert not any(values[0, 0].isnan() for values in got.values())
    assert all(values[0, 1].isnan() for values in got.values())


def test_weights_that_ask_for_a_gradient_are_taken_without_a_warning():
    maps = torch.full((1, 1, 1, 3, 3), 1 / 3).tril()
    got = head_statistics((maps / maps.sum(-1, keepdim=True)).requires_grad_(), causal=True)
    assert got["entropy"].item() == pytest.approx((math.log(2) + math.log(3)) / 3)


def test_weight_ahead_of_the_query_is_no_causal_map():
    with pytest.raises(ArgumentError, match="causal=False"):
        head_statistics(torch.full((1, 1, 1, 2, 2), 0.5), causal=True)
