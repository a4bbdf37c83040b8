"""What ``keep`` may name."""

from typing import Any

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.capturing.reducers import reducers
from tests.models import ids, tiny


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
        ("map", LookupError, "known: maps, statistics, topk, rollout, evolution, vectors"),
        (3, LookupError, "known: maps, statistics, topk, rollout, evolution, vectors"),
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
