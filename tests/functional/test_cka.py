import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional import cka
from tests.functional import reference_structure as reference
from tests.functional.stacks import TOLERANCES, close, quick

seeds = st.integers(0, 2**32 - 1)


def outputs(seed, heads=3, tokens=7, size=3):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(heads, tokens, size)) + 0.5)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(seeds, st.integers(12, 20), st.integers(1, 4))
def test_matches_the_reference(dtype, debiased, seed, tokens, size):
    made = outputs(seed, tokens=tokens, size=size)
    got = cka(made.to(dtype), debiased=debiased)
    assert got.dtype == dtype
    close(got, reference.cka(made, debiased), TOLERANCES[dtype])


@pytest.mark.parametrize("debiased", [False, True])
@quick
@given(seeds)
def test_turning_shifting_and_scaling_a_head_change_nothing(debiased, seed):
    made = outputs(seed, tokens=16)
    turn, _ = torch.linalg.qr(outputs(seed + 1, 1, 3)[0])
    changed = made.clone()
    changed[1] = 3 * made[1] @ turn + 7
    close(cka(changed, debiased=debiased), cka(made, debiased=debiased), 1e-9)
    order = [2, 0, 1]
    close(cka(made[order], debiased=debiased), cka(made, debiased=debiased)[order][:, order], 1e-12)


def test_few_tokens_make_strangers_alike_and_debiasing_mends_it():
    """Sixty-four features of 32 tokens: random heads look 0.66 alike; without bias nothing, on average."""
    pairs = [cka(outputs(seed, 2, 32, 64))[0, 1].item() for seed in range(20)]
    mended = [cka(outputs(seed, 2, 32, 64), debiased=True)[0, 1].item() for seed in range(20)]
    assert np.mean(pairs) > 0.6
    assert abs(np.mean(mended)) < 0.02


def test_what_does_not_vary_is_undefined():
    made = outputs(0)
    made[1] = 5.0
    found = cka(made)
    assert found[1].isnan().all() and found[:, 1].isnan().all()
    assert found[0, 0] == found[2, 2] == 1 and not found[0, 2].isnan()
    assert cka(made[:, :3], debiased=True).isnan().all()
    made[0, 0, 0] = torch.nan
    assert cka(made)[0].isnan().all()


def test_errors():
    with pytest.raises(ShapeError, match=r"\[head, token, size\]"):
        cka(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match="floating"):
        cka(torch.zeros(3, 4, 2, dtype=torch.long))
