"""Attention functions that users register: whatever they compute, the map is theirs, proved, or refused in words."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    AttentionMaskInterface,
    eager_mask,
    flash_attention_mask,
    sdpa_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import hf_attnviz as av
from tests.capturing.ways import captured, decoder
from tests.models import ids, padded, tiny

NAME = "hf_attnviz_test_function"
Function = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
Register = Callable[..., None]
MASKS = {"sdpa": sdpa_mask, "eager": eager_mask, "flash": flash_attention_mask}
SINK = torch.tensor([0.5, -0.5, 1.0, 2.0])


@pytest.fixture
def register() -> Iterator[Register]:
    def add(function: Function, mask: str | None) -> None:
        AttentionInterface.register(NAME, function)
        if mask is not None:
            AttentionMaskInterface.register(NAME, MASKS[mask])

    yield add
    for table in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
        table._global_mapping.pop(NAME, None)


def scores(module: Any, query: torch.Tensor, key: torch.Tensor, mask: Any, scaling: float | None) -> torch.Tensor:
    """``q·k`` under whichever kind of mask came, by hand."""
    found = query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).mT
    found = found * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    queries, keys = found.shape[-2:]
    if mask is None or mask.dim() == 2:
        if getattr(module, "is_causal", False):
            found = found.masked_fill(torch.ones(queries, keys).triu(1 + keys - queries).bool(), -torch.inf)
        return found if mask is None else found.masked_fill(~mask[:, None, None, :keys].bool(), -1e4)
    if mask.dtype == torch.bool:
        return found.masked_fill(~mask, -1e4)
    return found + mask


def spread(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return (weights @ value.repeat_interleave(weights.shape[1] // value.shape[1], 1)).transpose(1, 2).contiguous()


def sink(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
    found = scores(module, query, key, mask, scaling)
    column = SINK.view(1, 4, 1, 1).expand(*found.shape[:3], 1)
    return spread(torch.cat([found, column], -1).softmax(-1)[..., :-1], value), None


def warm(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
    return spread((scores(module, query, key, mask, scaling) / 3).softmax(-1), value), None


def talkative(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
    weights = (scores(module, query, key, mask, scaling) / 3).softmax(-1)
    return spread(weights, value), weights


def lying(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
    output, weights = talkative(module, query, key, value, mask, scaling)
    return output, weights.roll(1, -1)


def with_sums(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
    found = scores(module, query, key, mask, scaling) / 3
    return spread(found.softmax(-1), value), found.logsumexp(-1, keepdim=True)


def flat(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
    return warm(module, query, key, value, mask, scaling)[0].flatten(2), None


EXPECTED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sink": lambda s: torch.cat([s, SINK.view(4, 1, 1).expand(*s.shape[:2], 1)], -1).softmax(-1)[..., :-1],
    "warm": lambda s: (s / 3).softmax(-1),
}
FUNCTIONS: dict[str, tuple[Function, str, str]] = {
    "a learned sink": (sink, "sink", "kernel on identity"),
    "a temperature": (warm, "warm", "kernel on identity"),
    "weights given back": (talkative, "warm", "returned by the kernel"),
    "wrong weights given back": (lying, "warm", "kernel on identity"),
    "sums given back": (with_sums, "warm", "kernel on identity"),
    "heads side by side": (flat, "warm", "kernel on identity"),
}


@pytest.mark.parametrize("mask", [*MASKS, None])
@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("what", FUNCTIONS)
def test_the_map_is_what_the_function_computed(register: Register, what: str, name: str, mask: str | None) -> None:
    """Without an entry among the masks a function gets none at all, and padding is seen: that is what ran."""
    function, expected, way = FUNCTIONS[what]
    register(function, mask)
    model = decoder(name, NAME) if name == "llama" else tiny(name, NAME)
    inputs = padded([7, 4], "right")
    recording = captured(model, inputs, keep=["maps", "vectors"])
    assert {(call.implementation, call.way) for call in recording.calls} == {(NAME, way)}
    for item, length in enumerate((7, 4)):
        read = 7 if mask is None else length
        for call in recording.calls:
            query, key = call.query[item, :, :length], call.key[item, :, :read]
            by_hand = query @ key.repeat_interleave(4 // len(key), 0).mT
            if name == "llama":
                by_hand = by_hand.masked_fill(torch.ones(length, read).triu(1).bool(), -torch.inf)
            found = call.weights[item, :, :length]
            torch.testing.assert_close(found[..., :read], EXPECTED[expected](by_hand), atol=2e-5, rtol=0)
            assert not found[..., read:].any()


def test_a_function_in_generation(register: Register) -> None:
    register(sink, "sdpa")
    model = decoder("llama", NAME)
    plain = model.generate(ids(2, 5), max_new_tokens=4, do_sample=False)
    with av.capture(model) as recording:
        seen = model.generate(ids(2, 5), max_new_tokens=4, do_sample=False)
    assert torch.equal(plain, seen)
    whole = captured(model, {"input_ids": seen[:, :-1]})
    for one, other in zip(recording.traces, whole.traces, strict=True):
        for found, wanted in zip(one.decoder, other.decoder, strict=True):
            torch.testing.assert_close(found.weights, wanted.weights, atol=2e-5, rtol=0)
            assert float(found.weights.sum(-1).min()) < 0.9


def test_a_function_put_in_the_place_of_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", warm)
    recording = captured(tiny("bert"), {"input_ids": ids(1, 6)}, keep=["maps", "vectors"])
    for call in recording.calls:
        assert (call.implementation, call.way) == ("sdpa", "kernel on identity")
        by_hand = (call.query @ call.key.mT / 3).softmax(-1)
        torch.testing.assert_close(call.weights, by_hand, atol=2e-5, rtol=0)


def test_a_function_that_draws_numbers_is_refused_and_the_stream_stays(register: Register) -> None:
    """Run again for its proof it draws others: nothing can be proved, and no number of the model's is used up."""

    def drawing(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any) -> Any:
        weights = scores(module, query, key, mask, scaling).softmax(-1)
        return spread(nn.functional.dropout(weights, 0.5), value), None

    register(drawing, "sdpa")
    model = decoder("llama", NAME)
    torch.manual_seed(0)
    plain, after = model(ids(1, 6)).logits, torch.get_rng_state()
    torch.manual_seed(0)
    seen: list[torch.Tensor] = []
    with pytest.raises(av.errors.ProofError, match=r"layers\.0\.self_attn"), av.capture(model):
        seen.append(model(ids(1, 6)).logits)
    assert torch.equal(seen[0], plain)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_function_that_fails_when_run_again_disturbs_nothing(register: Register) -> None:
    calls = []

    def once(module: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(module)
        if len(calls) % 2 == 0:
            raise RuntimeError("not again")
        return warm(module, *args, **kwargs)

    register(warm, "sdpa")
    model = tiny("bert", NAME, num_hidden_layers=1)
    plain = model(ids(1, 5)).last_hidden_state
    register(once, "sdpa")
    seen: list[torch.Tensor] = []
    with pytest.raises(av.errors.ProofError, match="not again"), av.capture(model):
        seen.append(model(ids(1, 5)).last_hidden_state)
    assert torch.equal(seen[0], plain)


def test_a_compiled_part_without_attention_passes_nothing_by() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny("bert")
            self.after = torch.compile(lambda hidden: hidden.sin() * 2, backend="eager")

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.after(self.inner(input_ids).last_hidden_state)
            return out

    model = Mixed().eval()
    with torch.no_grad():
        plain = model(ids(1, 5))
        with av.capture(model) as recording:
            seen = model(ids(1, 5))
        expected = tiny("bert", "eager")(ids(1, 5), output_attentions=True).attentions
    assert torch.equal(seen, plain)
    for call, wanted in zip(recording.calls, expected, strict=True):
        torch.testing.assert_close(call.weights, wanted, atol=2e-5, rtol=0)
