import base64
import zlib

import numpy as np
import pytest
import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.legible import json_safe, visible
from hf_attnviz.views.encoding import WEIGHT_ERROR, packed, read_weight_codes, scaled_integers, weight_codes


def test_no_weight_is_further_off_than_we_say():
    every = torch.linspace(0, 1, 1_000_001, dtype=torch.float64)
    edges = (torch.arange(255, dtype=torch.float64) + 0.5).div(255).square()  # where rounding turns over: the worst
    for values in (every, edges, torch.nextafter(edges, torch.ones(())), torch.nextafter(edges, torch.zeros(()))):
        error = np.abs(read_weight_codes(weight_codes(values)) - values.numpy())
        assert error.max() <= WEIGHT_ERROR


def test_a_uniform_row_of_a_thousand_keys_does_not_vanish():
    assert weight_codes(torch.full((1024,), 1 / 1024)).min() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_float_dtype(dtype):
    assert weight_codes(torch.tensor([0, 0.25, 1], dtype=dtype)).tolist() == [0, 128, 255]


def test_undefined_is_nothing_and_nonsense_is_refused():
    assert weight_codes(torch.tensor([float("nan")])).tolist() == [0]
    with pytest.raises(ArgumentError, match="heatmap"):
        weight_codes(torch.tensor([-0.5]))
    with pytest.raises(ArgumentError, match=r"from 0 to 1, got 0\.5 to 7"):
        weight_codes(torch.tensor([0.5, 7.0]))


def test_vectors_are_within_half_a_unit():
    vectors = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1000])[:, None, None]
    codes, units = scaled_integers(vectors)
    back = torch.from_numpy(codes.astype(np.float32)) * torch.tensor(units)[:, None, None]
    assert bool(((back - vectors).abs() <= vectors.abs().amax((1, 2), keepdim=True) / 65_000).all())
    assert scaled_integers(torch.zeros(1, 2, 3))[0].tolist() == [[[0] * 3] * 2]


def test_packed_is_little_endian_zlib_in_base64():
    data = zlib.decompress(base64.b64decode(packed(np.array([[1, -2]], dtype=">i2"))))
    assert np.frombuffer(data, "<i2").tolist() == [1, -2]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("猫", "猫"),
        ("a\x00b", "a⟨U+0000⟩b"),
        ("\u202eevil", "⟨U+202E⟩evil"),
        ("a\nb\t", "a↵b⇥"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u200b", "⟨U+200B⟩"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\u2028", "⟨U+2028⟩"),
    ],
)
def test_nothing_invisible_and_nothing_that_turns_the_line(text, shown):
    assert visible(text) == shown


def test_json_cannot_leave_its_script():
    assert not set("<>&\u2028\u2029") & set(json_safe('"</script>&\u2028\u2029"'))
