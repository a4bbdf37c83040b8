import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional import image_distance, uniform_attention
from tests.functional import reference_structure as reference
from tests.functional.stacks import TOLERANCES, close, quick

grids = st.tuples(st.integers(1, 3), st.integers(1, 3))


def pictures(seed, rows, columns, prefix):
    size = rows * columns + prefix
    scores = torch.randn(2, 2, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * scores).softmax(-1)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(st.integers(0, 2**31), grids, st.sampled_from([0, 1, 5]), st.sampled_from([1.0, 16.0]))
def test_matches_the_reference(dtype, seed, grid, prefix, patch):
    attention = pictures(seed, *grid, prefix)
    got = image_distance(attention.to(dtype), grid=grid, patch_size=patch, prefix=prefix)
    assert got.dtype == dtype
    close(got, reference.image_distance(attention.numpy(), *grid, patch, prefix), TOLERANCES[dtype])


def test_permuting_heads_permutes():
    attention = pictures(0, 2, 3, 1)
    found = image_distance(attention, grid=(2, 3), patch_size=16)
    close(image_distance(attention[:, :, [2, 0, 1]], grid=(2, 3), patch_size=16), found[:, [2, 0, 1]], 1e-12)


def test_uniform_attention_over_two_patches():
    uniform = uniform_attention(3, 3)[None, :, None]
    close(image_distance(uniform, grid=(1, 2), patch_size=16), [[8.0]], 1e-6)


def test_a_row_on_the_class_token_alone_is_left_out():
    attention = torch.zeros(1, 1, 1, 3, 3)
    attention[..., 0] = 1
    assert image_distance(attention, grid=(1, 2), patch_size=16).isnan()
    attention[..., 2, :] = torch.tensor([0.5, 0.5, 0.0])
    assert image_distance(attention, grid=(1, 2), patch_size=16) == 16


def test_errors():
    attention = torch.full((1, 1, 1, 5, 5), 0.2)
    with pytest.raises(ShapeError, match="1 \\+ 2 × 3 tokens, got 5"):
        image_distance(attention, grid=(2, 3), patch_size=16)
    with pytest.raises(ArgumentError, match="patch_size above 0"):
        image_distance(attention, grid=(2, 2), patch_size=0)
    with pytest.raises(ShapeError, match="both ends"):
        image_distance(attention[..., :4], grid=(2, 2), patch_size=16)
