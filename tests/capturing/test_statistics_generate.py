"""keep="statistics" while tokens are put out: every cache, search and way to read a prompt, against the maps joined."""

from typing import Any

import pytest
import torch
import transformers
from transformers import DynamicCache, StaticCache

import hf_attnviz as av
from tests.capturing.statistics_ways import PROMISE, assert_those_of_maps, by_tiles, held_against_maps, recorded
from tests.capturing.test_ways_drafts import NEAR
from tests.capturing.ways import decoder
from tests.models import ids, padded, tiny
from tests.reducing.reference import of_map, off

NAMES = ["gpt2", "llama", "mistral", "gemma3"]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "num_return_sequences": 3, "top_k": 0},
    "beams": {"num_beams": 4, "num_return_sequences": 2},
    "long beams": {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 2.0, "early_stopping": "never"},
    "no cache": {"use_cache": False},
    "beams without a cache": {"use_cache": False, "num_beams": 3},
    "static": {"cache_implementation": "static"},
    "static beams": {"cache_implementation": "static", "num_beams": 3},
    "chunks": {"prefill_chunk_size": 7},
    "guidance": {"guidance_scale": 1.5},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_generations_are_joined_like_rows(name: str, way: str) -> None:
    model = decoder(name)
    model.generation_config.eos_token_id = 2  # rows end at different steps
    options = {"max_new_tokens": 6, "do_sample": False} | WAYS[way]
    inputs = padded([24, 9], "left")
    held_against_maps(model, lambda: model.generate(**inputs, **options), "tiles")


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("way", ["greedy", "beams", "no cache"])
def test_encoder_decoders(name: str, way: str, backend: str) -> None:
    model, inputs = tiny(name, backend), padded([24, 9], "right")
    options = {"max_new_tokens": 6, "do_sample": False} | WAYS[way]
    held_against_maps(model, lambda: model.generate(**inputs, **options), "tiles" if backend == "sdpa" else "slow")


def test_quantised_keys_are_those_that_the_kernel_read() -> None:
    model = decoder("llama")
    options = {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}, "max_new_tokens": 6}
    held_against_maps(model, lambda: model.generate(ids(1, 20), do_sample=False, **options), "tiles")


@pytest.mark.parametrize("cache", [DynamicCache, StaticCache])
def test_forwards_that_go_on_with_a_cache(cache: Any) -> None:
    model = decoder("llama")

    def run() -> Any:
        kept = cache(config=model.config, **({"max_cache_len": 48} if cache is StaticCache else {}))
        with torch.no_grad():
            return [model(part, past_key_values=kept).logits for part in ids(2, 40).split([25, 1, 1, 13], dim=1)]

    found = held_against_maps(model, run, "tiles")
    assert len(found.runs) == 1


def assisted(name: str) -> tuple[Any, dict[str, Any]]:
    model = decoder(name)
    prompt = torch.cat([ids(1, 8)] * 3, dim=1)
    near = decoder(name, noise=NEAR[name])
    return model, {"inputs": prompt, "assistant_model": near, "max_new_tokens": 12, "do_sample": False}


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_drafts_that_were_rejected_leave_no_rows_and_no_sums(name: str) -> None:
    model, options = assisted(name)

    def run() -> Any:
        return model.generate(**options)

    plain = run()
    _, maps = recorded(model, run, "maps")
    output, found = recorded(model, run)
    assert torch.equal(output, plain) and by_tiles(found) == {"tiles"}
    read = sum(one.side.new or 0 for one in found.runs[0].forwards)
    assert read > len(found.trace.decoder.keys)  # some were rejected, or this says nothing
    for one, other in zip(maps.trace.maps, found.trace.maps, strict=True):
        expected = of_map(one.weights, one.positions)
        for value in ("entropy", "distance", "sink"):
            assert off(other.statistics[value], expected[value]) <= PROMISE
        assert "received" not in other.statistics and not hasattr(other.statistics, "received")
        with pytest.raises(av.errors.UnknownValueError, match="'received' cannot be told.*rejected.*keep maps"):
            other.statistics.received  # noqa: B018 - the look-up is the test


def test_drafts_that_were_all_right_are_received(tmp_path: Any) -> None:
    model = decoder("gpt2")
    prompt = torch.cat([ids(1, 8)] * 3, dim=1)
    options = {"assistant_model": model, "max_new_tokens": 6, "do_sample": False, "num_assistant_tokens": 5}
    _, maps = recorded(model, lambda: model.generate(prompt, **options), "maps")
    _, found = recorded(model, lambda: model.generate(prompt, **options))
    read = sum(one.side.new or 0 for one in found.runs[0].forwards)
    assert read == len(found.trace.decoder.keys)
    assert_those_of_maps(maps, found)


def test_what_is_lost_is_told_after_saving_too(tmp_path: Any) -> None:
    model, options = assisted("gpt2")
    _, found = recorded(model, lambda: model.generate(**options))
    found.trace.save(tmp_path / "trace.safetensors")
    again = av.load(tmp_path / "trace.safetensors").maps[0].statistics
    assert torch.equal(again.entropy, found.trace.maps[0].statistics.entropy)
    with pytest.raises(av.errors.UnknownValueError, match="rejected"):
        again.received  # noqa: B018 - the look-up is the test


def test_pipelines() -> None:
    from tests.capturing.extra_models import word_piece

    texts = ["the cat sat on the mat because it was tired of all the dogs and birds and fish", "a dog"]
    pipe = transformers.pipeline("text-classification", model=tiny("bert_classifier"), tokenizer=word_piece())
    plain = pipe(texts, batch_size=2)
    with av.capture(pipe) as maps:
        pipe(texts, batch_size=2)
    with av.capture(pipe, keep="statistics") as found:
        assert pipe(texts, batch_size=2) == plain
    assert by_tiles(found) == {"tiles"}
    assert_those_of_maps(maps, found)


def test_rows_and_statistics_beside_one_another() -> None:
    """Chosen rows bring their own numbers; what keys receive is of all rows."""
    model, tokens = tiny("gpt2"), ids(1, 40)
    with torch.no_grad():
        _, whole = recorded(model, lambda: model(tokens))
        _, found = recorded(model, lambda: model(tokens), ["statistics", av.Rows([0, -1])])
    for one, other in zip(whole.trace.maps, found.trace.maps, strict=True):
        torch.testing.assert_close(other.statistics.entropy, one.statistics.entropy[:, [0, 39]])
        torch.testing.assert_close(other.statistics.received, one.statistics.received)
        assert other.weights.shape == (4, 2, 40)
