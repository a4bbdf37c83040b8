"""The pass over tiles, in numba and in PyTorch, against loops in float64: every kind of call, and the laws."""

from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_attnviz.errors import NotUnderstoodError
from hf_attnviz.reducing import passes, sweep
from hf_attnviz.reducing.keeping import over_tiles, over_weights
from hf_attnviz.reducing.ran import Ran
from hf_attnviz.reducing.statistics import AXES, Statistics, sums_of
from hf_attnviz.reducing.topk import TopK
from tests.reducing.calls import CALLS, Call, added, call, kernel, padded, standing, the, vectors
from tests.reducing.reference import off, statistics

PROMISE = 1e-4  # times max(1, |x|)
TIGHT = 1e-5  # what float32 gives, as long as scores are no hundreds
LOOSER = {"scores of a hundred"}
PASSES = {"torch": passes.pure} | ({"numba": nullcontext} if find_spec("numba") else {})
FASTEST = list(PASSES)[-1]
every_call = pytest.mark.parametrize("name", CALLS)
every_pass = pytest.mark.parametrize("way", PASSES)
quick = settings(max_examples=25, deadline=None, derandomize=True)


def tiled(one: Call, way: str = FASTEST, *beside: Any, ran: Ran | None = None) -> dict[str, Any]:
    with PASSES[way]():
        return over_tiles([Statistics(), *beside], one.ran if ran is None else ran, one.places, {})


def assert_true(found: Any, one: Call, bound: float) -> None:
    assert tuple(found) == tuple(AXES)
    for name, wanted in one.statistics.items():
        assert off(found[name], wanted) <= bound, name


@every_pass
@pytest.mark.parametrize("lse", ["the kernel's", "its own"])
@every_call
def test_sums_alone(name: str, lse: str, way: str) -> None:
    one = the(name)
    ran = one.ran if lse == "the kernel's" else one.hiding
    assert_true(tiled(one, way, ran=ran)["statistics"], one, PROMISE if name in LOOSER else TIGHT)


@every_pass
@pytest.mark.parametrize("lse", ["the kernel's", "its own"])
@every_call
def test_weights_and_sums(name: str, lse: str, way: str) -> None:
    one = the(name)
    ran = one.ran if lse == "the kernel's" else one.hiding
    weights, counts = torch.zeros(one.ran.shape), torch.zeros(one.ran.shape[0], one.ran.shape[2])
    with PASSES[way]():
        for tile in sweep.sweep(ran, one.places, weights=True):
            if tile.given is None:
                weights[tile.batch, :, tile.rows, tile.keys] = tile.weights
                counts[tile.batch, tile.rows] += 1
            else:
                assert_true(Statistics().result(tile.given), one, PROMISE if name in LOOSER else TIGHT)
    assert float(counts.max()) == 1  # each row once; those that are padding, or see nothing, may be left out
    real = (one.places.queries >= 0)[:, None, :, None]
    assert off(weights.masked_fill(~real, 0), one.weights * real.numpy()) <= (PROMISE if name in LOOSER else TIGHT)


@every_call
def test_chosen_rows(name: str) -> None:
    one = the(name)
    rows = torch.tensor(sorted({0, one.ran.shape[2] // 2, one.ran.shape[2] - 1}))
    for ran in (one.ran, one.hiding):
        tile = sweep.chosen(ran, one.places, rows)
        assert off(tile.weights, one.weights[:, :, rows.numpy()]) <= (PROMISE if name in LOOSER else TIGHT)
        assert torch.equal(tile.positions, one.places.queries[:, rows])


@every_call
def test_the_slow_way_gives_the_same(name: str) -> None:
    one = the(name)
    weights = torch.from_numpy(one.weights).float()
    slow = over_weights([Statistics()], weights, one.places, {})["statistics"]
    assert_true(slow, one, TIGHT)
    fast = tiled(one)["statistics"]
    for value in AXES:
        assert off(fast[value], slow[value].double().numpy()) <= (PROMISE if name in LOOSER else TIGHT)


def test_rows_that_may_look_at_nothing_are_undefined_the_slow_way_too() -> None:
    one = the("rows that may look at nothing, the lowest number")
    weights = torch.from_numpy(one.weights).float()
    weights[:, :, [0, 5, 139]] = 1 / 140  # what an eager function makes of them
    seen = (one.ran.mask > sweep.LOWEST).any(-1)
    slow = over_weights([Statistics(), TopK(2)], weights, one.places, {}, attending=seen)
    assert_true(slow["statistics"], one, TIGHT)
    assert bool((slow["topk"].keys[:, :, [0, 5, 139]] == -1).all())


@every_pass
@pytest.mark.parametrize("name", ["causal", "a window", "left padding", "shared keys", "a bias of each head"])
@pytest.mark.parametrize("height", [1, 16, 64, 128, 1000])
def test_how_high_a_tile_is_changes_nothing(name: str, height: int, way: str, monkeypatch: Any) -> None:
    one = the(name)
    monkeypatch.setattr(sweep, "ROWS", height)
    assert_true(tiled(one, way)["statistics"], one, TIGHT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("keys", "sharp"), [(17, 0.3), (64, 4.0), (512, 1.0), (1024, 0.3), (4096, 1.0)])
def test_half_precision_keeps_the_promise_by_tiles(dtype: torch.dtype, keys: int, sharp: float) -> None:
    """The kernel's own sum of exp is off by up to 7e-5 there, and rows are divided by what they sum to."""
    one = call(min(keys, 96), keys, dtype=dtype, size=64, sharp=sharp)
    assert_true(tiled(one)["statistics"], one, TIGHT)


@pytest.mark.parametrize("sharp", [100.0, 300.0])
@every_pass
def test_scores_of_hundreds_go_by_tiles(sharp: float, way: str) -> None:
    """float32 has scores of hundreds to some 1e-5, and so what any float32 softmax makes of them."""
    one = call(300, size=64, sharp=sharp, causal=True)
    assert one.scores[abs(one.scores) < 1e30].max() > 4 * sharp
    found = tiled(one, way)["statistics"]
    known = torch.softmax(torch.from_numpy(one.scores).float(), -1)  # scores exact, and only then rounded
    far = max(off(sums_of(known, one.places).entropy, one.statistics["entropy"]), 1e-5)
    assert off(found.entropy, one.statistics["entropy"]) <= 10 * far


def test_a_kernel_that_did_something_else_is_not_understood() -> None:
    one = the("causal")
    assert one.ran.lse is not None
    for other in (replace(one.ran, lse=one.ran.lse + 0.01), replace(one.ran, scale=one.ran.scale * 1.1)):
        with pytest.raises(NotUnderstoodError, match="sum to something else than one"):
            tiled(one, ran=other)
    with pytest.raises(NotUnderstoodError, match="sum to something else than one"):
        tiled(one, ran=replace(one.ran, causal=False))


@pytest.mark.parametrize("mask", [None, "gentle"])
def test_keys_that_are_padding_and_looked_at_are_not_understood(mask: str | None) -> None:
    real = padded([20, 9], 20, "left")
    seen = real[:, None, None, :].expand(-1, 1, 20, -1)
    one = call(20, batch=2, mask=None if mask is None else added(seen, -5.0), places=standing(2, 20, 20, real=real))
    with pytest.raises(NotUnderstoodError, match="padding"):
        tiled(one)


def test_rows_that_a_later_pass_reads_again_are_not_received() -> None:
    one = the("causal")
    counted = torch.arange(300)[None] >= 250
    again = replace(one, places=replace(one.places, counted=counted))
    found = tiled(again)["statistics"]
    assert_true(found, again, TIGHT)
    assert float(found.received.sum()) == pytest.approx(2 * 50, rel=1e-5)


def test_an_evicted_first_key_weighs_nothing() -> None:
    one = call(4, 30, mask=None)
    places = replace(one.places, keys=one.places.keys + 7, queries=one.places.queries + 7)
    found = tiled(replace(one, places=places))["statistics"]
    assert_true(found, replace(one, places=places), TIGHT)
    assert float(found.sink.abs().max()) == 0


def test_what_is_kept_beside_changes_nothing() -> None:
    one = the("shared keys")
    alone, beside = tiled(one), tiled(one, FASTEST, TopK(3))
    for name in AXES:
        torch.testing.assert_close(alone["statistics"][name], beside["statistics"][name], atol=2e-6, rtol=2e-6)


@st.composite
def calls(draw: Any) -> Call:
    queries, more = draw(st.integers(1, 150)), draw(st.sampled_from([0, 0, 1, 40]))
    causal = more == 0 and draw(st.booleans())
    group = draw(st.sampled_from([1, 2]))
    return call(
        queries, queries + more, causal=causal, batch=draw(st.integers(1, 2)), heads=2 * group, group=group,
        size=draw(st.sampled_from([1, 3, 8])), sharp=draw(st.sampled_from([0.0, 0.3, 1.0, 5.0])),
        seed=draw(st.integers(0, 10**6)), lies=draw(st.sampled_from(["whole", "turned", "holes"])),
    )  # fmt: skip


@quick
@given(calls(), st.sampled_from(list(PASSES)))
def test_any_call_is_what_loops_make_of_it(one: Call, way: str) -> None:
    found = tiled(one, way)["statistics"]
    assert_true(found, one, 2e-5)
    rows, keys = one.ran.shape[2:]
    torch.testing.assert_close(found.received.sum(-1), torch.full(one.ran.shape[:2], float(rows)), rtol=1e-5, atol=1e-5)
    assert float(found.entropy.min()) >= 0 and float(found.entropy.max()) <= torch.tensor(keys).log() + 1e-5
    assert float(found.sink.min()) >= 0 and float(found.sink.max()) <= 1 + 1e-5


@quick
@given(calls(), st.randoms(use_true_random=False))
def test_heads_in_another_order_are_the_same_in_another_order(one: Call, chance: Any) -> None:
    order = list(range(one.ran.shape[1]))
    chance.shuffle(order)
    each = one.ran.group
    wide = {name: getattr(one.ran, name).repeat_interleave(each, 1)[:, order] for name in ("key", "value")}
    query, lse = one.ran.query[:, order], one.ran.lse
    assert lse is not None
    turned = replace(one.ran, query=query, lse=lse[:, order], output=one.ran.output[:, :, order], **wide)
    plain, other = tiled(one)["statistics"], tiled(one, ran=turned)["statistics"]
    for name in AXES:
        torch.testing.assert_close(other[name], plain[name][:, order], atol=2e-5, rtol=2e-5)


@quick
@given(st.integers(1, 140), st.integers(1, 140), st.sampled_from(["left", "right"]), st.sampled_from(list(PASSES)))
def test_padding_changes_nothing(length: int, more: int, side: str, way: str) -> None:
    size = length + more
    real = padded([length], size, side)
    seen = (real[:, None, :] & real[:, :, None])[:, None].tril()
    padding = call(size, mask=seen, places=standing(1, size, size, real=real))
    at = real[0].nonzero()[:, 0]
    parts = [vectors(1, 2, size, 8, seed=n)[:, :, at] for n in range(3)]
    alone = Call(kernel(*parts, causal=True), standing(1, length, length), padding.scores[:, :, at][..., at])
    found, plain = tiled(padding, way)["statistics"], tiled(alone, way)["statistics"]
    for name in AXES:
        torch.testing.assert_close(found[name][..., at], plain[name], atol=2e-5, rtol=2e-5)
    others = [n for n in range(size) if not bool(real[0, n])]
    assert bool(found.entropy[..., others].isnan().all()) and float(found.received[..., others].abs().sum()) < 1e-30


def test_the_reference_can_be_worked_by_hand() -> None:
    weights = [[[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]]]
    found = statistics(weights, [[0, 1, 2]], [[0, 1, 2]])
    torch.testing.assert_close(
        torch.tensor(found["entropy"][0, 0]), torch.tensor([0, 0.6931471805599453, 1.0397207708399179]).double()
    )
    assert found["distance"].tolist() == [[[0.0, 0.5, 0.75]]] and found["sink"].tolist() == [[[1.0, 0.5, 0.25]]]
    assert found["received"].tolist() == [[[1.75, 0.75, 0.5]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_a_mask_forbids_is_out_of_sight_whatever_number_says_never(dtype: torch.dtype) -> None:
    """Half precision writes -65,504, which is no small number elsewhere."""
    mask = torch.zeros(1, 1, 4, 6, dtype=dtype)
    mask[..., 0] = mask[..., 4:] = torch.finfo(dtype).min
    made = call(4, 6, dtype=dtype, mask=mask)
    assert sweep.spans_of(made.ran, 0, slice(0, 4), slice(0, 6)).tolist() == [[[1, 3]] * 4]
