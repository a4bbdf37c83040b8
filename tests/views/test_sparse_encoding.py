"""What a page holds of a head, read back by a decoder that shares no code with the encoder."""

import base64
import zlib

import numpy as np
import pytest
import torch

from hf_attnviz.views.encoding import packed_bytes
from hf_attnviz.views.sparse_encoding import exact_head, sparse_head, thumbnail
from tests.views.builders import rows

BOUNDS = (0.0, 0.001, 0.004, 0.064)
STEP = 0.004  # of a byte at most


def read_back(data, queries, keys):
    """The weights that the bytes stand for, and which of them have a byte of their own."""
    spans = np.frombuffer(data, "<u2", 2 * queries).reshape(2, queries).astype(np.uint32)
    starts, stops = np.cumsum(spans, axis=1) % 65536
    stretches, place = (keys + 63) // 64, 4 * queries
    means = np.frombuffer(data, np.uint8, stretches * queries, place).reshape(stretches, queries)
    place += stretches * queries
    bits = np.frombuffer(data, np.uint8, (queries * keys + 7) // 8, place)
    own = np.unpackbits(bits)[: queries * keys].reshape(keys, queries).astype(bool)
    codes = iter(data[place + len(bits) :])
    shown = np.zeros((queries, keys))
    for key in range(keys):
        for query in range(queries):
            if starts[query] == 65535:
                shown[query, key] = np.nan
            elif own[key, query]:
                shown[query, key] = (next(codes) / 255) ** 2
            elif starts[query] <= key < stops[query]:
                shown[query, key] = (int(means[key // 64, query]) / 255) ** 2
    assert next(codes, None) is None
    return shown, own.T


def every_kind():
    make = np.random.default_rng(0)
    one_hot = np.zeros((70, 130), np.float32)
    one_hot[np.arange(70), make.integers(0, 130, 70)] = 1
    undefined = rows(1, 40, 100, 1)[0].numpy()
    undefined[[0, 7, 39]] = np.nan
    masked = rows(1, 40, 100, 2)[0].numpy()
    masked[5] = 0
    window = np.triu(np.tril(np.ones((150, 150), np.float32)), -20)
    return {
        "uniform": np.full((33, 1000), 1 / 1000, np.float32),
        "one hot": one_hot,
        "causal": rows(1, 128, 128, 3, causal=True)[0].numpy(),
        "flat": rows(1, 100, 300, 4, sharp=0.2)[0].numpy(),
        "sharp": rows(1, 100, 300, 5, sharp=6)[0].numpy(),
        "undefined": undefined,
        "masked": masked,
        "window": window / window.sum(1, keepdims=True),
        "all undefined": np.full((3, 5), np.nan, np.float32),
        "one weight": np.ones((1, 1), np.float32),
        "a single query": rows(1, 1, 65, 6)[0].numpy(),
        "a hole before the last key": np.array([[0.5, *[0.0] * 98, 0.5]], np.float32),
    }


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("kind", every_kind())
def test_no_weight_is_further_off_than_the_page_says(kind, bound):
    weights = every_kind()[kind]
    shown, own = read_back(sparse_head(weights, bound), *weights.shape)
    np.testing.assert_array_equal(np.isnan(shown), np.isnan(weights))
    error = np.abs(np.nan_to_num(shown).astype(np.float64) - np.nan_to_num(weights))
    assert error[own].max(initial=0) <= STEP
    assert error[~own].max(initial=0) <= bound


def test_where_the_bound_ends_a_weight_gets_a_byte():
    """Just within and just beyond the bound around the mean of the others."""
    weights = np.zeros((1, 64), np.float32)
    weights[0, ::2] = np.float32(0.004) * np.array([1.9, 2.1] * 16, np.float32)
    shown, own = read_back(sparse_head(weights, 0.004), 1, 64)
    assert np.abs(shown - weights)[~own].max() <= 0.004
    assert 0 < own.sum() < 64


def test_with_a_bound_of_zero_every_weight_has_a_byte_of_its_own():
    weights = rows(1, 60, 90, 0)[0].numpy()
    shown, own = read_back(sparse_head(weights, 0.0), 60, 90)
    np.testing.assert_allclose(shown, (np.rint(np.sqrt(weights) * 255) / 255) ** 2, rtol=1e-6)
    assert (own | (weights < 1e-5)).all()


def test_rows_still_sum_to_one_and_what_is_even_stays_even():
    for kind in ("uniform", "flat", "causal", "window"):
        weights = every_kind()[kind]
        shown, _ = read_back(sparse_head(weights, 0.004), *weights.shape)
        assert np.abs(shown.sum(1) - 1).max() < 0.08, kind
    even = read_back(sparse_head(every_kind()["uniform"], 0.004), 33, 1000)[0]
    assert even.min() == even.max() > 0


def test_beyond_the_diagonal_nothing_is_shown():
    weights = rows(1, 128, 128, 3, causal=True, sharp=0.5)[0].numpy()
    shown, own = read_back(sparse_head(weights, 0.064), 128, 128)
    assert shown[np.triu_indices(128, 1)].max() == 0
    assert not own[np.triu_indices(128, 1)].any()


def test_few_weights_that_stand_out_take_few_bytes():
    weights = every_kind()["one hot"]
    assert len(packed_bytes(sparse_head(weights, 0.004))) < weights.size / 15
    packed = packed_bytes(sparse_head(weights, 0.004))
    assert zlib.decompress(base64.b64decode(packed)) == sparse_head(weights, 0.004)


def test_exact_weights_are_those_of_half_precision():
    weights = every_kind()["undefined"]
    data = np.frombuffer(exact_head(weights), np.uint8).reshape(2, -1).astype(np.uint16)
    halves = ((data[0] << 8) | data[1]).view(np.float16).reshape(100, 40).T
    np.testing.assert_array_equal(halves, weights.astype(np.float16))


@pytest.mark.parametrize("shape", [(3, 5), (64, 64), (130, 1000)])
def test_a_thumbnail_is_the_share_of_each_block(shape):
    weights = rows(1, *shape, 0)[0].numpy()
    weights[1] = np.nan
    high, wide = (-(-size // 64) for size in shape)
    found = thumbnail(weights)
    assert found.shape == (-(-shape[0] // high), -(-shape[1] // wide))
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            block = weights[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            shares = [float(one.sum()) for one in block if not np.isnan(one).any()]
            expected = 255 if not shares else round(254 * (sum(shares) / len(shares)) ** 0.5)
            assert abs(int(found[row, column]) - expected) <= 1
            assert (found[row, column] == 255) == (not shares)


def test_a_page_gets_coarser_only_where_it_must():
    from hf_attnviz.views.groups import groups
    from hf_attnviz.views.head_grid_data import fitted
    from tests.views.builders import self_trace

    found = groups(self_trace([str(n) for n in range(100)]), None)
    sizes = {}
    for small, most in ((10**9, 10**9), (30_000, 10**9), (0, 10**9), (0, 15_000), (0, 10)):
        bound, heads = fitted(found, small=small, most=most)
        sizes[bound] = sum(map(len, heads[0]))
        assert len(heads[0]) == 6
    assert list(sizes) == sorted(sizes) and list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert min(sizes) == 0 and 0.004 in sizes and max(sizes) == 1


def test_weights_of_any_precision():
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        weights = rows(1, 20, 20, 0)[0].to(dtype)
        shown, _ = read_back(sparse_head(weights.float().numpy(), 0.0), 20, 20)
        assert np.abs(shown - weights.double().numpy()).max() <= STEP
