"""Interventions against the same thing done by hand to the model's own weights, hooks and masks."""

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
