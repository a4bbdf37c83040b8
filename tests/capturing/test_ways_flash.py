"""flash-attn, through the same door: 2-D masks or none, windows, documents one after the other, and no weights back.

There is no GPU here, so the last step alone, the kernel, is a stand-in; it shares no code with the eager reference.
"""

import copy
from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from tests.capturing import flash
from tests.capturing.ways import assert_decoder_is_one_pass, assert_packed, decoder, packed, read, redraw
from tests.models import ENDS, SMALL, padded, tiny

NEAR = {"atol": 2e-5, "rtol": 0}
DECODERS = ["llama", "mistral", "gemma3"]


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    flash.install(monkeypatch)


def captured(model: Any, inputs: dict[str, Any]) -> av.Recording:
    with torch.no_grad():
        plain = model(**inputs)
        with av.capture(model) as recording:
            seen = model(**inputs)
    assert torch.equal(plain[0], seen[0])
    assert {call.implementation for call in recording.calls} == {model.config._attn_implementation}
    return recording


@pytest.mark.parametrize("lengths", [[7, 4], [6, 6]], ids=["padded", "whole"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", [*DECODERS, "bert", "distilbert"])
def test_maps_are_those_of_the_eager_twin(name: str, side: str, lengths: list[int]) -> None:
    make: Any = decoder if name in DECODERS else tiny
    model, reference, inputs = flash.through(make(name)), make(name, "eager"), padded(lengths, side)
    recording = captured(model, inputs)
    with torch.no_grad():
        expected = reference(**inputs, output_attentions=True).attentions
    for item, trace in enumerate(recording.traces):
        real = inputs["attention_mask"][item].bool()
        for found, wanted in zip(trace.stack(), expected, strict=True):
            torch.testing.assert_close(found.weights, wanted[item][:, real][:, :, real], **NEAR)
    ways = {call.way for call in recording.calls}
    assert ways <= {"kernel on identity", "the model's own eager function"}
    if lengths[0] != lengths[1]:  # no eager function reads a 2-D mask
        assert ways == {"kernel on identity"}


@pytest.mark.parametrize("source", [[7, 7], [7, 4]], ids=["whole", "padded"])
def test_an_encoder_decoder(source: list[int]) -> None:
    """With a padded source transformers' flash path unpads the wrong queries of cross-attention: that is what ran."""
    model, reference = flash.through(tiny("bart")), tiny("bart", "eager")
    target = padded([5, 3], "right", seed=9)
    inputs = padded(source, "right") | {
        "decoder_input_ids": target["input_ids"],
        "decoder_attention_mask": target["attention_mask"],
    }
    recording = captured(model, inputs)
    with torch.no_grad():
        out, flashed = reference(**inputs, output_attentions=True), model(**inputs)
    length, trace = source[1], recording.traces[1]
    for stack, maps, rows, columns in (
        (trace.encoder, out.encoder_attentions, length, length),
        (trace.decoder, out.decoder_attentions, 3, 3),
        (trace.cross, out.cross_attentions, 3, length),
    ):
        if length == 7 or stack is trace.encoder:
            for found, wanted in zip(stack, maps, strict=True):
                torch.testing.assert_close(found.weights, wanted[1][:, :rows, :columns], **NEAR)
    if length < 7:
        assert float((flashed.logits - out.logits)[1, :3].abs().max()) > 1  # the model itself is another one here
        ran = inputs["attention_mask"][1, -5:][:3].bool()  # the tail of the source's mask, taken for the queries'
        sums = trace.cross.maps[0].weights.sum(-1)
        torch.testing.assert_close(sums, ran.float().expand_as(sums), **NEAR)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_generation(name: str, options: dict[str, Any]) -> None:
    model, reference, inputs = flash.through(decoder(name)), decoder(name, "eager"), padded([6, 4], "left")
    options = {"max_new_tokens": 5, "do_sample": False} | options
    plain = model.generate(**inputs, **options)
    with av.capture(model) as recording:
        seen = model.generate(**inputs, **options)
    assert torch.equal(plain, seen)
    for sequence, trace in zip(seen.tolist(), recording.traces, strict=True):
        assert_decoder_is_one_pass(trace, reference, read(sequence, inputs["attention_mask"][trace.item]))


@pytest.mark.parametrize("told", ["position_ids", "cu_seq_lens"])
@pytest.mark.parametrize("name", DECODERS)
def test_packed_documents_do_not_see_each_other(name: str, told: str) -> None:
    lengths = [4, 6, 3]
    tokens, positions = packed(lengths)
    inputs: dict[str, Any] = {"input_ids": tokens, "position_ids": positions, "use_cache": False}
    if told == "cu_seq_lens":
        bounds = torch.tensor([0, 4, 10, 13], dtype=torch.int32)
        inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 6, "max_length_k": 6}
    recording = captured(flash.through(decoder(name)), inputs)
    assert_packed(recording.trace, decoder(name, "eager"), tokens, lengths)


def test_learned_sinks_take_their_share() -> None:
    options = SMALL | {"intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2}
    config = transformers.GptOssConfig(**options, num_experts_per_tok=1, sliding_window=4, **ENDS)
    reference = transformers.GptOssForCausalLM._from_config(config, attn_implementation="eager").eval()
    redraw(reference, 0, 0.4)
    for block in reference.model.layers:
        torch.nn.init.constant_(block.self_attn.sinks, 1.5)
    inputs = padded([7, 4], "right")
    recording = captured(flash.through(copy.deepcopy(reference), "flash_attention_3"), inputs)
    with torch.no_grad():
        expected = reference(**inputs, output_attentions=True).attentions
    for found, wanted in zip(recording.traces[0].decoder, expected, strict=True):
        assert float(found.weights.sum(-1).min()) < 0.9
        torch.testing.assert_close(found.weights, wanted[0], **NEAR)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    model, reference = flash.through(decoder(name).to(dtype)), decoder(name, "eager").to(dtype)
    inputs = padded([7, 4], "right")
    recording = captured(model, inputs)
    with torch.no_grad():
        expected = reference(**inputs, output_attentions=True).attentions
    found = recording.traces[0].decoder.maps[0].weights
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected[0][0], atol=4 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flash_attention_3"])
def test_the_doctor_finds_it_exact(implementation: str) -> None:
    diagnosis = av.doctor(flash.through(decoder("mistral"), implementation), padded([7, 4], "left"))
    assert diagnosis.ok, diagnosis
    assert {finding.backend for finding in diagnosis.findings} == {implementation}
    assert {finding.grade for finding in diagnosis.findings} == {"exact"}
