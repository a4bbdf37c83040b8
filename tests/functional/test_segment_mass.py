"""Mass by segment, against loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_attnviz import functional as F
from hf_attnviz.errors import ShapeError


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_of_random_rows(seed: int, queries: int, keys: int, segments: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(2, 2, 3, queries, keys, generator=generator, dtype=torch.float64).softmax(-1)
    which = torch.randint(segments, (2, keys), generator=generator)
    found = F.segment_mass(attention, which[..., None] == torch.arange(segments))
    rows = torch.rand(2, queries, generator=generator) < 0.7
    mean = F.mass_by_example(found, rows).mean()
    for layer in range(2):
        for head in range(3):
            for segment in range(segments):
                taken = []
                for b in range(2):
                    for q in range(queries):
                        row = attention[layer, b, head, q].tolist()
                        wanted = math.fsum(w for w, n in zip(row, which[b].tolist(), strict=True) if n == segment)
                        assert abs(float(found[layer, b, head, q, segment]) - wanted) < 1e-9
                        taken += [wanted] * bool(rows[b, q])
                one = float(mean[segment, layer, head])
                assert math.isnan(one) if not taken else abs(one - math.fsum(taken) / len(taken)) < 1e-9
    assert torch.allclose(found.sum(-1), torch.ones(2, 2, 3, queries, dtype=torch.float64))


def test_rows_without_weight_are_left_out_and_wrong_members_refused() -> None:
    attention = torch.tensor([[0.5, 0.5], [0, 0], [math.nan, 1]]).view(1, 1, 1, 3, 2)
    members = torch.eye(2).bool()[None]
    found = F.segment_mass(attention, members)
    assert found.isnan().all(-1).flatten().tolist() == [False, True, True]
    assert F.mass_by_example(found, torch.ones(1, 3).bool()).mean().flatten().tolist() == [0.5, 0.5]
    assert F.segment_mass(attention.bfloat16(), members).dtype == torch.float32
    with pytest.raises(ShapeError, match="members"):
        F.segment_mass(attention, members[:, :1])
