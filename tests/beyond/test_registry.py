"""av.register_attention: what no observer can see is stated by the user, is visibly a statement, and never disturbs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hf_attnviz as av
from hf_attnviz.capturing import registry
from tests.capturing.extra_models import HEADS, ByHand, built
from tests.models import ids


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    assert registry._registered == {}


class SigmoidAttention(nn.Module):
    """Attention that is no softmax (Ramapuram et al. 2024): no observer knows it."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.qkv = nn.Linear(size, 3 * size)
        self.dropout = nn.Dropout(0.5)

    def parts(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = self.qkv(hidden).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return (q @ k.transpose(-1, -2) - 1).sigmoid(), q, k, v

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        weights, _, _, v = self.parts(hidden)
        return (self.dropout(weights) @ v).transpose(1, 2).flatten(2)


class Subclass(SigmoidAttention):
    pass


def weights_of(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> torch.Tensor:
    weights: torch.Tensor = module.parts(args[0])[0]
    return weights


def everything_of(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> dict[str, torch.Tensor]:
    weights, q, k, v = module.parts(args[0])
    return {
        "weights": weights,
        "query": q,
        "key": k,
        "value": v,
        "product": output.unflatten(-1, (HEADS, -1)).transpose(1, 2),
    }


def truths(model: Any, tokens: torch.Tensor) -> list[torch.Tensor]:
    hidden, found = model.embedding(tokens), []
    with torch.no_grad():
        for block in model.blocks:
            found.append(block.parts(hidden)[0])
            hidden = hidden + block(hidden)
    return found


@pytest.mark.parametrize("make", [SigmoidAttention, Subclass])
def test_a_registered_class_and_its_subclasses(make: type[SigmoidAttention]) -> None:
    model, tokens = built(make), ids(2, 5)
    plain = model(tokens)
    with av.register_attention(SigmoidAttention, extract=weights_of), av.capture(model) as recording:
        assert torch.equal(model(tokens), plain)
    assert [(c.module, c.layer, c.grade, c.implementation) for c in recording.calls] == [
        ("blocks.0", 0, "stated", "registered"),
        ("blocks.1", 1, "stated", "registered"),
    ]
    for call, truth in zip(recording.calls, truths(model, tokens), strict=True):
        assert torch.equal(call.weights, truth)
        assert call.error != call.error  # not a number: nothing was proved
        assert "weights_of" in call.way
        assert "not proved" in call.way
    assert recording.traces[0].encoder.stacked().shape == (2, HEADS, 5, 5)


def test_the_nearest_registration_speaks() -> None:
    model, tokens = built(Subclass), ids(1, 4)

    def uniform(module: Any, args: Any, kwargs: Any, output: Any) -> torch.Tensor:
        return torch.full((1, HEADS, 4, 4), 0.25)

    with (
        av.register_attention(SigmoidAttention, extract=weights_of),
        av.register_attention(Subclass, extract=uniform),
        av.capture(model) as recording,
    ):
        model(tokens)
    assert recording.calls[0].weights.eq(0.25).all()


def test_what_can_be_checked_is_consistent_and_no_more() -> None:
    model, tokens = built(SigmoidAttention), ids(2, 5)
    keep = ["maps", av.Vectors()]
    with av.register_attention(SigmoidAttention, extract=everything_of), av.capture(model, keep=keep) as recording:
        model(tokens)
        found = av.doctor(model, {"input_ids": tokens})
    assert {(c.grade, c.error < 1e-5) for c in recording.calls} == {("consistent", True)}
    call = recording.calls[1]
    torch.testing.assert_close((call.query @ call.key.mT - 1).sigmoid(), call.weights)
    assert {f.grade for f in found.findings} == {"consistent"}
    assert found.identical
    assert found.unchanged
    assert not found.ok


def test_a_statement_that_contradicts_itself_is_refused() -> None:
    def wrong(module: Any, args: Any, kwargs: Any, output: Any) -> dict[str, torch.Tensor]:
        given = everything_of(module, args, kwargs, output)
        return given | {"weights": given["weights"] * 1.01}

    model = built(SigmoidAttention)
    with (
        av.register_attention(SigmoidAttention, extract=wrong),
        pytest.raises(av.errors.ProofError, match=r"blocks\.0.*differ from the product"),
        av.capture(model),
    ):
        model(ids(1, 4))


def test_the_doctor_shows_a_statement_as_what_it_is() -> None:
    model = built(SigmoidAttention)
    with av.register_attention(SigmoidAttention, extract=weights_of):
        found = av.doctor(model, {"input_ids": ids(1, 4)})
    assert [(f.module, f.grade, f.error, f.bound) for f in found.findings] == [
        ("blocks.0", "stated", None, None),
        ("blocks.1", "stated", None, None),
    ]
    assert not found.ok
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["findings"][0]["grade"] == "stated"


def test_the_observers_are_silent_inside() -> None:
    """A registered class whose attention could also be seen is recorded once, as its user says."""
    model, tokens = built(lambda: ByHand("F.softmax, @")), ids(1, 5)

    def half(module: Any, args: Any, kwargs: Any, output: Any) -> torch.Tensor:
        truth: torch.Tensor = module.truth(args[0])
        return truth / 2

    with av.capture(model) as seen:
        model(tokens)
    with av.register_attention(ByHand, extract=half), av.capture(model) as recording:
        model(tokens)
    assert [c.grade for c in seen.calls] == ["exact"] * 2
    assert [c.grade for c in recording.calls] == ["stated"] * 2
    torch.testing.assert_close(recording.calls[1].weights, seen.calls[1].weights / 2)


def test_the_model_itself_and_layers_of_torch_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    alone, hidden = SigmoidAttention().eval(), torch.randn(2, 5, 32)
    with av.register_attention(SigmoidAttention, extract=weights_of), av.capture(alone) as recording:
        alone(hidden)
    assert torch.equal(recording.calls[0].weights, alone.parts(hidden)[0])

    def by_torch(module: Any, args: Any, kwargs: Any, output: Any) -> torch.Tensor:
        found: torch.Tensor = nn.MultiheadAttention.forward(module, *args, average_attn_weights=False)[1]
        return found

    layer = nn.TransformerEncoderLayer(32, HEADS, 64, batch_first=True).train(False)
    quick, calls = torch._transformer_encoder_layer_fwd, []
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(1) or quick(*args))
    for grad in (True, False):  # without gradients torch takes its fast way, and a hook inside would switch it off
        for module in (layer, nn.Sequential(nn.Linear(32, 32), layer)):
            calls.clear()
            with torch.set_grad_enabled(grad):
                plain = module(hidden)
                with av.register_attention(nn.MultiheadAttention, extract=by_torch), av.capture(module) as recording:
                    assert torch.equal(module(hidden), plain)
            assert [c.grade for c in recording.calls] == ["stated"]
            assert len(calls) == (0 if grad else 2)


def test_an_error_inside_is_told_and_disturbs_nothing() -> None:
    def broken(module: Any, args: Any, kwargs: Any, output: Any) -> torch.Tensor:
        return kwargs["no such thing"]  # type: ignore[no-any-return]

    model, tokens = built(SigmoidAttention), ids(1, 4)
    plain = model(tokens)
    message = r"blocks\.0 \(and 1 more.*broken.*SigmoidAttention.*KeyError.*no such thing"
    with (
        av.register_attention(SigmoidAttention, extract=broken),
        pytest.raises(av.errors.CaptureError, match=message),
        av.capture(model),
    ):
        assert torch.equal(model(tokens), plain)


def test_the_random_numbers_of_the_model_stay() -> None:
    """The function runs the module once more, dropout and all: the model must not notice."""

    def again(module: Any, args: Any, kwargs: Any, output: Any) -> torch.Tensor:
        module(*args)
        return weights_of(module, args, kwargs, output)

    model, tokens = built(SigmoidAttention).train(), ids(2, 5)
    torch.manual_seed(1)
    plain = model(tokens)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    with av.register_attention(SigmoidAttention, extract=again), av.capture(model) as recording:
        assert torch.equal(model(tokens), plain)
    assert torch.equal(torch.get_rng_state(), after)
    assert len(recording.calls) == 2


def test_what_was_handed_over_is_a_copy() -> None:
    class Reuses(nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            self.weights = hidden.new_full((1, 1, 3, 3), 0.5)
            return hidden

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Reuses()

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            hidden = self.inner(hidden)
            self.inner.weights.zero_()
            return hidden

    model = Model()
    with av.register_attention(Reuses, extract=lambda m, *_: m.weights), av.capture(model) as recording:
        model(torch.ones(1, 3, 2))
    assert recording.calls[0].weights.eq(0.5).all()


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        (lambda w: w[0], r"weights as \(4, 5, 5\) of torch\.float32; .*\[batch, head, query, key\].*\[:, None\]"),
        (lambda w: w.long(), "torch.int64"),
        (lambda w: None, "weights as NoneType"),
        (lambda w: [w], "weights as list"),
        (lambda w: {"weight": w}, "gave a dictionary with weight; expected weights"),
        (lambda w: {"value": w}, "gave a dictionary with value"),
        (lambda w: {"weights": w, "value": w[..., :3, :]}, r"value \(2, 4, 3, 5\) with weights \(2, 4, 5, 5\)"),
        (lambda w: {"weights": w, "product": w[:, :2]}, r"product \(2, 2, 5, 5\)"),
        (lambda w: {"weights": w, "key": w[:, :3]}, r"key \(2, 3, 5, 5\)"),
        (lambda w: {"weights": w, "query": 3}, "query as int"),
    ],
)  # fmt: skip
def test_other_things_than_weights_are_refused_in_words(gives: Any, words: str) -> None:
    def extract(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        return gives(weights_of(module, args, kwargs, output))

    model, tokens = built(SigmoidAttention), ids(2, 5)
    plain = model(tokens)
    with (
        av.register_attention(SigmoidAttention, extract=extract),
        pytest.raises(av.errors.CaptureError, match=words),
        av.capture(model),
    ):
        assert torch.equal(model(tokens), plain)


@pytest.mark.parametrize("what", ["SigmoidAttention", SigmoidAttention(), int, None])
def test_what_is_no_class_of_modules_is_refused(what: Any) -> None:
    with pytest.raises(av.errors.ArgumentError, match="expected a class of torch modules"):
        av.register_attention(what, extract=weights_of)


def test_what_is_no_function_and_a_second_registration_are_refused() -> None:
    with pytest.raises(av.errors.ArgumentError, match="expected a function extract"):
        av.register_attention(SigmoidAttention, extract=3)  # type: ignore[arg-type]
    first = av.register_attention(SigmoidAttention, extract=weights_of)
    with pytest.raises(av.errors.ArgumentError, match="registered already"):
        av.register_attention(SigmoidAttention, extract=weights_of)
    first.unregister()
    first.unregister()


def test_afterwards_the_class_is_what_it_was() -> None:
    model, tokens = built(SigmoidAttention), ids(1, 4)
    with pytest.raises(ZeroDivisionError), av.register_attention(SigmoidAttention, extract=weights_of):
        raise ZeroDivisionError
    with pytest.raises(av.errors.CaptureError, match=r"av\.register_attention\(SigmoidAttention"), av.capture(model):
        model(tokens)
    assert all(not block._forward_hooks and not block._forward_pre_hooks for block in model.blocks)


def test_a_statement_travels_through_a_file(tmp_path: Path) -> None:
    model = built(SigmoidAttention)
    with av.register_attention(SigmoidAttention, extract=weights_of), av.capture(model) as recording:
        model(ids(1, 4))
    recording.trace.save(tmp_path / "x.safetensors")
    found = av.load(tmp_path / "x.safetensors").maps[0]
    assert torch.equal(found.weights, recording.trace.maps[0].weights)
    assert found.error != found.error
