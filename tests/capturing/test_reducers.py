"""Reducers: a call seen in tiles, or in two halves that merge, gives what the whole call gives."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_attnviz as av
from hf_attnviz.capturing.reducers import KeptRows, Reducer, Tile, reduced, reducers
from tests.models import ids, tiny


def tile(weights: torch.Tensor, positions: torch.Tensor, vectors: dict[str, torch.Tensor], rows: slice) -> Tile:
    lengths = positions.max(1).values + 1
    part = {name: vector[:, :, rows] if name == "query" else vector for name, vector in vectors.items()}
    return Tile(weights[:, :, rows], positions[:, rows], lengths, part)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, KeptRows):
        one, other = vars(one), vars(other)
    assert list(one) == list(other)
    return all(torch.equal(one[name].nan_to_num(-1), other[name].nan_to_num(-1)) for name in one)


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(2, 9),
    cut=st.integers(1, 8),
    wanted=st.lists(st.integers(-9, 8), min_size=1, max_size=4),
    padding=st.integers(0, 3),
)
def test_tiles_and_halves_give_what_the_whole_gives(length: int, cut: int, wanted: list[int], padding: int) -> None:
    cut = min(cut, length - 1)
    weights = torch.rand(2, 3, length, length)
    positions = torch.stack([torch.arange(length), torch.arange(length) - min(padding, length - 1)]).clamp_min(-1)
    vectors = {name: torch.rand(2, 3, length, 4) for name in ("query", "key", "value")}
    whole = tile(weights, positions, vectors, slice(None))
    halves = [tile(weights, positions, vectors, slice(0, cut)), tile(weights, positions, vectors, slice(cut, None))]
    reducer: Reducer[Any]
    for reducer in (av.Maps(), av.Rows(wanted), av.Vectors()):
        expected = reduced(reducer, [whole])
        merged = reducer.result(reducer.merge(*(reducer.update(None, half) for half in halves)))
        for found in (reduced(reducer, halves), merged):
            if isinstance(reducer, av.Rows):  # tiles keep the rows in the order of the sequence
                assert same(ordered(found), ordered(expected))
            else:
                assert same(found, expected)


def ordered(kept: KeptRows) -> dict[str, torch.Tensor]:
    """For each sequence its rows by position."""
    rows = {}
    for batch in range(len(kept.positions)):
        for place, position in enumerate(kept.positions[batch].tolist()):
            if position >= 0:
                rows[f"{batch}.{position}"] = kept.weights[batch, :, place]
    return dict(sorted(rows.items()))


def test_maps_in_another_type() -> None:
    model = tiny("gpt2")
    with av.capture(model, keep=av.Maps(dtype=torch.float16)) as recording:
        model(ids(1, 5))
    assert recording.calls[0].weights.dtype == torch.float16


def test_vectors_alone_keep_no_maps() -> None:
    model = tiny("gpt2")
    with av.capture(model, keep="vectors") as recording:
        model(ids(1, 5))
    assert recording.calls[0].query.shape == (1, 4, 5, 8)
    with pytest.raises(av.errors.NotKeptError, match='keep="maps"'):
        recording.calls[0].weights  # noqa: B018


@pytest.mark.parametrize(
    ("keep", "error", "words"),
    [
        ("map", LookupError, "known: maps, vectors"),
        (3, LookupError, "known: maps, vectors"),
        ([], ValueError, "nothing to keep"),
        (["maps", av.Rows([0])], ValueError, "twice"),
    ],
)
def test_what_cannot_be_kept_is_told(keep: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        reducers(keep)


@pytest.mark.parametrize("layers", [1, "1", [1.5], []])
def test_layers_must_be_a_list_of_numbers(layers: Any) -> None:
    with pytest.raises(av.errors.AttnvizError, match="layers="):
        av.capture(tiny("gpt2"), layers=layers)


@pytest.mark.parametrize("queries", [3, "1", [0.5], []])
def test_queries_must_be_a_list_of_numbers(queries: Any) -> None:
    with pytest.raises(av.errors.ArgumentError, match="Rows"):
        av.capture(tiny("gpt2"), queries=queries)


def test_a_row_that_does_not_exist_is_told() -> None:
    model = tiny("gpt2")
    with av.capture(model, queries=[100]) as recording:
        model(ids(1, 5))
    with pytest.raises(av.errors.NotKeptError, match="0 to 4"):
        recording.trace  # noqa: B018
