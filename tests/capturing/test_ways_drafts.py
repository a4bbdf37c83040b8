"""Assisted decoding: the maps are those of what came out; rejected drafts, and whoever drafted them, leave nothing."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

import hf_attnviz as av
from tests.capturing.extra_models import byte_level, word_piece
from tests.capturing.ways import assert_decoder_is_one_pass, assert_sides_are_one_pass, decoder
from tests.models import ids, tiny

DECODERS = ["llama", "gpt2", "mistral", "gemma3"]
WAYS: dict[str, Callable[[str, Any], dict[str, Any]]] = {
    "assistant": lambda name, model: {"assistant_model": decoder(name, noise=NEAR[name])},
    "its own assistant": lambda name, model: {"assistant_model": model},
    "sampling": lambda name, model: {"assistant_model": decoder(name, noise=NEAR[name]), "do_sample": True},
    "prompt lookup": lambda name, model: {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1},
}
NEW = 12
NEAR = {"gpt2": 0.02, "llama": 0.05, "mistral": 0.05, "gemma3": 0.05, "bart": 0.05, "t5": 0.05}  # right at times


def run(model: Any, inputs: dict[str, torch.Tensor], options: dict[str, Any], **capture: Any) -> av.Recording:
    options = {"do_sample": False, "max_new_tokens": NEW} | options
    torch.manual_seed(0)
    plain = model.generate(**inputs, **options)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    with av.capture(model, **capture) as recording:
        seen = model.generate(**inputs, **options)
    assert torch.equal(seen, plain)
    assert torch.equal(torch.get_rng_state(), after)
    assert not {"generate", "_get_candidate_generator"} & set(model.__dict__)
    assert len(recording.runs) == 1
    return recording


def rejected(recording: av.Recording) -> int:
    """How many of the positions read are not in the map."""
    return sum(one.side.new or 0 for one in recording.runs[0].forwards) - len(recording.trace.decoder.keys)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DECODERS)
def test_drafts_that_were_rejected_are_dropped(name: str, way: str) -> None:
    model, reference = decoder(name), decoder(name, "eager")
    prompt = torch.cat([ids(1, 5)] * 3, dim=1)
    recording = run(model, {"input_ids": prompt}, WAYS[way](name, model))
    tokens = recording.runs[0].generated.sequences[0].tolist()  # type: ignore[union-attr]
    assert_decoder_is_one_pass(recording.trace, reference, tokens[:-1])
    found = recording.trace.decoder.maps[0]
    assert found.steps == (0,) * 15 + tuple(range(1, NEW))
    assert found.produced == (None,) * 14 + tuple(map(str, tokens[15:]))


@pytest.mark.parametrize("name", DECODERS)
def test_some_drafts_are_right_and_some_are_wrong_in_these_tests(name: str) -> None:
    prompt = torch.cat([ids(1, 5)] * 3, dim=1)
    recording = run(decoder(name), {"input_ids": prompt}, {"assistant_model": decoder(name, noise=NEAR[name])})
    assert rejected(recording) > 0
    assert len(recording.runs[0].forwards) < NEW


@pytest.mark.parametrize("way", ["assistant", "prompt lookup"])
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_drafts_of_an_encoder_decoder(name: str, way: str) -> None:
    model, reference = decoder(name), decoder(name, "eager")
    source = torch.cat([ids(1, 5)] * 3, dim=1)
    recording = run(model, {"input_ids": source}, WAYS[way](name, model))
    tokens = recording.runs[0].generated.sequences[:, :-1]  # type: ignore[union-attr]
    with torch.no_grad():
        expected = reference(input_ids=source, decoder_input_ids=tokens, output_attentions=True)
    trace = recording.trace
    assert_sides_are_one_pass(trace, expected)
    assert trace.cross.queries.ids == tuple(tokens[0].tolist())


@pytest.mark.parametrize("where", ["argument", "generation_config", "model"])
def test_an_early_exit_drafts_with_the_model_itself(where: str) -> None:
    model, reference = decoder("llama"), decoder("llama", "eager")
    options: dict[str, Any] = {}
    if where == "argument":
        options["assistant_early_exit"] = 1
    elif where == "generation_config":
        options["generation_config"] = GenerationConfig(
            max_new_tokens=NEW, do_sample=False, assistant_early_exit=1, pad_token_id=0
        )
    else:
        model.generation_config.assistant_early_exit = 1
    recording = run(model, {"input_ids": ids(1, 6)}, options)
    tokens = recording.runs[0].generated.sequences[0].tolist()  # type: ignore[union-attr]
    assert rejected(recording) > 0
    assert_decoder_is_one_pass(recording.trace, reference, tokens[:-1])


def test_a_drafter_that_shares_blocks_with_the_model_is_not_heard() -> None:
    model, reference, drafter = decoder("llama"), decoder("llama", "eager"), decoder("llama", num_hidden_layers=1)
    drafter.model.embed_tokens, drafter.lm_head = model.model.embed_tokens, model.lm_head
    drafter.model.layers[0], drafter.model.norm = model.model.layers[0], model.model.norm
    recording = run(model, {"input_ids": ids(1, 6)}, {"assistant_model": drafter})
    tokens = recording.runs[0].generated.sequences[0].tolist()  # type: ignore[union-attr]
    assert_decoder_is_one_pass(recording.trace, reference, tokens[:-1])
    assert len(recording.calls) == 2 * len(recording.runs[0].forwards)


def test_a_drafter_with_a_tokenizer_of_its_own() -> None:
    tokenizer, other = byte_level(), word_piece()
    model, reference = (decoder("llama", backend, vocab_size=len(tokenizer)) for backend in ("sdpa", "eager"))
    drafter = decoder("llama", vocab_size=len(other))
    prompt = tokenizer("a small dog sat on the cat, a small dog", return_tensors="pt")["input_ids"]
    options = {"assistant_model": drafter, "tokenizer": tokenizer, "assistant_tokenizer": other}
    recording = run(model, {"input_ids": prompt}, options)
    tokens = recording.runs[0].generated.sequences[0].tolist()  # type: ignore[union-attr]
    assert rejected(recording) > 0
    assert_decoder_is_one_pass(recording.trace, reference, tokens[:-1])


@pytest.mark.parametrize("drafter", ["near", "the same"])
def test_an_end_inside_a_draft_ends_the_map(drafter: str) -> None:
    model, reference = decoder("llama"), decoder("llama", "eager")
    end = int(model.generate(ids(1, 6), max_new_tokens=NEW, do_sample=False)[0, -4])
    assistant = model if drafter == "the same" else decoder("llama", noise=NEAR["llama"])
    options = {"assistant_model": assistant, "eos_token_id": end}
    recording = run(model, {"input_ids": ids(1, 6)}, options)
    tokens = recording.runs[0].generated.sequences[0].tolist()  # type: ignore[union-attr]
    assert tokens[-1] == end and len(tokens) < 6 + NEW
    assert_decoder_is_one_pass(recording.trace, reference, tokens[:-1])
    assert recording.trace.decoder.maps[0].produced[-1] == str(end)  # type: ignore[index]


def test_a_padded_prompt_and_the_vectors() -> None:
    model, reference, near = decoder("llama"), decoder("llama", "eager"), decoder("llama", noise=NEAR["llama"])
    inputs = {
        "input_ids": torch.cat([torch.zeros(1, 2, dtype=torch.long), ids(1, 6)], dim=1),
        "attention_mask": torch.tensor([[0, 0] + [1] * 6]),
    }
    keep = ["maps", "vectors"]
    drafted = run(model, inputs, {"assistant_model": near}, keep=keep).trace
    greedy = run(model, inputs, {}, keep=keep).trace
    assert_decoder_is_one_pass(drafted, reference, list(greedy.decoder.keys.ids))  # type: ignore[arg-type]
    for one, other in zip(drafted.maps, greedy.maps, strict=True):
        assert (one.steps, one.produced, one.positions) == (other.steps, other.produced, other.positions)
        torch.testing.assert_close(one.query_vectors, other.query_vectors, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.key_vectors, other.key_vectors, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", [0, 2], ids=["right", "wrong"])
def test_a_prompt_of_embeddings(seed: int) -> None:
    model, reference = decoder("llama"), decoder("llama", "eager")
    embedded = model.get_input_embeddings()(ids(1, 6, seed)).detach()
    recording = run(model, {"inputs_embeds": embedded}, {"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 1})
    new = recording.runs[0].generated.sequences[0].tolist()  # type: ignore[union-attr]
    with torch.no_grad():
        whole = torch.tensor([ids(1, 6, seed)[0].tolist() + new[:-1]])
        expected = reference(whole, output_attentions=True).attentions
    for found, wanted in zip(recording.trace.decoder, expected, strict=True):
        torch.testing.assert_close(found.weights, wanted[0], atol=2e-5, rtol=0)
        assert found.steps == (0,) * 6 + tuple(range(1, NEW))
        assert found.produced == (None,) * 5 + tuple(map(str, new))


def test_rows_from_the_start_are_kept_and_rows_from_the_end_are_refused() -> None:
    model, near = decoder("llama"), decoder("llama", noise=NEAR["llama"])
    whole = run(model, {"input_ids": ids(1, 6)}, {"assistant_model": near}).trace
    rows = run(model, {"input_ids": ids(1, 6)}, {"assistant_model": near}, queries=[2, 9]).trace
    for full, part in zip(whole.decoder, rows.decoder, strict=True):
        assert part.positions == (2, 9)
        wanted = full.weights[:, [2, 9], : part.weights.shape[-1]]
        torch.testing.assert_close(part.weights, wanted, rtol=0, atol=1e-6)
        assert not full.weights[:, [2, 9], part.weights.shape[-1] :].any()
    with pytest.raises(av.errors.CaptureError, match="drafts that were rejected"):
        run(model, {"input_ids": ids(1, 6)}, {"assistant_model": near}, queries=[-1])


def test_the_drafter_is_freed_with_its_cache() -> None:
    model, near = decoder("llama"), decoder("llama", noise=NEAR["llama"])
    run(model, {"input_ids": ids(1, 6)}, {"assistant_model": near})
    gone = weakref.ref(near)
    del near
    gc.collect()
    assert gone() is None


def test_an_attached_recording_goes_on_after_drafts() -> None:
    model = tiny("gpt2")
    recording = av.attach(model, last=2)
    model.generate(ids(1, 6), prompt_lookup_num_tokens=2, max_new_tokens=4, do_sample=False)
    model(ids(1, 5))
    recording.detach()
    assert [len(trace.decoder.keys) for trace in recording.traces][1] == 5
