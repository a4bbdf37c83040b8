"""Norms and ALTI of layers made at random, against loops that make every vector; and the laws that they obey."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional import alti, alti_rollout, value_norms
from hf_attnviz.functional import parts as taking
from tests.functional import reference_norms
from tests.functional.stacks import close, quick

TOLERANCES = {torch.float64: 1e-8, torch.float32: 2e-5}


@dataclass(frozen=True)
class Layer:
    """One attention layer: the arguments of `value_norms`, in float64."""

    attention: torch.Tensor
    hidden: torch.Tensor
    w_v: torch.Tensor
    b_v: torch.Tensor | None
    w_o: torch.Tensor
    more: dict = field(default_factory=dict)

    def of(self, function, dtype=torch.float64):
        return function(*(cast(one, dtype) for one in (self.attention, self.hidden, self.w_v, self.b_v, self.w_o)),
                        **{name: cast(one, dtype) for name, one in self.more.items()})  # fmt: skip

    def reference(self, example):
        more = {name: plain(one) for name, one in self.more.items()}
        if more.get("residual") is not None:
            more["residual"] = more["residual"][example]
        given = (self.attention[example], self.hidden[example], self.w_v, self.b_v, self.w_o)
        return reference_norms.layer(*map(plain, given), **more)


def cast(one, dtype):
    if isinstance(one, tuple):
        return tuple(cast(part, dtype) for part in one)
    return one.to(dtype) if isinstance(one, torch.Tensor) and one.is_floating_point() else one


def plain(one):
    if isinstance(one, tuple):
        return tuple(map(plain, one))
    return one.tolist() if isinstance(one, torch.Tensor) else one


@st.composite
def layers(draw, *, crossed=None, queries=None, post=None):
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def random(*shape):
        return torch.from_numpy(generator.normal(size=shape))

    batch, shared, group = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    size, width, keys = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(1, 5))
    heads, read = shared * group, draw(st.integers(1, 4))
    cross = draw(st.booleans()) if crossed is None else crossed
    rows = draw(st.integers(1, 4)) if cross else keys
    scores = random(batch, heads, rows, keys) * 2
    if not cross and draw(st.booleans()):
        scores = scores.masked_fill(torch.ones(keys, keys).triu(1).bool(), -torch.inf)
    maybe = lambda tensor: tensor if draw(st.booleans()) else None  # noqa: E731
    more = {"b_o": maybe(random(width)), "residual": maybe(random(batch, rows, width)), "rms": draw(st.booleans())}
    if post or (post is None and draw(st.booleans())):
        more["layer_norm"] = (random(width), maybe(random(width)), draw(st.sampled_from([1e-5, 0.1])))
    if cross:
        more["positions"] = torch.full((rows,), -1)
    return Layer(
        scores.softmax(-1), random(batch, keys, read), random(read, shared * size), maybe(random(shared * size)),
        random(heads * size, width), more,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(layers())
def test_norms_match_the_reference(dtype, layer):
    found = layer.of(value_norms, dtype)
    expected = [layer.reference(n)[0] for n in range(len(layer.attention))]
    assert set(found) == set(expected[0])
    for name, values in found.items():
        assert values.dtype == dtype
        close(values, [one[name] for one in expected], TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(layers())
def test_alti_matches_the_reference(dtype, layer):
    found = layer.of(alti, dtype)
    assert found.dtype == dtype
    expected = np.array([layer.reference(n)[1] for n in range(len(layer.attention))])
    close(found, expected, TOLERANCES[dtype])


@quick
@given(layers(), st.integers(1, 4))
def test_blocks_of_keys_change_nothing(layer, at_once):
    whole = layer.of(value_norms), layer.of(alti)
    before, taking._BLOCK = taking._BLOCK, at_once
    try:
        blocks = layer.of(value_norms), layer.of(alti)
    finally:
        taking._BLOCK = before
    for name, values in whole[0].items():
        close(blocks[0][name], values)
    close(blocks[1], whole[1])


@quick
@given(layers(crossed=False))
def test_alti_of_self_attention_sums_to_one_and_of_cross_attention_leaves_the_residual_its_share(layer):
    sums = layer.of(alti).sum(-1)
    close(sums[~sums.isnan()], torch.ones(int((~sums.isnan()).sum())))
    cross = Layer(layer.attention, layer.hidden, layer.w_v, layer.b_v, layer.w_o,
                  layer.more | {"positions": torch.full(layer.attention.shape[2:3], -1)})  # fmt: skip
    sums = cross.of(alti).sum(-1)
    assert bool((sums.nan_to_num() <= 1 + 1e-9).all())


@quick
@given(layers(), st.randoms(use_true_random=False))
def test_the_order_of_heads_changes_nothing_but_theirs(layer, random):
    heads = layer.attention.shape[1]
    size = layer.w_o.shape[0] // heads
    group = heads // (layer.w_v.shape[1] // size)
    order = list(range(0, heads, group))
    random.shuffle(order)
    shared = [first // group for first in order]
    order = [first + n for first in order for n in range(group)]
    columns = [head * size + n for head in shared for n in range(size)]
    rows = [head * size + n for head in order for n in range(size)]
    other = Layer(
        layer.attention[:, order], layer.hidden, layer.w_v[:, columns],
        None if layer.b_v is None else layer.b_v[columns], layer.w_o[rows], layer.more,
    )  # fmt: skip
    one, two = layer.of(value_norms), other.of(value_norms)
    for name, values in one.items():
        close(two[name], values[:, order] if name in ("value", "weighted") else values, 1e-8)
    close(other.of(alti), layer.of(alti))


def test_a_shared_value_head_serves_neighbours():
    """Heads 0 and 1 read value head 0, heads 2 and 3 value head 1: repeated, not tiled."""
    attention = torch.ones(1, 4, 1, 1)
    found = value_norms(attention, torch.ones(1, 1, 1), torch.tensor([[1.0, 5.0]]), None, torch.ones(4, 1))
    assert found["value"][0, :, 0].tolist() == [1, 1, 5, 5]


def test_parts_that_cancel_have_no_norm():
    """Two heads that move opposite vectors: each is long, together they are nothing."""
    attention, w_o = torch.full((1, 2, 1, 1), 1.0), torch.tensor([[3.0, 4.0], [-3.0, -4.0]])
    found = value_norms(attention, torch.ones(1, 1, 1), torch.ones(1, 2), None, w_o)
    assert found["weighted"][0, :, 0, 0].tolist() == [5, 5]
    assert found["summed"].item() == 0


def test_what_nothing_contributes_to_is_no_number_and_stays_by_itself():
    none = alti(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1), None, torch.ones(1, 1))
    assert none.isnan().all()
    layer = torch.tensor([[[[1.0, 0.0], [torch.nan, torch.nan]]], [[[1.0, 0.0], [0.5, 0.5]]]])
    assert alti_rollout(layer)[1, 0].isnan().tolist() == [[False, False], [True, True]]


def test_rolled_out_alti_is_the_product_of_its_layers():
    layers = torch.rand(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rolled = alti_rollout(layers)
    for example in range(2):
        product = np.eye(4)
        for depth in range(3):
            product = layers[depth, example].numpy() @ product
            close(rolled[depth, example], product)


def test_errors_say_which_size_does_not_fit():
    attention, hidden, square = torch.ones(1, 2, 3, 3) / 3, torch.ones(1, 3, 4), torch.ones(4, 4)
    with pytest.raises(ShapeError, match=r"hidden of shape \(1, 3, 4\), got \(1, 2, 4\)"):
        value_norms(attention, hidden[:, :2], square, None, square)
    with pytest.raises(ShapeError, match="w_o .* for 2 heads"):
        value_norms(attention, hidden, square, None, torch.ones(3, 4))
    with pytest.raises(ShapeError, match="w_v"):
        value_norms(attention, hidden, torch.ones(4, 3), None, square)
    with pytest.raises(ShapeError, match=r"b_o of shape \(4,\), got \(5,\)"):
        alti(attention, hidden, square, None, square, b_o=torch.ones(5))
    with pytest.raises(ShapeError, match="residual of shape"):
        alti(attention, hidden, square, None, square, residual=torch.ones(1, 2, 4))
    with pytest.raises(ShapeError, match="weight of layer_norm"):
        alti(attention, hidden, square, None, square, layer_norm=(torch.ones(3), None, 0.0))
    with pytest.raises(ShapeError, match="2 queries and 3 keys: pass positions"):
        value_norms(attention[:, :, :2], hidden, square, None, square)
    with pytest.raises(ShapeError, match="integer positions"):
        value_norms(attention, hidden, square, None, square, positions=torch.zeros(3))
    with pytest.raises(ArgumentError, match="from -1 to 2"):
        value_norms(attention, hidden, square, None, square, positions=torch.tensor([0, 1, 3]))
