"""Query and key vectors: their products are the scores of the very map that they stand beside."""

from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from tests.models import ENDS, SMALL, ids, padded, tiny

KEEP = ["maps", av.Vectors()]


def from_vectors(found: AttentionMap) -> torch.Tensor:
    """The softmax of query · key under a causal mask, groups repeated."""
    assert found.query_vectors is not None and found.key_vectors is not None
    keys = found.key_vectors.repeat_interleave(found.heads // len(found.key_vectors), 0)
    scores = found.query_vectors @ keys.mT
    return scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf).softmax(-1)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"use_cache": False}, {"do_sample": True}],
    ids=["greedy", "beams", "none", "sample"],
)
def test_vectors_of_a_generation_give_its_map(name: str, options: dict[str, Any]) -> None:
    model = tiny(name)
    torch.manual_seed(0)
    with av.capture(model, keep=KEEP) as recording:
        model.generate(**padded([6, 4], "left"), max_new_tokens=5, **{"do_sample": False} | options)
    for trace in recording.traces:
        for found in trace.decoder:
            torch.testing.assert_close(from_vectors(found), found.weights, atol=2e-5, rtol=0)


def test_vectors_of_an_earlier_step_do_not_change_later() -> None:
    """A static cache is filled in place; what was kept at the prompt must not fill up with it."""
    model = tiny("llama")
    model.generation_config.eos_token_id = None
    kept = {}
    for cache in ("dynamic", "static"):
        with av.capture(model, keep=KEEP) as recording:
            model.generate(ids(1, 6), max_new_tokens=5, do_sample=False, cache_implementation=cache)
        kept[cache] = recording.calls[0].key
    assert torch.equal(kept["static"][:, :, :6], kept["dynamic"])
    assert not kept["static"][:, :, 6:].any()


def test_vectors_fit_the_map_of_a_sliding_window() -> None:
    config = transformers.MistralConfig(
        **SMALL | {"num_key_value_heads": 2, "sliding_window": 4, "max_position_embeddings": 64}, **ENDS
    )
    model = transformers.MistralForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    with av.capture(model, keep=KEEP) as recording:
        model.generate(ids(1, 6), max_new_tokens=5, do_sample=False)
    for found in recording.trace.decoder:
        assert found.query_vectors is not None
        assert found.query_vectors.shape[1] == found.weights.shape[1]
        assert found.key_vectors is None or found.key_vectors.shape[1] == found.weights.shape[2]
