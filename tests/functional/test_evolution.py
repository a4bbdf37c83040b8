import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional import evolution
from tests.functional import reference
from tests.functional.stacks import TOLERANCES, close, quick


@st.composite
def generations(draw):
    """The prompt's map, then one row a step over keys that grow."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    heads = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    prompt, new = draw(st.integers(1, 5)), draw(st.integers(0, 4))
    cached = draw(st.booleans())
    shapes = [(prompt + n if n == 0 or not cached else 1, prompt + n) for n in range(new + 1)]
    return [torch.from_numpy(generator.dirichlet(np.ones(keys), (*heads, rows))) for rows, keys in shapes], prompt


@st.composite
def crossed_generations(draw):
    """One row a step over keys that stay."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    keys, steps = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    return [torch.from_numpy(generator.dirichlet(np.ones(keys), (2, 1, 3, 1))) for _ in range(steps)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(generations())
def test_matches_the_reference(dtype, generation):
    steps, prompt = generation
    got = evolution([step.to(dtype) for step in steps], prompt)
    wanted = reference.evolution([step.numpy() for step in steps], prompt)
    assert set(got) == set(wanted)
    for name, values in got.items():
        assert values.dtype == (torch.int64 if name == "argmax" else dtype)
        close(values, wanted[name], TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(crossed_generations())
def test_cross_attention_matches_the_reference(dtype, steps):
    got = evolution([step.to(dtype) for step in steps], None)
    wanted = reference.evolution([step.numpy() for step in steps], None)
    assert set(got) == set(wanted) and not {"lookback_ratio", "self_token", "distance"} & set(got)
    for name, values in got.items():
        close(values, wanted[name], TOLERANCES[dtype])
    assert (got["uniform_drift"][1:] == 0).all()


@quick
@given(generations())
def test_what_belongs_together(generation):
    steps, prompt = generation
    got = evolution(steps, prompt)
    close(got["prompt_mass"] + got["generated_mass"], torch.ones_like(got["entropy"]))
    assert (got["confidence"] >= got["first_token"].maximum(got["self_token"])).all()
    assert (got["effective_span"] <= torch.tensor([step.shape[-1] for step in steps]).view(-1, 1, 1, 1) + 1e-9).all()
    permuted = evolution([step.flip(2) for step in steps], prompt)
    for name, values in permuted.items():
        close(values, got[name].flip(-1))


def test_the_drift_of_uniform_attention_is_all_growth():
    """From n to n + 1 keys; by hand for 1 to 2: the middle row is (3/4, 1/4)."""
    steps = [torch.full((1, 1, 1, 1, keys), 1 / keys, dtype=torch.float64) for keys in (1, 2, 3, 400)]
    got = evolution(steps, 1)
    close(got["drift"], got["uniform_drift"])
    by_hand = -0.75 * math.log(0.75) - 0.25 * math.log(0.25) - math.log(2) / 2
    assert float(got["uniform_drift"][1]) == pytest.approx(by_hand, abs=1e-12)


def test_a_row_by_hand():
    got = evolution([torch.tensor([1.0]).view(1, 1, 1, 1, 1), torch.tensor([0.7, 0.1, 0.2]).view(1, 1, 1, 1, 3)], 1)
    close(got["distance"].flatten(), [0, 1.5], 1e-6)
    close(got["previous_token"].flatten(), [math.nan, 0.1], 1e-6)
    close(got["previous_token_argmax"].flatten(), [math.nan, 0], 1e-6)
    close(got["normalised_entropy"].flatten()[:1], [math.nan])  # one key: no choice
    close(got["lookback_ratio"].flatten(), [math.nan, 0.7 / 0.85], 1e-6)  # 0.7 ÷ (0.7 + (0.1 + 0.2)/2)
    assert got["argmax"].flatten().tolist() == [0, 0]


def test_uniform_attention_looks_back_by_half_however_long_the_prompt():
    steps = [torch.full((1, 1, 1, 1, keys), 1 / keys) for keys in (100, 101, 102)]
    got = evolution(steps, 100)
    assert got["lookback_ratio"][0].isnan()
    close(got["lookback_ratio"][1:].flatten(), [0.5, 0.5], 1e-6)
    close(got["prompt_mass"].flatten(), [1, 100 / 101, 100 / 102], 1e-6)
    assert got["drift"][0].isnan() and (got["drift"][1:] > 0).all()


def test_drift_is_zero_for_a_row_that_stays_and_ln_2_for_one_that_leaves():
    rows = [[1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    got = evolution([torch.tensor(row).view(1, 1, 1, 1, -1) for row in rows], 2)
    close(got["drift"].flatten(), [math.nan, 0, math.log(2)], 1e-6)


def test_an_undefined_row_has_no_strongest_key():
    rows = [[0.1, 0.9], [torch.nan, 0.5, 0.5], [0.2, 0.2, 0.3, 0.3]]
    got = evolution([torch.tensor(row).view(1, 1, 1, 1, -1) for row in rows], 2)
    assert got["argmax"].flatten().tolist() == [1, -1, 2]
    close(got["previous_token_argmax"].flatten(), [0, math.nan, 1], 1e-6)
    close(got["confidence"].flatten(), [0.9, math.nan, 0.3], 1e-6)


def test_bfloat16_is_upcast():
    steps = [torch.tensor([0.5, 0.25, 0.25]).bfloat16().view(1, 1, 1, 1, 3)]
    assert evolution(steps, 2)["entropy"].dtype == torch.float32


def test_errors():
    step = torch.full((1, 1, 1, 1, 3), 1 / 3)
    with pytest.raises(ArgumentError, match="at least one step"):
        evolution([], 2)
    with pytest.raises(ArgumentError, match="prompt_length"):
        evolution([step], 0)
    with pytest.raises(ShapeError, match="at least 4 keys"):
        evolution([step], 4)
    with pytest.raises(ShapeError, match="every step"):
        evolution([step, step.expand(2, 1, 1, 1, 3)], 2)
