"""Interventions against the same thing done by hand to the model's own weights, hooks and masks."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from tests.models import ids, padded, tiny

Head = tuple[str, int, int]


def vit() -> Any:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=24, patch_size=8
    )
    torch.manual_seed(0)
    return transformers.ViTModel(config).eval()


# name -> the stack, and the projection that reads the heads of a layer side by side
FAMILIES: dict[str, tuple[str, Callable[[Any, int], torch.nn.Module]]] = {
    "bert": ("encoder", lambda model, n: model.encoder.layer[n].attention.output.dense),
    "gpt2": ("decoder", lambda model, n: model.transformer.h[n].attn.c_proj),
    "llama": ("decoder", lambda model, n: model.model.layers[n].self_attn.o_proj),
    "t5": ("decoder", lambda model, n: model.decoder.block[n].layer[0].SelfAttention.o),
    "t5 cross": ("cross", lambda model, n: model.decoder.block[n].layer[1].EncDecAttention.o),
    "bart cross": ("cross", lambda model, n: model.model.decoder.layers[n].encoder_attn.out_proj),
    "vit": ("vision", lambda model, n: model.layers[n].attention.o_proj),
}


def built(name: str, backend: str = "sdpa") -> tuple[Any, dict[str, torch.Tensor]]:
    if name == "vit":
        return vit(), {"pixel_values": torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))}
    model = tiny(name.split()[0], backend)
    two_sided = model.config.is_encoder_decoder
    return model, {"input_ids": ids(2, 9)} | ({"decoder_input_ids": ids(2, 7, seed=5)} if two_sided else {})


def first(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0]
    return found


@contextmanager
def by_hand(
    projection: torch.nn.Module, heads: int, head: int, change: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Inside, one head's part ``[batch, query, size]`` of what the projection reads is another."""

    def hook(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        parts = list(args[0].chunk(heads, dim=-1))
        parts[head] = change(parts[head])
        return (torch.cat(parts, dim=-1), *args[1:])

    handle = projection.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_silenced_head_is_a_head_whose_output_is_zero(name: str, backend: str) -> None:
    model, inputs = built(name, backend)
    stack, projection = FAMILIES[name]
    heads = 2 if "bart" in name else 4
    before = first(model(**inputs))
    with by_hand(projection(model, 1), heads, 1, torch.zeros_like):
        expected = first(model(**inputs))
    with av.ablate(model, heads=[(stack, 1, 1)]):
        found = first(model(**inputs))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert (found - before).abs().max() > 1e-3
    assert torch.equal(first(model(**inputs)), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_goes_over_the_rows_of_the_call_or_of_a_reference(name: str) -> None:
    model, inputs = built(name)
    stack, projection = FAMILIES[name]
    heads = 2 if "bart" in name else 4
    with by_hand(projection(model, 0), heads, 0, lambda part: part.mean((0, 1)).expand_as(part)):
        expected = first(model(**inputs))
    with av.ablate(model, heads=[(stack, 0, 0)], mode="mean"):
        torch.testing.assert_close(first(model(**inputs)), expected, atol=1e-5, rtol=1e-5)

    other = {key: value.flip(-1) for key, value in inputs.items()}
    seen: list[torch.Tensor] = []
    with by_hand(projection(model, 0), heads, 0, lambda part: seen.append(part) or part):
        model(**other)
    with av.capture(model, keep="vectors") as reference:
        model(**other)
    with by_hand(projection(model, 0), heads, 0, lambda part: seen[0].mean((0, 1)).expand_as(part)):
        expected = first(model(**inputs))
    with av.ablate(model, heads=[(stack, 0, 0)], mode="mean", reference=reference):
        torch.testing.assert_close(first(model(**inputs)), expected, atol=1e-5, rtol=1e-5)


def test_a_mean_leaves_padding_out() -> None:
    model, inputs = tiny("gpt2"), padded([6, 4], "left")
    real = inputs["attention_mask"].bool()
    with by_hand(FAMILIES["gpt2"][1](model, 1), 4, 2, lambda part: part[real].mean(0).expand_as(part)):
        expected = model(**inputs).logits
    with av.ablate(model, heads=[(1, 2)], mode="mean"):
        torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_head_gets_the_output_that_it_had_in_another_run(name: str) -> None:
    model, inputs = built(name)
    stack, projection = FAMILIES[name]
    heads = 2 if "bart" in name else 4
    other = {key: value.flip(-1) for key, value in inputs.items()}
    seen: list[torch.Tensor] = []
    with by_hand(projection(model, 1), heads, 1, lambda part: seen.append(part) or part):
        model(**other)
    with by_hand(projection(model, 1), heads, 1, lambda _: seen[0]):
        expected = first(model(**inputs))
    with av.capture(model, keep="vectors") as source:
        model(**other)
    with av.patch(model, heads=[(stack, 1, 1)], source=source):
        torch.testing.assert_close(first(model(**inputs)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_what_is_knocked_out_is_what_a_mask_forbids(name: str) -> None:
    model, inputs = built(name)
    allowed = torch.ones(2, 1, 9, 9, dtype=torch.bool)
    if name != "bert":
        allowed = allowed.tril()
    allowed[:, :, 5, 2] = allowed[:, :, 8, 2] = False
    expected = first(model(**inputs, attention_mask=allowed))
    with torch.no_grad(), av.knock_out(model, queries=[5, -1], keys=[2]), av.capture(model) as recording:
        found = first(model(**inputs))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    for call in recording.calls:
        assert not call.weights[:, :, [5, 8], 2].any()
        torch.testing.assert_close(call.weights.sum(-1), torch.ones(call.weights.shape[:-1]))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_source_token_is_knocked_out_of_cross_attention(name: str) -> None:
    model, inputs = built(name)
    mask = torch.ones(2, 9)
    mask[:, 4] = 0
    source = model.get_encoder()(inputs["input_ids"])
    rest = {"encoder_outputs": source, "decoder_input_ids": inputs["decoder_input_ids"]}
    expected = model(**rest, attention_mask=mask).logits
    with torch.no_grad(), av.knock_out(model, queries=None, keys=[4], stack="cross"):
        torch.testing.assert_close(model(**rest).logits, expected, atol=2e-5, rtol=2e-5)


def test_only_the_heads_named_are_knocked_out_and_positions_leave_padding_out() -> None:
    model, inputs = tiny("gpt2"), padded([6, 4], "left")
    with torch.no_grad(), av.capture(model) as plain:
        model(**inputs)
    heads = [("decoder", 0, 3)]
    with torch.no_grad(), av.knock_out(model, queries=[3], keys=[0], heads=heads), av.capture(model) as recording:
        model(**inputs)
    for row, start in ((0, 0), (1, 2)):  # the second sequence begins after two positions of padding
        expected = plain.calls[0].weights[row].double().log()
        expected[3, start + 3, start] = -torch.inf
        found = recording.calls[0].weights[row, :, start:]
        torch.testing.assert_close(found, expected.softmax(-1).float()[:, start:], atol=1e-6, rtol=1e-5)


def test_generation_runs_under_an_intervention_and_every_step_is_meant() -> None:
    model = tiny("llama")
    read = ids(1, 6)
    with by_hand(FAMILIES["llama"][1](model, 0), 4, 2, torch.zeros_like):
        expected = model.generate(read, max_new_tokens=6, do_sample=False)
    with av.ablate(model, heads=[("decoder", 0, 2)]):
        assert torch.equal(model.generate(read, max_new_tokens=6, do_sample=False), expected)


def test_gradients_flow_past_a_silenced_head() -> None:
    model = tiny("gpt2")
    embedded = model.transformer.wte(ids(1, 6)).detach().requires_grad_()
    with by_hand(FAMILIES["gpt2"][1](model, 1), 4, 0, torch.zeros_like):
        (expected,) = torch.autograd.grad(model(inputs_embeds=embedded).logits[0, -1, 5], embedded)
    with av.ablate(model, heads=[(1, 0)]):
        (found,) = torch.autograd.grad(model(inputs_embeds=embedded).logits[0, -1, 5], embedded)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_interventions_nest_and_a_capture_beside_them_hears_once() -> None:
    model, inputs = built("bert")
    projection = FAMILIES["bert"][1](model, 0)
    with by_hand(projection, 4, 0, torch.zeros_like), by_hand(projection, 4, 3, torch.zeros_like):
        expected = first(model(**inputs))
    with av.ablate(model, heads=[(0, 0)]), av.capture(model) as recording, av.ablate(model, heads=[(0, 3)]):
        torch.testing.assert_close(first(model(**inputs)), expected, atol=1e-6, rtol=1e-6)
    assert len(recording.calls) == 2


class ByHand(torch.nn.Module):
    """Attention written out, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.project = torch.nn.Linear(8, 24)
        self.out = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.project(x).chunk(3, dim=-1))
        if self.way == "einsum":
            weights = torch.einsum("bhqd,bhkd->bhqk", query, key).softmax(-1)
            return self.out(torch.einsum("bhqk,bhkd->bqhd", weights, value).flatten(2))
        weights = (query @ key.mT).softmax(-1)
        if self.way == "turned":
            return self.out((value.mT @ weights.mT).mT.transpose(1, 2).flatten(2))
        if self.way == "bmm":
            mixed = torch.bmm(weights.flatten(0, 1), value.flatten(0, 1)).unflatten(0, (-1, 2))
            return self.out(mixed.transpose(1, 2).flatten(2))
        if self.way == "sum":
            return self.out((weights[..., None] * value[:, :, None]).sum(-2).transpose(1, 2).flatten(2))
        if self.way == "matmul":
            return self.out((weights @ value).transpose(1, 2).flatten(2))
        if self.way == "torch":
            return self.out(
                torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            )
        exp = (query @ key.mT).exp()
        return self.out(((exp @ value) / exp.sum(-1, keepdim=True)).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("way", ["matmul", "turned", "bmm", "einsum", "torch", "late division"])
def test_attention_written_by_hand_is_reached(way: str) -> None:
    torch.manual_seed(0)
    model, x = ByHand(way), torch.randn(2, 5, 8)
    with by_hand(model.out, 2, 1, torch.zeros_like):
        expected = model(x)
    with torch.no_grad(), av.capture(model, keep=["maps", "vectors"]) as recording:
        model(x)
    stack = "cross" if recording.calls[0].kind == "cross" else recording.calls[0].stack
    with av.ablate(model, heads=[(stack, 0, 1)]):
        torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-5)
    if way == "late division":
        return  # its values are not shown
    call = recording.calls[0]
    torch.testing.assert_close(call.weights @ call.value, call.output, atol=1e-6, rtol=1e-5)
    cut = call.weights.log()
    cut[:, :, 3, 1] = -torch.inf
    expected = model.out((cut.softmax(-1) @ call.value).transpose(1, 2).flatten(2))
    with torch.no_grad(), av.knock_out(model, queries=[3], keys=[1]):
        torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_reached_is_told() -> None:
    model = ByHand("sum")
    told = pytest.raises(av.errors.CaptureError, match="nothing can be put in its place")
    with told, av.ablate(model, heads=[(0, 1)]):
        model(torch.randn(2, 5, 8))


def test_the_fast_way_of_torch_is_left_for_an_intervention() -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model, x = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), torch.randn(2, 5, 8)
    weight = model.layers[1].self_attn.out_proj.weight
    with torch.no_grad():
        before = model(x)
        with av.ablate(model, heads=[("encoder", 1, 1)]), av.capture(model) as recording:
            found = model(x)
        kept = weight.clone()
        weight[:, 4:] = 0
        expected = model(x)
        weight.copy_(kept)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - before).abs().max() > 1e-3
    assert len(recording.calls) == 2


@pytest.mark.parametrize(
    ("heads", "match"),
    [
        ([], "expected a list"),
        ([("encoder", 0)], "expected .stack, layer, head"),
        ([(0, -1)], "numbers from 0 up"),
        ([("decoder", 0, 0)], "no such stack; it has: encoder"),
        ((0, 1), "expected a list"),
    ],
)
def test_heads_that_mean_nothing_are_refused_at_once(heads: Any, match: str) -> None:
    with pytest.raises((av.errors.ArgumentError, av.errors.UnknownStackError), match=match):
        av.ablate(tiny("bert"), heads=heads)


@pytest.mark.parametrize("head", [(7, 0), (0, 9)])
def test_a_head_that_did_not_run_is_told_when_the_block_ends(head: tuple[int, int]) -> None:
    model = tiny("bert")
    told = pytest.raises(av.errors.CaptureError, match=r"nothing was done to L\dH\d.*L0H0 to H3")
    with told, av.ablate(model, heads=[head]):
        model(ids(1, 4))
    assert not model.encoder.layer[0].attention.self._forward_hooks


def test_other_errors_say_what_to_do() -> None:
    model, _ = built("t5")
    with pytest.raises(av.errors.UnknownStackError, match="encoder, decoder, cross"):
        av.ablate(model, heads=[(0, 0)])
    gpt2 = tiny("gpt2")
    with pytest.raises(av.errors.ArgumentError, match="zero, mean"):
        av.ablate(gpt2, heads=[(0, 0)], mode="none")
    with pytest.raises(av.errors.CaptureError, match=r"torch.no_grad"), av.knock_out(gpt2, queries=[3], keys=[1]):
        gpt2(ids(1, 5))
    told = pytest.raises(av.errors.CaptureError, match="never met")
    with told, torch.no_grad(), av.knock_out(gpt2, queries=[30], keys=[1]):
        gpt2(ids(1, 5))
    with pytest.raises(av.errors.CaptureError, match="its own mean"), av.ablate(gpt2, heads=[(0, 0)], mode="mean"):
        gpt2(ids(1, 1))
    with av.capture(gpt2, keep="vectors") as source:
        gpt2(ids(1, 6))
    with pytest.raises(av.errors.CaptureError, match="same length"), av.patch(gpt2, heads=[(0, 0)], source=source):
        gpt2(ids(1, 5))
    with pytest.raises(ZeroDivisionError), av.ablate(gpt2, heads=[(0, 0)]):
        raise ZeroDivisionError
    assert "forward" not in gpt2.__dict__


# ---- what they do to one another, and where a plain mask says what is right


@pytest.mark.parametrize("first_one", ["ablate", "knock_out"])
def test_a_silenced_head_stays_silent_whoever_knocks_out_and_the_recording_shows_what_went_on(first_one: str) -> None:
    model, inputs = built("gpt2")
    allowed = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril()
    allowed[:, :, 5, 2] = False
    with torch.no_grad(), by_hand(FAMILIES["gpt2"][1](model, 1), 4, 0, torch.zeros_like):
        expected = model(**inputs, attention_mask=allowed).logits
    both = [av.ablate(model, heads=[(1, 0)]), av.knock_out(model, queries=[5], keys=[2])]
    outer, inner = both if first_one == "ablate" else both[::-1]
    with torch.no_grad(), outer, inner, av.capture(model, keep=["maps", "vectors"]) as recording:
        torch.testing.assert_close(model(**inputs).logits, expected, atol=2e-5, rtol=2e-5)
    mixed, silenced = recording.calls
    torch.testing.assert_close(mixed.weights @ mixed.value, mixed.output, atol=1e-5, rtol=1e-5)
    assert not silenced.output[:, 0].any() and silenced.output[:, 1:].all(-1).any()


def test_two_knock_outs_are_one_of_both() -> None:
    model, inputs = built("llama")
    allowed = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril()
    allowed[:, :, 5, 2] = allowed[:, :, 5, 3] = allowed[:, :, 7, 3] = False
    expected = model(**inputs, attention_mask=allowed).logits
    with torch.no_grad(), av.knock_out(model, queries=[5], keys=[2]), av.knock_out(model, queries=[5, 7], keys=[3]):
        torch.testing.assert_close(model(**inputs).logits, expected, atol=2e-5, rtol=2e-5)


COARSE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def strong(model: Any) -> Any:
    """With some keys that take next to all of a row: what is left without them must not be lost in rounding."""
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(3)
    return model


@pytest.mark.parametrize("dtype", COARSE, ids=str)
@pytest.mark.parametrize("key", range(8))
def test_what_is_left_of_a_row_is_scaled_up_as_a_mask_would_in_any_dtype(dtype: torch.dtype, key: int) -> None:
    model, read = strong(tiny("llama")).to(dtype), ids(1, 8)
    allowed = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
    allowed[..., 7, key] = False
    with torch.no_grad(), av.capture(model, layers=[0]) as expected:
        model(read, attention_mask=allowed)
    with torch.no_grad(), av.knock_out(model, queries=[7], keys=[key]), av.capture(model, layers=[0]) as found:
        model(read)
    one, other = (recording.calls[0].weights.double() for recording in (found, expected))
    torch.testing.assert_close(one, other, atol=COARSE[dtype], rtol=0)


def with_sinks() -> Any:
    config = transformers.GptOssConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=97,
        intermediate_size=16, num_local_experts=2, num_experts_per_tok=1, sliding_window=4, pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GptOssForCausalLM._from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.dim() > 1 else 1))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_learned_sink_keeps_its_share_in_proportion(dtype: torch.dtype) -> None:
    model, read = with_sinks().to(dtype), ids(1, 9)
    with torch.no_grad(), av.capture(model, layers=[0]) as plain:
        model(read)
    with torch.no_grad(), av.knock_out(model, queries=[8], keys=[6]), av.capture(model, layers=[0]) as cut:
        model(read)
    row = plain.calls[0].weights[0, :, 8].double()
    left = row.clone()
    left[:, 6] = 0
    expected = left / (1 - row[:, 6:7])  # the sink is scaled up as the other keys are
    torch.testing.assert_close(
        cut.calls[0].weights[0, :, 8].double(), expected, atol=1e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0
    )
    assert (1 - row.sum(-1)).max() > 0.01
    assert torch.equal(cut.calls[0].weights[0, :, :8], plain.calls[0].weights[0, :, :8])


def mistral() -> Any:
    config = transformers.MistralConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=37,
        vocab_size=97, max_position_embeddings=64, sliding_window=4, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.MistralForCausalLM._from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape) * 0.4)
    return model


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("way", [{"cache_implementation": "static"}, {"use_cache": False}, {"num_beams": 1}], ids=str)
def test_positions_are_those_of_the_sequence_whatever_the_cache_holds(family: str, way: dict[str, Any]) -> None:
    """Padding on the left, columns not filled yet, columns let go: position 5 is the sixth real token everywhere."""
    model, inputs = mistral() if family == "mistral" else tiny("llama"), padded([7, 5], "left")
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    expected = []
    for row, start in ((0, 0), (1, 2)):  # one by one, without padding and without a cache: masks by hand
        read = inputs["input_ids"][row : row + 1, start:]
        for _ in range(5):
            length = read.shape[1]
            allowed = torch.ones(length, length, dtype=torch.bool).tril()
            if family == "mistral":
                allowed &= ~torch.ones(length, length, dtype=torch.bool).tril(-4)
            allowed[:, 5:6] = False
            mask = torch.where(allowed[None, None], 0.0, torch.finfo(torch.float32).min)
            with torch.no_grad():
                read = torch.cat([read, model(read, attention_mask=mask, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        expected.append(read[0, -5:])
    with torch.no_grad(), av.knock_out(model, queries=None, keys=[5]):
        found = model.generate(**inputs, **options, **way)
    assert torch.equal(found[:, -5:], torch.stack(expected))


@pytest.mark.parametrize("name", ["bart", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_source_serves_all_beams_and_its_padding_is_left_out(name: str, beams: int) -> None:
    model, inputs = tiny(name), padded([6, 4], "right")
    options = {"max_new_tokens": 4, "do_sample": False, "num_beams": beams}
    with torch.no_grad(), av.knock_out(model, queries=None, keys=[-1], stack="cross"), av.capture(model) as recording:
        model.generate(**inputs, **options)
    for call in recording.calls:
        if call.kind == "cross":
            first_input, second = call.weights.chunk(2)
            assert not first_input[..., 5].any() and first_input[..., 4].all()
            assert not second[..., 3].any() and second[..., 2].all()


def test_where_nothing_of_a_row_is_left_it_puts_out_zeros() -> None:
    model, inputs = built("gpt2")
    seen = []
    with torch.no_grad(), av.knock_out(model, queries=[0], keys=[0]):
        handle = model.transformer.h[0].attn.c_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(**inputs)
        handle.remove()
    assert not seen[0][:, 0].any() and seen[0][:, 1:].all(-1).any()


def test_what_would_be_wrong_is_refused() -> None:
    model, inputs = tiny("gpt2", attn_pdrop=0.5), padded([6, 4], "left")
    told = pytest.raises(av.errors.CaptureError, match=r"without dropout; call model\.eval")
    with told, torch.no_grad(), av.knock_out(model.train(), queries=[3], keys=[1]):
        model(**inputs)
    model.eval()
    with torch.no_grad(), av.capture(model, keep="vectors") as source:
        model(**padded([4, 6], "left"))
    with pytest.raises(av.errors.CaptureError, match="padded alike"), av.patch(model, heads=[(0, 0)], source=source):
        model(**inputs)
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    told = pytest.raises(av.errors.CaptureError, match="turn it off")
    with told, av.ablate(model, heads=[(0, 0)]):
        model.train()(ids(1, 5), use_cache=False)
    with av.ablate(model.eval(), heads=[(0, 0)]):
        model(ids(1, 5))


def test_a_patch_in_a_generation_takes_each_step_from_its_own() -> None:
    model = tiny("llama")
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    with av.capture(model, keep="vectors") as source:
        model.generate(ids(1, 6), **options)
    with av.patch(model, heads=[(0, 1)], source=source), av.capture(model, keep="vectors") as found:
        model.generate(ids(1, 6, seed=3), **options)
    for one, other in zip(source.calls, found.calls, strict=True):
        if one.layer == 0:
            assert torch.equal(one.output[:, 1], other.output[:, 1])
            assert not torch.equal(one.output[:, 0], other.output[:, 0])
    told = pytest.raises(av.errors.CaptureError, match="runs once more here")
    with told, av.patch(model, heads=[(0, 1)], source=source):
        model.generate(ids(1, 6), **options | {"max_new_tokens": 6})


def test_four_threads_silence_four_heads_of_one_model() -> None:
    """They come and go at one another's hooks and doors; each hears its own runs, and nobody else's."""
    model, read = tiny("gpt2"), ids(1, 6)
    found = dict[int, list[bool]]()

    def silenced(head: int) -> torch.Tensor:
        with torch.no_grad(), av.ablate(model, heads=[(0, head)]), av.capture(model) as recording:
            logits: torch.Tensor = model(read).logits
        assert len(recording.calls) == 2
        return logits

    expected = {head: silenced(head) for head in range(4)}

    def run(head: int) -> None:
        found[head] = [torch.equal(silenced(head), expected[head]) for _ in range(15)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(head,)) for head in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert all(all(found[head]) for head in range(4))
    assert "forward" not in model.__dict__


# ---- where no mask can be given: what is left of a row is scaled up


class WithSink(torch.nn.Module):
    """Attention by hand whose heads may look at a learned sink that is no key."""

    def __init__(self, sinks: list[float], bias: torch.Tensor) -> None:
        super().__init__()
        self.project, self.out = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)
        self.sinks, self.bias = torch.nn.Parameter(torch.tensor(sinks)), bias

    def scores(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        query, key, value = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.project(x).chunk(3, dim=-1))
        scores = query @ key.mT + self.bias.to(x.dtype)
        sinks = self.sinks[None, :, None, None].expand(*scores.shape[:3], 1)
        return torch.cat([scores, sinks.to(scores.dtype)], dim=-1), value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores, value = self.scores(x)
        return self.out((scores.softmax(-1)[..., :-1] @ value).transpose(1, 2).flatten(2))


def sunk(sinks: list[float], key: int, strength: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What a model gives when query 3 may not look at ``key``, by us and by its own arithmetic in float64."""
    torch.manual_seed(0)
    bias = torch.zeros(5, 5)
    bias[3, 1] = strength
    model, x = WithSink(sinks, bias).to(dtype).eval(), torch.randn(1, 5, 8).to(dtype)
    with torch.no_grad(), av.knock_out(model, queries=[3], keys=[key]):
        found = model(x)
    exact = model.double()
    scores, value = exact.scores(x.double())
    scores[:, :, 3, key] = -torch.inf
    return found, exact.out((scores.softmax(-1)[..., :-1] @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("sinks", [[1.0, -1.0], [2.0, -torch.inf]], ids=str)
def test_a_sink_by_hand_keeps_its_share_too(sinks: list[float]) -> None:
    for key, strength in ((0, 0.0), (1, 3.0)):
        found, expected = sunk(sinks, key, strength, torch.float32)
        torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-5)


def test_without_a_sink_little_is_enough_and_beside_one_it_is_refused() -> None:
    none = [-torch.inf, -torch.inf]
    found, expected = sunk(none, 1, 12.0, torch.float32)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-5)
    found, expected = sunk(none, 1, 12.0, torch.bfloat16)
    torch.testing.assert_close(found.double(), expected, atol=2e-2, rtol=2e-2)
    for sinks, strength, dtype in (([1.0, 1.0], 14.0, torch.float32), ([1.0, 1.0], 5.0, torch.bfloat16)):
        with pytest.raises(av.errors.CaptureError, match="run the model in a finer dtype"):
            sunk(sinks, 1, strength, dtype)
    with pytest.raises(av.errors.CaptureError, match="next to nothing is left"):
        sunk(none, 1, 150.0, torch.float32)  # the other keys' weights are all zero by now


def test_a_kernel_of_ones_own_is_not_mistaken_for_the_models_eager_function() -> None:
    """It attends half as sharply; what is left of its rows is scaled up, not what another function would give."""

    def softer(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **_: Any) -> Any:
        scores = (query @ key.mT) * scaling / 2
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return (scores.masked_fill(ahead, -torch.inf).softmax(-1) @ value).transpose(1, 2), None

    transformers.AttentionInterface.register("softer", softer)
    transformers.AttentionMaskInterface.register("softer", lambda *_, **__: None)
    model, read = tiny("gpt2", "softer"), ids(1, 8)
    with torch.no_grad(), av.capture(model) as plain:
        model(read)
    with torch.no_grad(), av.knock_out(model, queries=[6], keys=[2]), av.capture(model) as cut:
        model(read)
    expected = plain.calls[0].weights.log()
    expected[:, :, 6, 2] = -torch.inf
    torch.testing.assert_close(cut.calls[0].weights, expected.softmax(-1), atol=1e-6, rtol=1e-5)


def test_what_is_put_in_place_lies_in_memory_as_what_was_there() -> None:
    """This model goes on with a view of what was mixed; afterwards it is the model with a mask."""
    config = transformers.AfmoeConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=97,
        intermediate_size=16, moe_intermediate_size=16, num_dense_layers=1, num_experts=2, sliding_window=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model, read = transformers.AfmoeForCausalLM._from_config(config).eval(), ids(1, 6)
    allowed = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    allowed[..., 5, 2] = False
    with torch.no_grad(), av.knock_out(model, queries=[5], keys=[2]):
        found = model(read).logits
    masks = {"full_attention": allowed, "sliding_attention": allowed}
    torch.testing.assert_close(found, model(read, attention_mask=masks).logits, atol=1e-5, rtol=1e-5)


def test_a_model_without_attention_is_told() -> None:
    model = transformers.MambaForCausalLM(transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=97))
    told = pytest.raises(av.errors.CaptureError, match="MambaForCausalLM ran and no attention was seen in it")
    with told, torch.no_grad(), av.knock_out(model.eval(), queries=[2], keys=[1]):
        model(ids(1, 5))
