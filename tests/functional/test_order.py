import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional import classical_mds, linkage_order
from tests.functional.stacks import close, quick


def between(points):
    return (points[:, None] - points).norm(dim=-1)


def clouds(seed, size, dimensions):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(size, dimensions)))


def apart(distance, first, second):
    return np.mean([distance[i, j] for i in first for j in second])


def average_linkage_orders(distance):
    """Every order the leaves of the average-linkage tree can take, the tree built by hand."""
    clusters = [[(item,)] for item in range(len(distance))]
    while len(clusters) > 1:
        a, b = min(itertools.combinations(clusters, 2), key=lambda pair: apart(distance, pair[0][0], pair[1][0]))
        merged = [x + y for x in a for y in b] + [y + x for x in a for y in b]
        clusters = [cluster for cluster in clusters if cluster not in (a, b)] + [merged]
    return clusters[0]


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_the_order_is_the_shortest_the_tree_allows(seed, size):
    distance = between(clouds(seed, size, 2))

    def length(order):
        return sum(float(distance[a, b]) for a, b in itertools.pairwise(order))

    order = linkage_order(distance).tolist()
    allowed = average_linkage_orders(distance.numpy())
    assert tuple(order) in allowed
    assert length(order) == pytest.approx(min(map(length, allowed)), abs=1e-9)
    assert order[0] <= order[-1]


def test_a_line_is_put_in_order():
    places = torch.tensor([4.0, 0.0, 2.0, 1.0, 3.0])
    assert linkage_order((places[:, None] - places).abs()).tolist() == [0, 4, 2, 3, 1]


def test_many_items_on_a_long_chain():
    """Average linkage adds these one by one, the deepest tree there is."""
    places = torch.tensor([1.5**power for power in range(60)], dtype=torch.float64)
    assert linkage_order((places[:, None] - places).abs()).tolist() == list(range(60))


def test_unknown_items_come_last():
    distance = between(clouds(0, 5, 1)).float()
    distance[1], distance[:, 1] = torch.nan, torch.nan
    order = linkage_order(distance).tolist()
    assert order[-1] == 1
    known = [0, 2, 3, 4]
    assert order[:-1] == [known[i] for i in linkage_order(distance[known][:, known]).tolist()]
    coordinates = classical_mds(distance)
    assert coordinates[1].isnan().all()
    close(coordinates[known], classical_mds(distance[known][:, known]), 1e-6)


def test_all_unknown():
    distance = torch.full((3, 3), torch.nan)
    assert linkage_order(distance).tolist() == [0, 1, 2]
    assert classical_mds(distance).isnan().all()


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 4))
def test_scaling_recovers_euclidean_distances(seed, size, dimensions):
    distance = between(clouds(seed, size, dimensions))
    found = classical_mds(distance, dimensions=dimensions)
    assert found.shape == (size, dimensions) and found.dtype == torch.float64
    close(between(found), distance, 1e-7)
    close(found.sum(0), torch.zeros(dimensions), 1e-7)
    spread = found.square().sum(0)
    assert (spread[:-1] >= spread[1:] - 1e-7).all()
    strongest = found[found.abs().argmax(0), torch.arange(dimensions)]
    assert (strongest >= 0).all()


@quick
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_scaling_by_power_iteration(seed, size):
    """Torgerson step by step on distances no plane has: centre by loops, then find the first axis."""
    generator = np.random.default_rng(seed)
    table = generator.uniform(0.5, 1.0, size=(size, size))
    table = np.triu(table, 1) + np.triu(table, 1).T
    inner = np.empty((size, size))
    for i, j in np.ndindex(size, size):
        rows = sum(table[i, k] ** 2 for k in range(size)) / size, sum(table[k, j] ** 2 for k in range(size)) / size
        everything = sum(d**2 for d in table.flat) / size**2
        inner[i, j] = -(table[i, j] ** 2 - sum(rows) + everything) / 2
    power = inner + 2 * size * np.eye(size)
    for _ in range(30):  # the 2³⁰th power is all first axis
        power = power @ power
        power /= np.linalg.norm(power)
    vector = power @ generator.normal(size=size)
    vector /= np.linalg.norm(vector)
    value = vector @ inner @ vector
    axis = vector * np.sqrt(value)
    got = classical_mds(torch.from_numpy(table))[:, 0].numpy()
    assert got @ got == pytest.approx(value, abs=1e-9)
    assert np.abs(inner @ got - value * got).max() < 1e-9
    assert abs(got @ axis) == pytest.approx(value, abs=1e-9)


def test_more_axes_than_items_are_zero():
    close(classical_mds(torch.zeros(1, 1), dimensions=2), torch.zeros(1, 2), 0)
    close(classical_mds(torch.tensor([[0.0, 2.0], [2.0, 0.0]]), dimensions=3), [[1, 0, 0], [-1, 0, 0]], 1e-6)


@pytest.mark.parametrize("place", [linkage_order, classical_mds])
def test_what_is_no_distance_is_refused(place):
    with pytest.raises(ShapeError, match=r"\[n, n\]"):
        place(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="floating"):
        place(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ArgumentError, match="1 - r"):
        place(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
    with pytest.raises(ArgumentError, match="symmetric"):
        place(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(ArgumentError, match="finite"):
        place(torch.tensor([[0.0, torch.inf], [torch.inf, 0.0]]))
    hole = torch.ones(4, 4)
    hole[0, 1] = hole[1, 0] = torch.nan
    with pytest.raises(ArgumentError, match="NaN"):
        place(hole)


def test_no_dimension_is_refused():
    with pytest.raises(ArgumentError, match="dimension"):
        classical_mds(torch.zeros(2, 2), dimensions=0)
