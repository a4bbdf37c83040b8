import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError
from hf_attnviz.functional import duplicate_token_score, induction_score
from tests.functional import reference
from tests.functional.stacks import TOLERANCES, close, quick, stacks

definitions = st.sampled_from([("all_copies", None), ("stripe", None), ("stripe", 1), ("stripe", 3), ("mul", None)])


def tokens_for(stack, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 3, size=tuple(stack.valid.shape)))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(stacks(max_tokens=8), st.integers(0, 2**32 - 1), definitions)
def test_matches_the_reference(dtype, stack, seed, definition):
    name, period = definition
    tokens = tokens_for(stack, seed)
    attention = stack.attention.to(dtype)
    got = induction_score(attention, tokens, definition=name, period=period, valid=stack.valid)
    assert got.dtype == dtype
    wanted = reference.induction_score(stack.array, tokens.tolist(), stack.valid.tolist(), name, period)
    close(got, wanted, TOLERANCES[dtype])
    close(
        duplicate_token_score(attention, tokens, valid=stack.valid),
        reference.duplicate_token_score(stack.array, tokens.tolist(), stack.valid.tolist()),
        TOLERANCES[dtype],
    )


@quick
@given(stacks(max_tokens=8), st.integers(0, 2**32 - 1), definitions)
def test_padding_changes_nothing(stack, seed, definition):
    name, period = definition
    tokens = tokens_for(stack, seed)
    batch = induction_score(stack.attention, tokens, definition=name, period=period, valid=stack.valid)
    for example, real in enumerate(stack.valid):
        alone = induction_score(
            stack.single(example), tokens[example : example + 1, real], definition=name, period=period
        )
        close(batch[:, example] if name == "mul" else batch[:, example][..., real], alone[:, 0])


def test_a_head_that_spreads_over_copies_scores_by_all_and_not_by_stripe():
    tokens = torch.tensor([[5, 6, 5, 6, 5]])
    attention = torch.zeros(1, 1, 1, 5, 5)
    attention[..., 4, 1] = 0.2
    attention[..., 4, 3] = 0.8
    assert induction_score(attention, tokens)[..., 4] == 1
    close(induction_score(attention, tokens, definition="stripe")[..., 4], [[[0.8]]], 1e-6)
    close(induction_score(attention, tokens, definition="stripe", period=4)[..., 4], [[[0.2]]], 1e-6)


def test_without_copies_nothing_is_defined():
    attention, tokens = torch.rand(1, 1, 2, 3, 3), torch.tensor([[1, 2, 3]])
    assert induction_score(attention, tokens).isnan().all()
    assert induction_score(attention, tokens, definition="mul").isnan().all()
    assert duplicate_token_score(attention, tokens).isnan().all()


def test_errors():
    attention, tokens = torch.rand(1, 1, 1, 3, 3), torch.tensor([[1, 2, 3]])
    with pytest.raises(UnknownNameError, match="all_copies, stripe, mul"):
        induction_score(attention, tokens, definition="sum")
    with pytest.raises(ArgumentError, match="stripe"):
        induction_score(attention, tokens, period=2)
    with pytest.raises(ArgumentError, match="1 or more"):
        induction_score(attention, tokens, definition="stripe", period=0)
    with pytest.raises(ShapeError, match="tokens"):
        induction_score(attention, tokens[0])
    with pytest.raises(ShapeError, match="tokens"):
        duplicate_token_score(attention, tokens.float())
    with pytest.raises(ShapeError, match="both ends"):
        duplicate_token_score(attention[..., :2, :], tokens)
