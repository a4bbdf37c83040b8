"""Bahdanau's and Luong's attention: every decoding step is seen, and the steps are the rows of one map."""

from typing import Any

import pytest
import torch
from torch import nn

import hf_attnviz as av
from tests.beyond.rnn import CONTEXTS, SIZE, Attention, Mixer, Scores, Translator, translator
from tests.capturing.extra_models import word_piece

STEPS, KEYS, BATCH = 4, 6, 3


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(5, 20, (BATCH, n), generator=generator) for n in (KEYS, STEPS))  # type: ignore[return-value]


def captured(model: Translator, processor: Any = None, grad: bool = False) -> tuple[av.Recording, torch.Tensor]:
    """The recording, and the weights that the model used, ``[batch, step, key]``; the output keeps its bits."""
    with torch.set_grad_enabled(grad):
        plain = model(*pair())
        model.attention.used.clear()
        with av.capture(model, processor) as recording:
            assert torch.equal(model(*pair()), plain)
    return recording, torch.stack(model.attention.used, 1)


@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("make", [Attention, Mixer])
@pytest.mark.parametrize("context", CONTEXTS)
def test_every_step_is_seen(context: str, make: type[Attention], grad: bool) -> None:
    recording, used = captured(translator(context=context, make=make), grad=grad)
    assert [(c.module, c.layer, c.index, c.step, c.kind) for c in recording.calls] == [
        ("attention", 0, 0, step, "cross") for step in range(STEPS)
    ]
    seen = torch.cat([call.weights for call in recording.calls], 2)
    assert torch.equal(seen, used[:, None])


@pytest.mark.parametrize("way", ["additive", "dot", "general", "concat"])
@pytest.mark.parametrize("inline", [False, True], ids=["module", "inline"])
def test_the_steps_are_the_rows_of_one_map(way: str, inline: bool) -> None:
    recording, used = captured(translator(way=way, inline=inline))
    assert len(recording.traces) == BATCH
    for trace, weights in zip(recording.traces, used, strict=True):
        (only,) = trace.maps
        assert torch.equal(only.weights, weights[None])
        assert (only.steps, only.kind, only.positions) == (tuple(range(STEPS)), "cross", None)
        assert trace.cross.stacked().shape == (1, 1, STEPS, KEYS)
    assert float(used.amax(-1).mean()) > 1.5 / KEYS  # far from uniform, so that a mistaken row would be noticed


def test_the_keys_are_labelled_with_the_source() -> None:
    tokenizer = word_piece()
    recording, _ = captured(translator(), tokenizer)
    expected = tuple(tokenizer.convert_ids_to_tokens(pair()[0][0].tolist()))
    assert tuple(recording.traces[0].maps[0].keys.ids) == tuple(pair()[0][0].tolist())
    assert len(expected) == len(recording.traces[0].maps[0].keys.texts)


def test_chosen_rows_of_the_loop() -> None:
    model = translator()
    with torch.no_grad(), av.capture(model, queries=[1, 3]) as recording:
        model(*pair())
    used = torch.stack(model.attention.used, 1)
    assert torch.equal(recording.traces[1].maps[0].weights, used[1:2, [1, 3]])


def test_two_attentions_of_one_module_stay_apart() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = Scores("additive"), Scores("additive")

        def forward(self, state: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                a = (self.one(state, first).softmax(-1)[..., None] * first).sum(1)
                b = (self.other(state, second).softmax(-1)[..., None] * second).sum(1)
                state = torch.tanh(a - b)
            return state

    torch.manual_seed(0)
    model, inputs = Two(), (torch.randn(2, SIZE), torch.randn(2, 5, SIZE), torch.randn(2, 5, SIZE))
    with torch.no_grad(), av.capture(model) as recording:
        model(*inputs)
        state = inputs[0]
        rows: list[list[torch.Tensor]] = [[], []]
        for _ in range(3):
            weights = [
                score(state, memory).softmax(-1)
                for score, memory in zip((model.one, model.other), inputs[1:], strict=True)
            ]
            for row, one in zip(rows, weights, strict=True):
                row.append(one)
            contexts = [(w[..., None] * m).sum(1) for w, m in zip(weights, inputs[1:], strict=True)]
            state = torch.tanh(contexts[0] - contexts[1])
    maps = recording.traces[0].maps
    assert [m.index for m in maps] == [0, 1]
    for one, row in zip(maps, rows, strict=True):
        torch.testing.assert_close(one.weights[0], torch.stack(row, 1)[0], atol=1e-6, rtol=0)


def test_a_step_called_from_outside_is_a_run_of_its_own() -> None:
    """The user's own loop calls the decoder's step as the target."""
    torch.manual_seed(0)
    attention = Attention("general", "multiply and sum").eval()
    states, state = torch.randn(BATCH, KEYS, SIZE), torch.randn(BATCH, SIZE)
    with torch.no_grad(), av.capture(attention) as recording:
        for _ in range(3):
            state = attention(state, states)
    assert len(recording.runs) == 3
    assert [tuple(call.weights.shape) for call in recording.calls] == [(BATCH, 1, 1, KEYS)] * 3
    for call, used in zip(recording.calls, attention.used, strict=True):
        assert torch.equal(call.weights[:, 0, 0], used)


def test_a_decoding_method_of_the_models_own_is_not_silently_empty() -> None:
    class Attn(Attention):
        pass

    class WithMethod(Translator):
        def translate(self, input_ids: torch.Tensor) -> torch.Tensor:
            states, last = self.encoder(self.embedding(input_ids))
            return self.attention(last[0], states)

    model = WithMethod(make=Attn).eval()
    with pytest.raises(av.errors.CaptureError, match=r"attention ran outside forward\(\)"), av.capture(model):
        model.translate(pair()[0])
    with av.capture(model.attention) as recording:
        model.translate(pair()[0])
    assert torch.equal(recording.calls[0].weights[:, 0, 0], model.attention.used[-1])


def test_time_first_inputs_are_no_heads() -> None:
    """Six sequences of three positions, time first: six rows are six sequences, not three of two heads."""

    class TimeFirst(nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:  # [position, batch, size]
            h = states.transpose(0, 1)
            return torch.bmm(torch.bmm(h, h.transpose(1, 2)).softmax(-1), h)

    states = torch.randn(3, 6, SIZE, generator=torch.Generator().manual_seed(0))
    model = TimeFirst()
    with av.capture(model) as recording:
        model(states)
    h = states.transpose(0, 1)
    truth = torch.bmm(h, h.transpose(1, 2)).softmax(-1)
    assert len(recording.traces) == 6
    for trace, weights in zip(recording.traces, truth, strict=True):
        torch.testing.assert_close(trace.maps[0].weights[0], weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("way", ["@", "matmul", "mm", "vector"])
def test_a_single_sequence_without_a_batch(way: str) -> None:
    class OneAttention(nn.Module):
        def forward(self, query: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
            weights = (query @ states.T).softmax(-1)
            if way == "vector":
                return torch.stack([weights[n] @ states for n in range(len(weights))])
            return {"@": torch.Tensor.__matmul__, "matmul": torch.matmul, "mm": torch.mm}[way](weights, states)

    query, states = torch.randn(2, SIZE), torch.randn(5, SIZE)
    with av.capture(OneAttention()) as recording:
        recording.model(query, states)
    seen = torch.cat([call.weights[0, 0] for call in recording.calls])
    torch.testing.assert_close(seen, (query @ states.T).softmax(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("order", ["heads first", "keys first"])
def test_one_query_of_many_heads(order: str) -> None:
    class HeadsAttention(nn.Module):
        def forward(self, query: torch.Tensor, states: torch.Tensor) -> torch.Tensor:  # [batch, head, (key,) size]
            weights = (query.unsqueeze(2) * states).sum(-1).softmax(-1)
            if order == "heads first":
                return (weights.unsqueeze(-1) * states).sum(2)
            return (weights.transpose(1, 2).unsqueeze(-1) * states.transpose(1, 2)).sum(1)

    query, states = torch.randn(BATCH, 2, SIZE), torch.randn(BATCH, 2, KEYS, SIZE)
    with av.capture(HeadsAttention()) as recording:
        recording.model(query, states)
    truth = torch.einsum("bhd,bhkd->bhk", query, states).softmax(-1)[:, :, None]
    torch.testing.assert_close(recording.calls[0].weights, truth, atol=1e-6, rtol=0)


class Routed(nn.Module):
    """A mixture of experts over flattened tokens: to the shapes it looks like attention with one query."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.gate = way, nn.Linear(SIZE, 4, bias=False)
        self.experts = nn.Parameter(torch.randn(4, SIZE, SIZE))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        flat = hidden.view(-1, SIZE)
        logits = self.gate(flat)
        if self.way == "einsum":
            outputs = torch.einsum("td,edf->tef", flat, self.experts)
            return torch.einsum("te,tef->tf", (logits / 0.5).softmax(-1), outputs).view_as(hidden)
        if self.way == "topk":
            chosen, index = logits.topk(2, dim=-1)
            outputs = torch.einsum("td,tedf->tef", flat, self.experts[index])
            return (chosen.softmax(-1).unsqueeze(-1) * outputs).sum(1).view_as(hidden)
        outputs = torch.einsum("td,edf->tef", flat, self.experts)
        return (logits.softmax(dim=-1).unsqueeze(-1) * outputs).sum(1).view_as(hidden)


@pytest.mark.parametrize("way", ["multiply and sum", "einsum", "topk"])
def test_a_router_over_flattened_tokens_is_no_attention(way: str) -> None:
    torch.manual_seed(0)
    model = Routed(way)
    with pytest.raises(av.errors.NothingCapturedError), av.capture(model):
        model(torch.randn(2, 5, SIZE))


@pytest.mark.parametrize("way", ["multiply and sum", "einsum", "of features"])
def test_a_softmax_over_another_axis_than_the_sum_is_no_attention(way: str) -> None:
    class Pooled(nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            if way == "of features":
                return (states.softmax(-1)[..., :1] * states).sum(1)
            weights = states.sum(-1, keepdim=True).softmax(-1)  # over one: all weights are 1
            if way == "einsum":
                return torch.einsum("bk,bkd->bd", weights[..., 0], states)
            return (weights * states).sum(1)

    with pytest.raises(av.errors.NothingCapturedError), av.capture(Pooled()) as recording:
        recording.model(torch.randn(2, SIZE + 3, SIZE))


def test_a_location_based_attention_is_known_by_its_name() -> None:
    """Weights straight from a linear layer, as the first tutorials had it: only the name tells them from a router."""

    class AttnDecoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.Linear(SIZE, KEYS)

        def forward(self, state: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
            return (self.attn(state).softmax(-1).unsqueeze(-1) * states).sum(1)

    model, state, states = AttnDecoder(), torch.randn(BATCH, SIZE), torch.randn(BATCH, KEYS, SIZE)
    with torch.no_grad(), av.capture(model) as recording:
        model(state, states)
        expected = model.attn(state).softmax(-1)
    assert torch.equal(recording.calls[0].weights[:, 0, 0], expected)


def test_an_attention_that_cannot_be_seen_is_told() -> None:
    class SigmoidAttention(nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return (states @ states.transpose(-1, -2)).sigmoid() @ states

    model = nn.Sequential(SigmoidAttention())
    with pytest.raises(av.errors.CaptureError, match=r"register_attention\(SigmoidAttention"), av.capture(model):
        model(torch.randn(1, 4, SIZE))


class Looks(torch.nn.Module):
    """Attention of a user's own, whatever its arguments and its attribute are called."""

    def forward(self, state: torch.Tensor, seen: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        return (state @ seen.transpose(1, 2)).softmax(-1) @ seen


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Looks(), Looks()

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        own = self.one(target, target, torch.randn_like(target))
        return self.other(own, source)


@pytest.mark.parametrize("length", [4, 6], ids=["other length", "same length"])
def test_a_second_sequence_is_another_one_whatever_it_is_called(length: int) -> None:
    with av.capture(Pair()) as recording:
        recording.model(torch.randn(1, 6, 8), torch.randn(1, length, 8))
    assert [(call.module, call.kind) for call in recording.calls] == [("one", "self"), ("other", "cross")]


def test_more_keys_than_queries_are_another_sequence() -> None:
    class Inline(torch.nn.Module):
        def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return (target @ source.transpose(1, 2)).softmax(-1) @ source

    with av.capture(Inline()) as recording:
        recording.model(torch.randn(1, 6, 8), torch.randn(1, 4, 8))
    assert recording.calls[0].kind == "cross"
