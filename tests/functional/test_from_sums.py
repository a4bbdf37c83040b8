"""Correlations from sums of products and from sketches, against the correlation of the numbers themselves."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_attnviz import functional as F
from hf_attnviz.errors import ShapeError
from hf_attnviz.reducing.signs import signs


def heads_of(seed: int, heads: int = 5, pairs: int = 40, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    drawn = torch.randn(heads + 1, pairs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn[1:] + drawn[0] + 0.5).to(dtype)


def correlation(flat: np.ndarray, *, centred: bool) -> np.ndarray:
    """Pearson's r, or without centring the cosine, pair by pair in plain floats."""
    rows = [[x - (math.fsum(row) / len(row) if centred else 0) for x in row] for row in flat.tolist()]
    dot = [[math.fsum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    return np.array(
        [[dot[a][b] / math.sqrt(dot[a][a] * dot[b][b]) for b in range(len(rows))] for a in range(len(rows))]
    )


@given(st.integers(0, 1000), st.booleans())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_sums_of_products_give_the_correlation(seed: int, centred: bool) -> None:
    heads = heads_of(seed)
    sums = heads.sum(1) if centred else torch.zeros(len(heads), dtype=torch.float64)
    found = F.correlation_of_products(heads @ heads.T, sums=sums, pairs=torch.tensor(40.0, dtype=torch.float64))
    assert np.abs(found.numpy() - correlation(heads.numpy(), centred=centred)).max() < 1e-9


def test_sums_in_float32() -> None:
    heads = heads_of(3, dtype=torch.float32)
    found = F.correlation_of_products(heads @ heads.T, sums=heads.sum(1), pairs=torch.tensor(40.0))
    assert np.abs(found.numpy() - correlation(heads.double().numpy(), centred=True)).max() < 2e-5


def test_a_constant_head_has_no_correlation() -> None:
    heads = heads_of(1)
    heads[2] = 0.25
    heads[4] = 0
    pairs = torch.tensor(40.0, dtype=torch.float64)
    found = F.correlation_of_products(heads @ heads.T, sums=heads.sum(1), pairs=pairs)
    assert found.isnan().any(1).tolist() == [True] * 5 and found.isnan().all(1).tolist() == [
        False,
        False,
        True,
        False,
        True,
    ]
    cosine = F.correlation_of_products(heads @ heads.T, sums=torch.zeros(5), pairs=pairs)
    assert cosine.isnan().all(1).tolist() == [False] * 4 + [True]


def test_what_are_no_sums_or_sketches_is_refused() -> None:
    with pytest.raises(ShapeError, match="products"):
        F.correlation_of_products(torch.zeros(2, 3), sums=torch.zeros(2), pairs=torch.tensor(1))
    with pytest.raises(ShapeError, match="sketches"):
        F.correlation_of_sketches(torch.zeros(2, 3))


# ---- sketches


def sketched(maps: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    rows, keys = (signs(torch.arange(n), size=size, seed=seed, side=side) for side, n in enumerate(maps.shape[1:]))
    return rows.T.double() @ maps @ keys.double()


def maps_of(kind: str, length: int, heads: int = 6) -> torch.Tensor:
    """Causal maps, from a head that is itself to one that is much like the others."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(heads, length, length, generator=generator, dtype=torch.float64) * (
        0.3 if kind == "flat" else 2
    )
    more = torch.linspace(0, 1, heads, dtype=torch.float64)[:, None, None]
    scores = scores + more * 3 * torch.randn(length, length, generator=generator, dtype=torch.float64)
    if kind == "sink":
        scores[:, :, 0] += 2 + 5 * more[:, :, 0]
    if kind == "previous":
        scores += 6 * more * torch.eye(length, dtype=torch.float64).roll(-1, 1).tril()
    return scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)


@pytest.mark.parametrize("kind", ["flat", "random", "sink", "previous"])
@pytest.mark.parametrize("size", [16, 64])
def test_the_interval_of_an_estimate_holds_the_truth_19_times_of_20(kind: str, size: int) -> None:
    maps = maps_of(kind, 120)
    seen = torch.ones(120, 120).tril().double()
    centred = (maps - maps.sum((1, 2), keepdim=True) / seen.sum()) * seen
    flat = maps[:, seen.bool()]
    truth = torch.from_numpy(np.corrcoef(flat.numpy()))
    other = torch.ones(6, 6).triu(1).bool()
    held, off, told = [], [], []
    for seed in range(150):
        estimate, low, high = F.correlation_of_sketches(sketched(centred, size, seed))
        assert bool(((low <= estimate) & (estimate <= high)).all())
        held.append(((low <= truth) & (truth <= high))[other].double().mean())
        off.append((estimate - truth)[other])
        told.append((high - low)[other] / 2)
    assert 0.91 < float(torch.stack(held).mean()) < 0.99
    error = torch.stack(off).square().mean().sqrt()
    assert abs(float(torch.stack(off).mean())) < 0.3 * error  # without bias
    assert 1.5 < float(torch.stack(told).mean() / error) < 2.8  # no wider than it must be
    if size == 64:
        assert float(error) < (0.05 if kind == "sink" else 0.03)


def test_alike_opposite_and_nothing() -> None:
    maps = maps_of("random", 40, 3)
    given = torch.stack([maps[0], maps[0] * 2, -maps[0], maps[1], maps[1] * 0])
    estimate, low, high = F.correlation_of_sketches(sketched(given, 16, 0))
    for one in (estimate, low, high):
        assert one[0, 1] == pytest.approx(1, abs=1e-6) and one[0, 2] == pytest.approx(-1, abs=1e-6)
        assert bool(one[4].isnan().all() & one[:, 4].isnan().all()) and not bool(one[:4, :4].isnan().any())
        assert one.diagonal()[:4].tolist() == [1] * 4
        assert torch.equal(one.nan_to_num(7), one.T.nan_to_num(7))


def test_signs_are_those_of_a_place_alone() -> None:
    one = signs(torch.tensor([[3, -1, 700], [0, 3, 5]]), size=70, seed=5, side=1)
    assert one.shape == (2, 3, 70) and torch.equal(one[0, 0], one[1, 1]) and not bool(one[0, 1].any())
    assert torch.equal(one[0, 2], signs(torch.tensor([700]), size=70, seed=5, side=1)[0])
    many = signs(torch.arange(4096), size=64, seed=0, side=0)
    assert many.unique().tolist() == [-1, 1]
    like = many.T @ many / 4096 - torch.eye(64)
    assert float(like.abs().max()) < 5 / 64 and float(many.mean(0).abs().max()) < 5 / 64
    for other in (
        signs(torch.arange(4096), size=64, seed=1, side=0),
        signs(torch.arange(4096), size=64, seed=0, side=1),
    ):
        assert float((many.T @ other / 4096).abs().max()) < 5 / 64
