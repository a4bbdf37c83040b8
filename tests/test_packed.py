"""Packed rows: what comes back, what it takes, and what is refused."""

import pytest
import torch

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.packed import PackedRows

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def weights(*sizes: int, looks: str = "back", dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    scores = 3 * torch.randn(sizes, generator=torch.Generator().manual_seed(seed))
    queries, keys = sizes[-2:]
    place, row = torch.arange(keys), torch.arange(keys - queries, keys)[:, None]
    hidden = {"back": place > row, "window": (place > row) | (place < row - 9), "anywhere": (place < 0).expand(1, -1)}
    return scores.masked_fill(hidden[looks], float("-inf")).softmax(-1).to(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("looks", ["back", "window", "anywhere"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 5, 5), (3, 128, 128), (2, 129, 140), (2, 2, 300, 300)], ids=str)
def test_what_is_unpacked_is_the_nearest_float16(sizes: tuple[int, ...], looks: str, dtype: torch.dtype) -> None:
    whole = weights(*sizes, looks=looks, dtype=dtype)
    packed = PackedRows.of(whole)
    back = packed.unpacked()
    assert packed.shape == whole.shape == back.shape and back.dtype == whole.dtype
    assert torch.equal(back, whole.half().to(dtype))


def test_what_is_given_back_is_as_near_as_told() -> None:
    whole = weights(4, 200, 200, dtype=torch.float64)
    off = (PackedRows.of(whole).unpacked() - whole).abs()
    assert bool((off <= torch.maximum(whole * 2**-11, torch.tensor(3e-8))).all()) and float(off.max()) > 0


@pytest.mark.parametrize(("tokens", "share"), [(1024, 0.28125), (512, 0.3125), (128, 0.5)])
def test_a_causal_map_takes_about_a_quarter(tokens: int, share: float) -> None:
    """Half of the places and 64 keys more a row, in half of the bytes."""
    whole = weights(1, tokens, tokens).clamp_min(1e-4).tril()
    packed = PackedRows.of(whole)
    assert packed.nbytes == whole.nbytes * share == 2 * (tokens**2 // 2 + 64 * tokens)
    held = sum(block.untyped_storage().nbytes() for block in packed.blocks)
    assert held == packed.nbytes  # no block is a view that keeps the whole map


def test_a_window_takes_its_own_width_only() -> None:
    whole = weights(2, 1024, 1024, looks="window").clamp_min(1e-4)
    whole = torch.where(weights(2, 1024, 1024, looks="window") > 0, whole, 0)
    assert PackedRows.of(whole).nbytes <= 2 * 1024 * 2 * (128 + 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_the_map_that_was_packed_is_not_held(dtype: torch.dtype) -> None:
    whole = weights(2, 300, 300, looks="anywhere", dtype=dtype)
    packed = PackedRows.of(whole)
    before = packed.unpacked()
    whole.zero_()
    assert torch.equal(packed.unpacked(), before)


def test_rows_without_weight_and_undefined_ones_come_back() -> None:
    whole = weights(2, 300, 300)
    whole[:, :140] = 0
    whole[1, 200] = torch.nan
    packed = PackedRows.of(whole)
    assert packed.blocks[0].shape == (2, 128, 0)
    assert torch.equal(packed.unpacked().nan_to_num(7), whole.half().float().nan_to_num(7))


@pytest.mark.parametrize("seed", range(5))
def test_cutting_is_cutting_the_whole(seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    whole = weights(2, 150, 290, looks=["back", "window", "anywhere"][seed % 3], seed=seed)
    rows = torch.randperm(150, generator=chance)[: 20 + 30 * seed].tolist()
    keys = torch.randperm(290, generator=chance)[: 200 + seed].sort().values.tolist()
    packed, half = PackedRows.of(whole), whole.half().float()
    assert torch.equal(packed.rows(rows), half[:, rows])
    assert torch.equal(packed.cut(rows).unpacked(), half[:, rows])
    expected = torch.nn.functional.pad(half[:, rows][..., keys], (seed, 0))
    cut = packed.cut(rows, keys, before=seed)
    assert cut.keys == len(keys) + seed and torch.equal(cut.unpacked(), expected)
    assert torch.equal(packed.cut().unpacked(), half) and packed.cut().nbytes == packed.nbytes


def test_parts_are_joined_over_the_most_keys_and_a_batch_is_taken_apart() -> None:
    first, second = weights(2, 3, 130, 130), weights(2, 3, 2, 135, seed=1)
    both = PackedRows.joined([PackedRows.of(first), PackedRows.of(second)])
    expected = torch.cat([torch.nn.functional.pad(first, (0, 5)), second], -2).half().float()
    assert both.shape == (2, 3, 132, 135) and torch.equal(both.unpacked(), expected)
    assert torch.equal(both.alone(1).unpacked(), expected[1])
    assert [(row, start) for row, start, _ in both.tiles()] == [(0, 0), (128, 0), (130, 0)]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ArgumentError, match="float16 can hold, got 1e\\+05"):
        PackedRows.of(torch.full((1, 2, 2), 1e5))
    assert PackedRows.of(torch.full((1, 1, 2), torch.inf)).unpacked().isinf().all()
    for nothing in (torch.ones(1, 2, 2, dtype=torch.int64), torch.ones(2), torch.ones(1, 0, 2)):
        with pytest.raises(ShapeError, match="expected weights"):
            PackedRows.of(nothing)
    block = torch.ones(1, 2, 3, dtype=torch.float16)
    PackedRows((block,), (2,), 5)
    for blocks, starts, keys in [((block,), (3,), 5), ((block,), (-1,), 5), ((block.float(),), (0,), 5)]:
        with pytest.raises(ShapeError, match="within 5 keys"):
            PackedRows(blocks, starts, keys)
    for blocks, starts in [((), ()), ((block,), ())]:
        with pytest.raises(ShapeError, match="a start each"):
            PackedRows(blocks, starts, 5)
    with pytest.raises(ShapeError, match="within 5 keys"):
        PackedRows((block, block[0]), (0, 0), 5)
    with pytest.raises(ShapeError, match="at least one row"):
        PackedRows((block,), (0,), 5).cut([])
    for place in (-1, 2):
        with pytest.raises(ArgumentError, match="rows from 0 to 1"):
            PackedRows((block,), (0,), 5).rows([place])
