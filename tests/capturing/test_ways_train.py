"""Training with dropout, checkpoints, half precision, and the modes of autograd: same numbers, and each map once."""

from typing import Any

import pytest
import torch

import hf_attnviz as av
from tests.capturing.ways import assert_decoder_is_one_pass, decoder
from tests.models import ids, padded, tiny

DROPOUT: dict[str, dict[str, Any]] = {
    "bert": {"attention_probs_dropout_prob": 0.3},
    "llama": {"attention_dropout": 0.3},
    "gpt2": {"attn_pdrop": 0.3},
    "bart": {"attention_dropout": 0.3},
    "t5": {"dropout_rate": 0.3},
}
CALLS = {"bert": 2, "llama": 2, "gpt2": 2, "bart": 7, "t5": 6}
CHECKPOINTS = {"plain": None, "reentrant": True, "not reentrant": False}


def training(name: str, backend: str, checkpoint: str = "plain") -> Any:
    model = tiny(name, backend, **DROPOUT[name]).train()
    reentrant = CHECKPOINTS[checkpoint]
    if reentrant is not None:
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()  # else no gradient reaches the blocks
    return model


def batch(name: str) -> dict[str, torch.Tensor]:
    inputs = padded([7, 4], "right")
    if name in ("bart", "t5"):
        inputs["decoder_input_ids"] = ids(2, 5, 3)
    return inputs if name == "bert" else inputs | {"use_cache": False}  # type: ignore[dict-item]


def step(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """The output of one step of training, its gradients, and where the stream of random numbers is afterwards."""
    model.zero_grad()
    torch.manual_seed(5)
    output = model(**inputs).to_tuple()[0]
    output.square().mean().backward()
    return output.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None], torch.get_rng_state()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, of bart's encoder
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", DROPOUT)
def test_a_step_of_training_is_the_same_step(name: str, backend: str, checkpoint: str) -> None:
    model, inputs = training(name, backend, checkpoint), batch(name)
    output, gradients, after = step(model, inputs)
    with av.capture(model) as recording:
        seen = step(model, inputs)
    assert torch.equal(seen[0], output)
    assert len(gradients) > 10
    assert all(torch.equal(one, other) for one, other in zip(seen[1], gradients, strict=True))
    assert torch.equal(seen[2], after)
    assert len(recording.runs) == 1
    assert len(recording.calls) == CALLS[name]  # what checkpoints run again is recorded already
    assert not any(call.weights.requires_grad for call in recording.calls)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "llama", "bart"])
def test_the_map_is_the_one_before_dropout_in_every_layer(name: str, backend: str) -> None:
    """By hand from the queries and keys that ran, which dropout in the blocks below has changed."""
    model, inputs = training(name, backend), batch(name)
    torch.manual_seed(5)
    with av.capture(model, keep=["maps", "vectors"]) as recording:
        model(**inputs)
    for call in recording.calls:
        keys = call.key.repeat_interleave(call.query.shape[1] // call.key.shape[1], 1)
        scores = call.query @ keys.mT
        if call.kind == "cross" or call.stack == "encoder":
            scores = scores.masked_fill(~inputs["attention_mask"].bool()[:, None, None], -torch.inf)
        else:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        expected = scores.softmax(-1)
        rows = expected.shape[-2] if call.stack == "decoder" and name == "bart" else 4
        torch.testing.assert_close(call.weights[1, :, :rows], expected[1, :, :rows], atol=2e-5, rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_dropout_did_change_what_ran_in_these_tests(backend: str) -> None:
    model, inputs = training("llama", backend), batch("llama")
    one = step(model, inputs)[0]
    model.eval()
    assert float((step(model, inputs)[0] - one).abs().max()) > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "t5", "bart", "distilbert"])
def test_half_precision(name: str, backend: str, dtype: torch.dtype) -> None:
    model, reference = tiny(name, backend).to(dtype), tiny(name, "eager").to(dtype)
    inputs = padded([7, 4], "right") | ({"decoder_input_ids": ids(2, 5, 3)} if name in ("t5", "bart") else {})
    with torch.no_grad():
        plain = model(**inputs)
        with av.capture(model) as recording:
            seen = model(**inputs)
        out = reference(**inputs, output_attentions=True)
    assert torch.equal(plain[0], seen[0])
    first = (out.encoder_attentions if name in ("t5", "bart") else out.attentions)[0]
    found = recording.traces[1].maps[0].weights
    assert found.dtype == dtype
    torch.testing.assert_close(found, first[1, :, :4, :4], atol=4 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_generation_in_half_precision(dtype: torch.dtype) -> None:
    model, reference = decoder("llama").to(dtype), decoder("llama", "eager").to(dtype)
    options = {"max_new_tokens": 5, "do_sample": False}
    plain = model.generate(ids(1, 6), **options)
    with av.capture(model) as recording:
        seen = model.generate(ids(1, 6), **options)
    assert torch.equal(plain, seen)
    out = reference.generate(ids(1, 6), **options, output_attentions=True, return_dict_in_generate=True)
    prompt = out.attentions[0][0][0]
    found = recording.trace.decoder.maps[0]
    torch.testing.assert_close(found.weights[:, :6, :6], prompt, atol=4 * torch.finfo(dtype).eps, rtol=0)
    assert found.weights.shape == (4, 10, 10)


def test_autocast() -> None:
    model, reference, inputs = tiny("llama"), tiny("llama", "eager"), padded([7, 4], "right")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = model(**inputs)
        with av.capture(model) as recording:
            seen = model(**inputs)
        expected = reference(**inputs, output_attentions=True).attentions
    assert torch.equal(plain.logits, seen.logits)
    found = recording.traces[0].decoder.maps[0].weights
    torch.testing.assert_close(found.float(), expected[0][0].float(), atol=0.03, rtol=0)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "t5"])
def test_modes_of_autograd(name: str, backend: str, mode: Any) -> None:
    model, reference = tiny(name, backend), tiny(name, "eager")
    inputs = padded([7, 4], "right") | ({"decoder_input_ids": ids(2, 5, 3)} if name == "t5" else {})
    with mode():
        plain = model(**inputs)
        with av.capture(model) as recording:
            seen = model(**inputs)
    with torch.no_grad():
        out = reference(**inputs, output_attentions=True)
    assert torch.equal(plain[0], seen[0])
    assert plain[0].requires_grad == seen[0].requires_grad
    assert plain[0].is_inference() == seen[0].is_inference()
    first = (out.encoder_attentions if name == "t5" else out.attentions)[0]
    found = recording.traces[1].maps[0].weights
    assert not found.requires_grad
    torch.testing.assert_close(found.clone(), first[1, :, :4, :4], atol=2e-5, rtol=0)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_generation_in_modes_of_autograd(mode: Any) -> None:
    model, reference = decoder("llama"), decoder("llama", "eager")
    with mode(), av.capture(model) as recording:
        seen = model.generate(ids(1, 6), max_new_tokens=4, do_sample=False)
    assert_decoder_is_one_pass(recording.trace, reference, seen[0, :-1].tolist())


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_the_doctor_under_autocast(backend: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        diagnosis = av.doctor(tiny("llama", backend), padded([7, 4], "right"))
    assert diagnosis.ok, diagnosis


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", DROPOUT)
def test_a_step_of_training_under_autocast(name: str, backend: str) -> None:
    model, inputs = training(name, backend), batch(name)
    with torch.autocast("cpu", torch.bfloat16):
        output, gradients, _ = step(model, inputs)
    with torch.autocast("cpu", torch.bfloat16), av.capture(model) as recording:
        seen = step(model, inputs)
    assert torch.equal(seen[0], output)
    assert all(torch.equal(one, other) for one, other in zip(seen[1], gradients, strict=True))
    assert len(recording.calls) == CALLS[name]
