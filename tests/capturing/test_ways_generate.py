"""generate() in its many ways: every cache, every search, guidance, chunks; test_generate.py has the usual ones."""

from typing import Any

import pytest
import torch
import transformers
from transformers import DynamicCache

import hf_attnviz as av
from tests.capturing.test_families import whisper
from tests.capturing.test_generate import without_padding
from tests.capturing.ways import assert_decoder_is_one_pass, assert_sides_are_one_pass, decoder, read
from tests.models import ids, padded, tiny

NAMES = ["llama", "mistral", "gemma3"]
NOTHING = ("mistral", "offloaded_static")
WAYS: dict[str, dict[str, Any]] = {
    "sampling": {"do_sample": True, "num_return_sequences": 3, "top_k": 0},
    "short beams": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": -1.0, "early_stopping": True},
    "long beams": {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 2.0, "early_stopping": "never"},
    "no cache": {"use_cache": False},
    "static": {"cache_implementation": "static"},
    "static beams": {"cache_implementation": "static", "num_beams": 3},
    "chunks": {"prefill_chunk_size": 3},
    "chunks longer than a window": {"prefill_chunk_size": 5},
    "sampled chunks": {"prefill_chunk_size": 2, "do_sample": True},
    "beams over chunks": {"prefill_chunk_size": 3, "num_beams": 3},
    "guidance": {"guidance_scale": 1.5},
    "sampled guidance": {"guidance_scale": 2.0, "do_sample": True},
    "guidance without a cache": {"guidance_scale": 1.5, "use_cache": False},
}


def run(model: Any, inputs: dict[str, torch.Tensor], options: dict[str, Any]) -> tuple[Any, av.Recording]:
    options = {"max_new_tokens": 8, "do_sample": False} | options
    torch.manual_seed(0)
    plain = model.generate(**inputs, **options)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    with av.capture(model) as recording:
        seen = model.generate(**inputs, **options)
    assert torch.equal(seen, plain)
    assert torch.equal(torch.get_rng_state(), after)
    return seen, recording


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, way) for name in NAMES for way in WAYS),
        *(("llama4", way) for way in ("static", "no cache", "chunks", "short beams")),  # keys in chunks, not windows
    ],
)
def test_joined_maps_equal_one_pass(name: str, way: str) -> None:
    """Prompt and new tokens are three windows long, so keys have been dropped; they are columns of zeros."""
    model, reference, inputs = decoder(name), decoder(name, "eager"), padded([7, 4], "left")
    model.generation_config.eos_token_id = 2
    sequences, recording = run(model, inputs, WAYS[way])
    assert [(t.item, t.candidate) for t in recording.traces] == [
        divmod(n, len(sequences) // 2) for n in range(len(sequences))
    ]
    for sequence, trace in zip(sequences.tolist(), recording.traces, strict=True):
        tokens = without_padding(sequence, inputs["attention_mask"][trace.item].tolist(), 7)
        assert_decoder_is_one_pass(trace, reference, tokens[:-1])


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_keys_that_a_window_dropped_are_zero(cache: str, backend: str) -> None:
    model = decoder("mistral", backend)
    _, recording = run(model, {"input_ids": ids(1, 6)}, {"cache_implementation": cache})
    for call in recording.calls:
        assert call.weights.shape[-1] <= 14
    for found in recording.trace.decoder:
        far = torch.arange(13)[:, None] - torch.arange(13) >= 4
        assert not found.weights[:, far].any()
        assert torch.allclose(found.weights.sum(-1), torch.ones(()), atol=1e-5)


def test_the_half_of_guidance_that_is_not_returned_is_no_step() -> None:
    model = decoder("llama")
    _, plain = run(model, {"input_ids": ids(1, 6)}, {})
    _, guided = run(model, {"input_ids": ids(1, 6)}, {"guidance_scale": 1.5})
    assert guided.trace.decoder.maps[0].steps == plain.trace.decoder.maps[0].steps
    assert len(guided.calls) == 2 * len(plain.calls)  # they did run, and are there for who wants them


def test_the_other_half_of_guidance_has_a_source_of_its_own() -> None:
    """Under guidance an encoder-decoder runs its encoder again, on something else; the labels stay the source's."""
    model, reference, source = tiny("bart"), tiny("bart", "eager"), padded([7, 4], "right")
    sequences, recording = run(model, source, {"guidance_scale": 1.5})
    for item, length in enumerate((7, 4)):
        trace, tokens = recording.traces[item], source["input_ids"][item, :length]
        with torch.no_grad():
            out = reference(tokens[None], decoder_input_ids=sequences[item : item + 1, :-1], output_attentions=True)
        assert trace.cross.keys.ids == trace.encoder.keys.ids == tuple(tokens.tolist())
        for stack, maps in ((trace.encoder, out.encoder_attentions), (trace.cross, out.cross_attentions)):
            for found, wanted in zip(stack, maps, strict=True):
                rows = min(found.weights.shape[1], wanted.shape[2])  # one may end before the other
                torch.testing.assert_close(found.weights[:, :rows], wanted[0, :, :rows], atol=2e-5, rtol=0)


def test_a_language_found_first_is_an_aside() -> None:
    """Whisper runs itself once to hear which language it is, and then its encoder again for the transcript."""
    model, reference = whisper(), whisper(attn_implementation="eager")
    known = {"is_multilingual": True, "lang_to_id": {"<|en|>": 5, "<|de|>": 6}, "task_to_id": {"transcribe": 7}}
    for name, value in (known | {"no_timestamps_token_id": 9, "decoder_start_token_id": 1}).items():
        setattr(model.generation_config, name, value)
    features = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 4, "do_sample": False}
    plain = model.generate(features, **options)
    with av.capture(model) as recording:
        assert torch.equal(model.generate(features, **options), plain)
    assert [one.step for one in recording.runs[0].forwards] == [0, 1, 2, 3]
    for item, trace in enumerate(recording.traces):
        tokens = torch.tensor([trace.decoder.queries.ids])
        assert tokens[0, 0] == 1 and tokens[0, 1] in (5, 6) and tokens[0, 2] == 9
        assert tokens[0, 3:].tolist() == plain[item, :-1].tolist()
        with torch.no_grad():
            out = reference(features[item : item + 1], decoder_input_ids=tokens, output_attentions=True)
        assert_sides_are_one_pass(trace, out)


def test_a_pad_token_that_was_put_out_is_a_token_where_nothing_ends() -> None:
    model, reference = decoder("llama"), decoder("llama", "eager")
    last = int(run(model, {"input_ids": ids(1, 6)}, {})[0][0, -1])
    model.generation_config.pad_token_id = last
    sequences, recording = run(model, {"input_ids": ids(1, 6)}, {})
    assert int(sequences[0, -1]) == last
    assert_decoder_is_one_pass(recording.trace, reference, sequences[0, :-1].tolist())


def test_a_cache_kept_in_eight_bits() -> None:
    """The reference is an eager twin that loses the same bits; without them the maps would be others."""
    cache = {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}
    model, reference, inputs = decoder("llama"), decoder("llama", "eager"), {"input_ids": ids(1, 6)}
    sequences, recording = run(model, inputs, cache)
    out = reference.generate(
        **inputs, **cache, max_new_tokens=8, do_sample=False, output_attentions=True, return_dict_in_generate=True
    )
    assert torch.equal(out.sequences, sequences)
    with torch.no_grad():
        exact = reference(sequences[:, :-1], output_attentions=True).attentions
    for layer, found in enumerate(recording.trace.decoder):
        for step, maps in enumerate(out.attentions):
            rows = slice(0, 6) if step == 0 else slice(5 + step, 6 + step)
            wanted = maps[layer][0]
            torch.testing.assert_close(found.weights[:, rows, : wanted.shape[-1]], wanted, atol=2e-5, rtol=0)
        assert float((found.weights - exact[layer][0]).abs().max()) > 1e-3


class _Stream:
    """What a stream of a GPU does here: nothing; the copies that it would hide are made all the same."""

    def wait_stream(self, other: object) -> None:
        assert isinstance(other, _Stream)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "cache"),  # a static cache of windows alone has nothing to offload, and transformers fails to find it
    [(name, cache) for name in NAMES for cache in ("offloaded", "offloaded_static") if (name, cache) != NOTHING],
)
def test_offloaded_caches(name: str, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU the streams are stand-ins; moving layers out and in again is transformers' own."""
    monkeypatch.setattr(torch, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: _Stream())
    model, reference, inputs = decoder(name), decoder(name, "eager"), padded([7, 4], "left")
    sequences, recording = run(model, inputs, {"cache_implementation": cache})
    for sequence, trace in zip(sequences.tolist(), recording.traces, strict=True):
        assert_decoder_is_one_pass(trace, reference, read(sequence, inputs["attention_mask"][trace.item]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and nothing fails")
def test_the_error_of_an_offloaded_cache_without_a_gpu_comes_out_as_it_is() -> None:
    model = decoder("llama")
    options = {"max_new_tokens": 2, "do_sample": False, "cache_implementation": "offloaded"}
    with pytest.raises((AssertionError, RuntimeError)) as plain:
        model.generate(ids(1, 4), **options)
    with pytest.raises(type(plain.value)) as seen, av.capture(model):
        model.generate(ids(1, 4), **options)
    assert str(seen.value) == str(plain.value)
    assert "forward" not in model.__dict__


@pytest.mark.parametrize("name", NAMES)
def test_a_conversation_goes_on_with_its_cache(name: str) -> None:
    model, reference = decoder(name), decoder(name, "eager")
    cache = DynamicCache(config=model.config)
    options = {"max_new_tokens": 3, "do_sample": False, "past_key_values": cache}
    with av.capture(model) as recording:
        first = model.generate(ids(1, 5), **options)
        second = model.generate(torch.cat([first, ids(1, 4, 7)], dim=1), **options)
    assert len(recording.runs) == 2
    with torch.no_grad():
        expected = reference(second[:, :-1], output_attentions=True).attentions
    earlier, later = recording.traces
    assert_decoder_is_one_pass(earlier, reference, first[0, :-1].tolist())
    for found, wanted in zip(later.decoder, expected, strict=True):
        assert found.positions == tuple(range(7, 14))  # what the first call had read is in the first trace
        torch.testing.assert_close(found.weights, wanted[0][:, 7:], atol=2e-5, rtol=0)
        assert found.keys.ids == tuple(second[0, :-1].tolist())
        assert found.produced == (None,) * 4 + tuple(map(str, second[0, 12:].tolist()))


def test_a_loop_of_the_users_own() -> None:
    def loop(model: Any, input_ids: torch.Tensor, generation_config: Any, **kwargs: Any) -> torch.Tensor:
        for _ in range(3):
            inputs = model.prepare_inputs_for_generation(input_ids, use_cache=False)
            logits = model(**inputs).logits[:, -1]
            input_ids = torch.cat([input_ids, logits.argmin(-1, keepdim=True)], dim=1)
        return input_ids

    model, reference = decoder("llama"), decoder("llama", "eager")
    sequences, recording = run(model, {"input_ids": ids(1, 5)}, {"custom_generate": loop, "max_new_tokens": 3})
    assert_decoder_is_one_pass(recording.trace, reference, sequences[0, :-1].tolist())


@pytest.mark.parametrize("way", ["penalty_alpha", "num_beam_groups", "dola_layers", "force_words_ids"])
def test_searches_that_transformers_gave_away_fail_as_they_do_without_us(way: str) -> None:
    """They live on the hub now and want trust_remote_code; the error is theirs."""
    options: dict[str, Any] = {
        "penalty_alpha": {"penalty_alpha": 0.6, "top_k": 4},
        "num_beam_groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        "dola_layers": {"dola_layers": "low"},
        "force_words_ids": {"force_words_ids": [[5]], "num_beams": 3},
    }[way]
    model = decoder("llama")
    with pytest.raises(ValueError, match="trust_remote_code"), av.capture(model):
        model.generate(ids(1, 4), max_new_tokens=2, do_sample=False, **options)
    assert "generate" not in model.__dict__


def test_a_streamer_gets_its_tokens_as_before() -> None:
    class Heard(transformers.generation.streamers.BaseStreamer):
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.reshape(-1).tolist()

        def end(self) -> None:
            self.tokens.append(-1)

    model, plain, seen = decoder("llama"), Heard(), Heard()
    model.generate(ids(1, 4), max_new_tokens=4, do_sample=False, streamer=plain)
    with av.capture(model):
        model.generate(ids(1, 4), max_new_tokens=4, do_sample=False, streamer=seen)
    assert seen.tokens == plain.tokens and len(seen.tokens) == 9
