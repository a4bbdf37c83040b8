"""Attention gradients against slow references: an eager model and autograd, the formula by hand, finite differences."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

import hf_attnviz as av
from tests.capturing.extra_models import HEADS, WAYS, ByHand, built
from tests.capturing.test_functions import Direct
from tests.capturing.test_undo import marks
from tests.models import CONFIGS, ids, padded, tiny

CLOSE = {"atol": 2e-5, "rtol": 2e-4}
FIELDS = {"encoder": "encoder_attentions", "decoder": "decoder_attentions", "cross": "cross_attentions"}


def scalar(out: Any, real: torch.Tensor) -> torch.Tensor:
    """A number that depends on the real positions of a model's output."""
    hidden = out.logits if "logits" in out else out.last_hidden_state
    total: torch.Tensor = hidden[real].square().mean() + hidden[real][:, 3].sum()
    return total


def batch(name: str, side: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Inputs, and which positions of the output are real."""
    inputs = padded([7, 4], side)
    if name not in ("t5", "bart"):
        return inputs, inputs["attention_mask"].bool()
    target = padded([5, 3], "right", seed=9)
    both = {"decoder_input_ids": target["input_ids"], "decoder_attention_mask": target["attention_mask"]}
    return inputs | both, target["attention_mask"].bool()


def reference(model: Any, inputs: dict[str, torch.Tensor], real: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """By stack, the gradients ``[batch, head, query, key]`` of an eager model that hands its weights out."""
    out = model(**inputs, output_attentions=True)
    weights = {stack: list(out[field]) for stack, field in FIELDS.items() if out.get(field)} or {
        "only": list(out.attentions)
    }
    loss = scalar(out, real)
    return {stack: list(torch.autograd.grad(loss, maps, retain_graph=True)) for stack, maps in weights.items()}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_gives_the_gradients_of_its_eager_copy(name: str, backend: str, side: str) -> None:
    model, (inputs, real) = tiny(name, backend), batch(name, side)
    before, config, plain = marks(model), model.config.to_dict(), model(**inputs)
    with av.capture(model, gradients=True) as recording:
        out = model(**inputs)
        scalar(out, real).backward()
    model.zero_grad()
    assert model.config.to_dict() == config and model.config._attn_implementation == backend
    assert marks(model) == before
    one, other = out.to_tuple()[0], plain.to_tuple()[0]
    assert torch.equal(one, other) if backend == "eager" else torch.allclose(one, other, atol=1e-4)
    expected = reference(tiny(name, "eager"), inputs, real)
    rows = real
    columns = inputs["attention_mask"].bool()
    for item, trace in enumerate(recording.traces):
        for stack, gradients in expected.items():
            found = trace.stack() if stack == "only" else trace.stacks[stack]
            queries = columns[item] if stack == "encoder" else rows[item]
            keys = rows[item] if stack == "decoder" else columns[item]
            for m, gradient in zip(found, gradients, strict=True):
                assert m.gradient is not None and m.gradient.shape == m.weights.shape
                assert float(m.gradient.abs().max()) > 1e-3
                torch.testing.assert_close(m.gradient, gradient[item][:, queries][:, :, keys], **CLOSE)
    for call in recording.calls:
        assert call.gradient.shape == call.weights.shape
        assert call.error <= call.bound and not call.gradient.requires_grad


def test_images() -> None:
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    config = transformers.ViTConfig(**size, image_size=16, patch_size=4)
    models = []
    for backend in ("sdpa", "eager"):
        torch.manual_seed(0)
        models.append(transformers.ViTModel._from_config(config, attn_implementation=backend).eval())
        for parameter in models[-1].parameters():
            nn.init.normal_(parameter, std=0.2)
    models[1].load_state_dict(models[0].state_dict())
    pixels, real = torch.randn(2, 3, 16, 16), torch.ones(2, 17, dtype=torch.bool)
    with av.capture(models[0], gradients=True) as recording:
        scalar(models[0](pixels), real).backward()
    expected = reference(models[1], {"pixel_values": pixels}, real)["only"]
    assert len(recording.calls) == 2
    for call, gradient in zip(recording.calls, expected, strict=True):
        torch.testing.assert_close(call.gradient, gradient, **CLOSE)


# Two calls for one map; and what torch itself cannot differentiate.
NO_BACKWARD = ("in chunks", "out=", "changed in place", "written into after dropout")
NEVER_WHOLE = ("exp, divided last", "multiply and sum, expanded")


def by_formula(block: ByHand, hidden: torch.Tensor) -> torch.Tensor:
    """The gradient of the sum of squares of ``hidden + block(hidden)``, its weights put in by hand."""
    with torch.no_grad():
        weights = block.truth(hidden)
    weights.requires_grad_()
    values = block.qkv(hidden).view(*hidden.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)[2]
    out = hidden + block.out((weights @ values).transpose(1, 2).reshape(hidden.shape))
    return torch.autograd.grad(out.square().sum(), weights)[0]


@pytest.mark.parametrize("way", [way for way in WAYS if way not in NO_BACKWARD + NEVER_WHOLE])
def test_attention_written_by_hand(way: str) -> None:
    model = built(lambda: ByHand(way), count=1)
    plain = model(ids(2, 6))
    with av.capture(model, gradients=True) as recording:
        out = model(ids(2, 6))
        out.square().sum().backward()
    assert torch.equal(out, plain)  # nothing had to be put in place of anything
    expected = by_formula(model.blocks[0], model.embedding(ids(2, 6)))
    torch.testing.assert_close(recording.calls[0].gradient, expected, **CLOSE)
    torch.testing.assert_close(recording.traces[1].maps[0].gradient, expected[1], **CLOSE)


@pytest.mark.parametrize("way", NEVER_WHOLE)
def test_weights_that_never_stand_in_the_model_have_no_gradient(way: str) -> None:
    model = built(lambda: ByHand(way), count=1)
    with av.capture(model, gradients=True) as recording:
        model(ids(2, 6)).square().sum().backward()
    with pytest.raises(av.errors.NotKeptError, match="never stand in the model as such"):
        _ = recording.calls[0].gradient
    assert recording.traces[0].maps[0].gradient is None


@pytest.mark.parametrize(
    "way", ["3-D", "4-D", "causal", "scale", "bool mask 2-D", "bool mask 4-D", "float mask 4-D", "groups"]
)
def test_scaled_dot_product_attention_called_directly(way: str) -> None:
    model = built(lambda: Direct(way), count=1)
    plain = model(ids(2, 6))
    with av.capture(model, gradients=True) as recording:
        out = model(ids(2, 6))
        out.square().sum().backward()
    torch.testing.assert_close(out, plain, atol=1e-5, rtol=0)
    block, hidden = model.blocks[0], model.embedding(ids(2, 6)).detach()
    with torch.no_grad():
        weights = block.truth(hidden)
        values = block.qkv(hidden).chunk(3, -1)[2].view(2, 6, weights.shape[1], -1).transpose(1, 2)
        values = values[:, [0, 0, 1, 1]] if way == "groups" else values
    weights.requires_grad_()
    result = hidden + (weights @ values).transpose(1, 2).reshape(hidden.shape)
    (expected,) = torch.autograd.grad(result.square().sum(), weights)
    torch.testing.assert_close(recording.calls[0].weights, weights.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(recording.calls[0].gradient, expected, **CLOSE)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_of_torch(need_weights: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(32, HEADS, batch_first=batch_first).eval()
    query, memory = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    order = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
    given = order(query), order(memory), order(memory)
    plain = attention(*given, need_weights=need_weights)[0]
    with av.capture(attention, gradients=True) as recording:
        out = attention(*given, need_weights=need_weights)[0]
        out.square().sum().backward()
    torch.testing.assert_close(out, plain, atol=1e-5, rtol=0)

    def heads(t: torch.Tensor, part: int) -> torch.Tensor:
        weight, bias = attention.in_proj_weight.chunk(3)[part], attention.in_proj_bias.chunk(3)[part]
        return F.linear(t, weight, bias).view(2, -1, HEADS, 8).transpose(1, 2)

    weights = (heads(query, 0) @ heads(memory, 1).mT / math.sqrt(8)).softmax(-1).detach().requires_grad_()
    result = attention.out_proj((weights @ heads(memory, 2)).transpose(1, 2).reshape(2, 5, 32))
    (expected,) = torch.autograd.grad(result.square().sum(), weights)
    torch.testing.assert_close(recording.calls[0].weights, weights.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(recording.calls[0].gradient, expected, **CLOSE)


class Nudged(nn.Module):
    """Attention whose weights can be moved one cell at a time, after the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.nudge = torch.zeros(2, 3, 4, 4, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(2, 4, 3, 3, 2).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2)).softmax(-1) + self.nudge
        return (weights @ v).transpose(1, 2).reshape(2, 4, 6)


@pytest.mark.parametrize("cell", [(0, 0, 0, 0), (1, 2, 3, 1), (0, 1, 2, 3)])
def test_finite_differences(cell: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    model, x = Nudged().double(), torch.randn(2, 4, 6, dtype=torch.float64)

    def value() -> torch.Tensor:
        out: torch.Tensor = (model(x) ** 3).sum()
        return out

    with av.capture(model, gradients=True) as recording:
        value().backward()
    sides = []
    for step in (1e-4, -1e-4):
        model.nudge[cell] = step
        sides.append(float(value().detach()))
    assert abs((sides[0] - sides[1]) / 2e-4 - float(recording.calls[0].gradient[cell])) < 1e-6
    assert abs(float(recording.calls[0].gradient[cell])) > 1e-3


# ---- what it does to the model


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_the_parameters_gradients_differ_by_rounding(name: str) -> None:
    model, (inputs, _) = tiny(name), batch(name, "left")

    def gradients(out: Any) -> list[torch.Tensor]:
        model.zero_grad()
        out.to_tuple()[0].square().mean().backward()  # padding too: what the kernel gives there goes on
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradients(model(**inputs))
    with av.capture(model, gradients=True):
        seen = gradients(model(**inputs))
    for one, other in zip(plain, seen, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_only_the_chosen_layers_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    home, calls = transformers.models.bert.modeling_bert, []
    eager = home.eager_attention_forward

    def counted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls.append(module)
        return eager(module, *args, **kwargs)

    monkeypatch.setattr(home, "eager_attention_forward", counted)
    model = tiny("bert", num_hidden_layers=3)
    with av.capture(model, layers=[1], gradients=True) as recording:
        model(ids(1, 5)).last_hidden_state.sum().backward()
    assert calls == [model.encoder.layer[1].attention.self]
    assert recording.trace.encoder.layers == (1,)


def test_without_asking_the_kernel_runs_as_ever() -> None:
    model = tiny("bert")
    plain = model(ids(2, 6)).last_hidden_state
    with av.capture(model) as outer, av.capture(model, gradients=True) as inner:
        model(ids(2, 6)).last_hidden_state.sum().backward()
    assert inner.calls[0].gradient.shape == (2, 4, 6, 6)
    assert torch.equal(inner.calls[0].weights, outer.calls[0].weights)
    with pytest.raises(av.errors.NotKeptError, match=r"layer\.0\.attention\.self.*gradients=True"):
        outer.calls[0].gradient  # noqa: B018
    assert outer.traces[0].maps[0].gradient is None
    with torch.no_grad(), av.capture(model, gradients=True):
        assert torch.equal(model(ids(2, 6)).last_hidden_state, plain)  # without a graph there is nothing to replace


def test_a_frozen_model_has_attention_gradients_too() -> None:
    model, expected = tiny("bert").requires_grad_(False), tiny("bert", "eager")
    real = torch.ones(2, 6, dtype=torch.bool)
    with av.capture(model, gradients=True) as recording:
        scalar(model(ids(2, 6)), real).backward()
    for call, gradient in zip(
        recording.calls, reference(expected, {"input_ids": ids(2, 6)}, real)["only"], strict=True
    ):
        torch.testing.assert_close(call.gradient, gradient, **CLOSE)
    by_hand = built(lambda: ByHand("F.softmax, @"), count=1).requires_grad_(False)
    with av.capture(by_hand, gradients=True) as recording:
        by_hand(ids(1, 4))
    with pytest.raises(av.errors.NotKeptError, match="requires a gradient"):
        recording.calls[0].gradient  # noqa: B018


def test_double_precision() -> None:
    model, expected = tiny("llama").double(), tiny("llama", "eager").double()
    real = torch.ones(2, 6, dtype=torch.bool)
    with av.capture(model, gradients=True) as recording:
        scalar(model(ids(2, 6)), real).backward()
    for call, gradient in zip(
        recording.calls, reference(expected, {"input_ids": ids(2, 6)}, real)["only"], strict=True
    ):
        torch.testing.assert_close(call.gradient, gradient, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["bert", "t5"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """As near to the truth as a model is that runs eager in half precision, over four models; outputs likewise."""
    inputs, real = batch(name, "right")
    off = {"ours": 0.0, "eager": 0.0, "output": 0.0, "plain": 0.0}
    for seed in range(4):
        kinds = ("sdpa", "eager", "eager")
        model, eager, wide = (tiny(name, kind, seed).to(dtype) for kind in kinds)
        truth = _flat(reference(wide.double(), inputs, real))
        with torch.no_grad():
            plain, exact = model(**inputs).to_tuple()[0], wide(**inputs).to_tuple()[0]
        with av.capture(model, gradients=True) as recording:
            out = model(**inputs)
            scalar(out, real).backward()
        assert {call.gradient.dtype for call in recording.calls} == {dtype}
        stacks: dict[str, list[torch.Tensor]] = {stack: [] for stack in FIELDS}
        for call in recording.calls:
            stacks["cross" if call.kind == "cross" else call.stack].append(call.gradient)
        off["ours"] += float((_flat(stacks) - truth).norm())
        off["eager"] += float((_flat(reference(eager, inputs, real)) - truth).norm())
        off["output"] += float((out.to_tuple()[0].detach() - exact).norm())
        off["plain"] += float((plain - exact).norm())
    assert off["ours"] < 1.5 * off["eager"]
    assert off["output"] < 1.5 * off["plain"]


def _flat(stacks: dict[str, list[torch.Tensor]]) -> torch.Tensor:
    return torch.cat([gradient.double().flatten() for stack in stacks.values() for gradient in stack])


# ---- in traces


def test_rows_and_their_gradients_are_picked_alike() -> None:
    model = tiny("bert")
    inputs, real = batch("bert", "right")
    with av.capture(model, gradients=True) as whole:
        scalar(model(**inputs), real).backward()
    with av.capture(model, queries=[1, -1], gradients=True) as chosen:
        scalar(model(**inputs), real).backward()
    assert chosen.calls[0].gradient.shape == chosen.calls[0].weights.shape
    for one, other in zip(whole.traces, chosen.traces, strict=True):
        rows = list(other.encoder.maps[1].positions or ())
        assert torch.equal(other.encoder.maps[1].gradient, one.encoder.maps[1].gradient[:, rows])


def test_a_loop_over_a_cache_is_joined() -> None:
    """Two forwards that share a cache: one trace, and the gradient of the last scalar over both."""
    model, full = tiny("llama"), tiny("llama", "eager")
    tokens = ids(1, 6)
    with av.capture(model, gradients=True) as recording:
        first = model(tokens[:, :4], use_cache=True)
        second = model(tokens[:, 4:], past_key_values=first.past_key_values)
        second.logits[0, -1].square().sum().backward()
    out = full(tokens, output_attentions=True)
    expected = torch.autograd.grad(out.logits[0, -1].square().sum(), list(out.attentions))
    assert len(recording.runs) == 1
    for m, gradient in zip(recording.trace.decoder, expected, strict=True):
        seen = gradient[0].tril()  # what stands above the diagonal no cache has ever held
        assert m.gradient is not None
        torch.testing.assert_close(m.gradient[:, :, :4].tril(), seen[:, :, :4].tril(), **CLOSE)
        torch.testing.assert_close(m.gradient.tril(), seen, **CLOSE)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = tiny("bert")
    with av.capture(model, gradients=True) as recording:
        model(ids(1, 5)).last_hidden_state.sum().backward()
    trace = recording.trace
    loaded = av.load(trace.save(tmp_path / "a.trace"))
    for one, other in zip(trace.maps, loaded.maps, strict=True):
        assert one.gradient is not None and torch.equal(one.gradient, other.gradient)
    with av.capture(model) as recording:
        model(ids(1, 5))
    assert av.load(recording.trace.save(tmp_path / "b.trace")).maps[0].gradient is None
    with pytest.raises(av.errors.ShapeError, match="gradient shaped like the weights"):
        av.AttentionMap(torch.ones(1, 5, 5), trace.maps[0].queries, trace.maps[0].keys, "x", 0, gradient=torch.ones(5))
