import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional import sink_fraction, sink_mass, uniform_attention
from tests.functional import reference
from tests.functional.stacks import TOLERANCES, close, crossed, quick, stacks


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(st.one_of(stacks(), crossed()), st.integers(0, 3), st.booleans(), st.sampled_from([0.0, 0.3, 0.6]))
def test_matches_the_reference(dtype, stack, position, first_row, threshold):
    options = {
        "position": position,
        "valid": stack.valid,
        "valid_queries": stack.valid_queries,
        "positions": stack.positions,
        "first_row": first_row,
    }
    attention = stack.attention.to(dtype)
    got = sink_mass(attention, **options)
    wanted = reference.sink_mass(stack.array, position, *stack.reference()[:3], first_row)
    assert got.dtype == dtype
    close(got, wanted, TOLERANCES[dtype])
    close(sink_fraction(attention, **options, threshold=threshold), reference.sink_fraction(wanted, threshold), 1e-7)


@quick
@given(stacks())
def test_padding_changes_nothing(stack):
    batch = sink_mass(stack.attention, valid=stack.valid)
    for example in range(len(stack.valid)):
        close(batch[:, example], sink_mass(stack.single(example))[:, 0])


def test_uniform_causal_attention_on_the_first_token():
    uniform = uniform_attention(4, 4, causal=True)[None, :, None]
    close(sink_mass(uniform), [[[(1 + 1 / 2 + 1 / 3 + 1 / 4) / 4]]], 1e-6)
    close(sink_mass(uniform, first_row=False), [[[(1 / 2 + 1 / 3 + 1 / 4) / 3]]], 1e-6)
    close(sink_mass(uniform, position=2), [[[(1 / 3 + 1 / 4) / 2]]], 1e-6)


def test_the_threshold_itself_is_no_sink():
    attention = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])[None, None]
    assert sink_fraction(attention, threshold=0.5).tolist() == [0.5]


def test_half_precision_is_summed_in_float32():
    coarse = torch.full((1, 1, 1, 300, 300), 1 / 300).half()
    assert sink_mass(coarse).dtype == torch.float32
    close(sink_mass(coarse), coarse.double()[..., 0].mean(-1), 1e-7)


def test_a_position_counts_from_zero():
    with pytest.raises(ArgumentError, match="position"):
        sink_mass(torch.ones(1, 1, 1, 1, 1), position=-1)
    with pytest.raises(ArgumentError, match="threshold"):
        sink_fraction(torch.ones(1, 1, 1, 1, 1), threshold=30)
