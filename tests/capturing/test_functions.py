"""Attention that a model computes by itself: the same bits come out, and the map is the one that was used."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hf_attnviz as av
from tests.capturing.extra_models import HEADS, WAYS, ByHand, built
from tests.models import ids


def plain_and_captured(model: Any, *args: Any, grad: bool = False) -> tuple[Any, av.Recording]:
    with torch.set_grad_enabled(grad):
        torch.manual_seed(5)
        plain = model(*args)
        after = torch.get_rng_state()
        torch.manual_seed(5)
        with av.capture(model) as recording:
            seen = model(*args)
        assert torch.equal(torch.get_rng_state(), after)
    for one, other in zip(plain, seen, strict=True) if isinstance(plain, tuple) else [(plain, seen)]:
        assert (one is None and other is None) or torch.equal(one, other)
    return seen, recording


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "in chunks"])
def test_the_map_is_the_one_that_was_used(way: str, training: bool) -> None:
    model = built(lambda: ByHand(way)).train(training)
    inputs: list[torch.Tensor] = []
    handles = [block.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in model.blocks]
    _, recording = plain_and_captured(model, ids(2, 6))
    for handle in handles:
        handle.remove()
    assert [call.module for call in recording.calls] == ["blocks.0", "blocks.1"]
    for layer, call in enumerate(recording.calls):
        assert call.layer == layer
        with torch.no_grad():
            truth = model.blocks[layer].truth(inputs[-2 + layer])
        torch.testing.assert_close(call.weights, truth, atol=1e-6, rtol=0)
    assert len(recording.traces) == 2
    assert recording.traces[0].maps[0].weights.shape == (HEADS, 6, 6)


def test_a_transposed_map_of_unequal_sides_keeps_its_sides() -> None:
    class Cross(nn.Module):
        def forward(self, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            scores = memory @ query.transpose(-1, -2)
            return F.dropout(scores.softmax(-2), 0.2, self.training).transpose(-1, -2) @ memory

    query, memory = torch.randn(2, HEADS, 3, 8), torch.randn(2, HEADS, 5, 8)
    model = Cross().train()
    _, recording = plain_and_captured(model, query, memory)
    truth = (query @ memory.transpose(-1, -2)).softmax(-1)
    torch.testing.assert_close(recording.calls[0].weights, truth, atol=1e-6, rtol=0)


class Direct(nn.Module):
    """scaled_dot_product_attention without transformers."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.qkv = nn.Linear(32, 96)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        batch, length, _ = hidden.shape
        q, k, v = self.qkv(hidden).chunk(3, -1)
        if self.way == "3-D":
            return F.scaled_dot_product_attention(q, k, v)
        q, k, v = (t.view(batch, length, HEADS, -1).transpose(1, 2) for t in (q, k, v))
        options: dict[str, Any] = {
            "4-D": {},
            "causal": {"is_causal": True},
            "scale": {"scale": 1.5},
            "bool mask 2-D": {"attn_mask": torch.ones(length, length, dtype=torch.bool).triu()},
            "bool mask 4-D": {"attn_mask": (torch.arange(length) < 4).expand(batch, 1, 1, length)},
            "float mask 4-D": {"attn_mask": torch.linspace(-3, 3, length).expand(batch, HEADS, length, length)},
            "dropout": {"dropout_p": 0.4 if self.training else 0.0},
            "groups": {"enable_gqa": True},
        }[self.way]
        if self.way == "groups":
            k, v = k[:, :2], v[:, :2]
        return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).reshape(batch, length, -1)

    def truth(self, hidden: torch.Tensor) -> torch.Tensor:
        batch, length, size = hidden.shape
        heads = 1 if self.way == "3-D" else HEADS
        q, k = (t.view(batch, length, heads, -1).transpose(1, 2) for t in self.qkv(hidden).chunk(3, -1)[:2])
        if self.way == "groups":
            k = k[:, [0, 0, 1, 1]]
        scores = q @ k.transpose(-1, -2) * (1.5 if self.way == "scale" else (size // heads) ** -0.5)
        ones = torch.ones(length, length)
        if self.way == "causal":
            scores = scores.masked_fill(ones.triu(1).bool(), -torch.inf)
        if self.way == "bool mask 2-D":
            scores = scores.masked_fill(ones.tril(-1).bool(), -torch.inf)
        if self.way == "bool mask 4-D":
            scores[..., 4:] = -torch.inf
        if self.way == "float mask 4-D":
            scores = scores + torch.linspace(-3, 3, length)
        return scores.softmax(-1)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "way", ["3-D", "4-D", "causal", "scale", "bool mask 2-D", "bool mask 4-D", "float mask 4-D", "dropout", "groups"]
)
def test_scaled_dot_product_attention_called_directly(way: str, training: bool) -> None:
    model = built(lambda: Direct(way), count=1).train(training)
    tokens = ids(2, 6)
    _, recording = plain_and_captured(model, tokens)
    with torch.no_grad():
        truth = model.blocks[0].truth(model.embedding(tokens))
    torch.testing.assert_close(recording.calls[0].weights, truth, atol=1e-5, rtol=0)
    assert recording.calls[0].error < 1e-4
    assert [t.item for t in recording.traces] == [0, 1]


class Multi(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.attention = nn.MultiheadAttention(32, HEADS, dropout=0.2, batch_first=True)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.attention(hidden, hidden, hidden, need_weights=self.need_weights)[0]
        return out


@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_of_torch(need_weights: bool, training: bool, grad: bool) -> None:
    model = built(lambda: Multi(need_weights)).train(training)
    tokens = ids(2, 6)
    _, recording = plain_and_captured(model, tokens, grad=grad)
    assert [call.layer for call in recording.calls] == [0, 1]
    hidden = model.embedding(tokens)
    reference = model.blocks[0].attention.eval()
    with torch.no_grad():
        truth = reference(hidden, hidden, hidden, need_weights=True, average_attn_weights=False)[1]
    torch.testing.assert_close(recording.calls[0].weights, truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_batch_is_known_without_token_ids(need_weights: bool) -> None:
    torch.manual_seed(0)
    model = Multi(need_weights).eval()
    hidden = torch.randn(3, 5, 32)
    with torch.enable_grad():
        plain = model(hidden)
        with av.capture(model) as recording:
            assert torch.equal(model(hidden), plain)
    assert recording.calls[0].weights.shape == (3, HEADS, 5, 5)
    assert len(recording.traces) == 3


@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_encoder_layers_of_torch_keep_their_bits(padded: bool, grad: bool) -> None:
    """Without gradients torch takes its fast path here; a hook or a mode that switches it off changes bits."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, HEADS, 64, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            out: torch.Tensor = self.encoder(hidden, src_key_padding_mask=mask)
            return out

    torch.manual_seed(0)
    model = Encoder().eval()
    hidden = torch.randn(2, 7, 32)
    mask = torch.tensor([[False] * 7, [False] * 4 + [True] * 3]) if padded else None
    _, recording = plain_and_captured(model, hidden, mask, grad=grad)
    assert [call.weights.shape for call in recording.calls] == [(2, HEADS, 7, 7)] * 2
    layer = model.encoder.layers[0]
    with torch.no_grad():
        truth = layer.self_attn(
            hidden, hidden, hidden, key_padding_mask=mask, need_weights=True, average_attn_weights=False
        )[1]
    torch.testing.assert_close(recording.calls[0].weights, truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", ["layer", "attention"])
def test_a_module_of_torch_as_the_target_itself(make: str) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2, 7, 32)
    if make == "layer":
        _, recording = plain_and_captured(nn.TransformerEncoderLayer(32, HEADS, 64, batch_first=True).eval(), hidden)
    else:
        attention = nn.MultiheadAttention(32, HEADS, batch_first=True).eval()
        _, recording = plain_and_captured(attention, hidden, hidden, hidden)
    assert recording.calls[0].weights.shape == (2, HEADS, 7, 7)


class Distracted(nn.Module):
    """Attention among softmaxes that are none: a gate, a router, soft embeddings, class probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = ByHand("softmax, matmul")
        self.router, self.classes = nn.Linear(32, 4), nn.Linear(32, 97)
        self.experts = nn.Parameter(torch.randn(4, 32, 32) * 0.1)
        self.layer_mix = nn.Parameter(torch.randn(3))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.attention(hidden)
        routes = self.router(hidden).softmax(-1)  # [batch, token, expert]
        expert_outputs = torch.einsum("btd,edf->btef", hidden, self.experts)
        hidden = (routes[..., None] * expert_outputs).sum(-2)
        hidden = hidden * (self.layer_mix.softmax(0)[0])
        return self.classes(hidden).softmax(-1) @ self.classes.weight  # soft embeddings


def test_softmaxes_that_are_no_attention_are_not_reported() -> None:
    model = built(Distracted, count=1)
    _, recording = plain_and_captured(model, ids(2, 6))
    assert [call.module for call in recording.calls] == ["blocks.0.attention"]


def test_a_dead_softmax_is_not_reported() -> None:
    class Dead(ByHand):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            (hidden @ hidden.transpose(-1, -2)).softmax(-1)
            return super().forward(hidden)

    _, recording = plain_and_captured(built(lambda: Dead("F.softmax, @")), ids(1, 5))
    assert len(recording.calls) == 2


def test_attention_is_not_missed_in_one_layer_only() -> None:
    """One layer that cannot be seen among others that can: an error, or its map; never a stack with a hole."""

    model = built(lambda: ByHand("F.softmax, @"), count=3)
    model.blocks[1] = ByHand("einsum")
    with av.capture(model) as recording:
        model(ids(1, 5))
    assert recording.trace.stack().layers == (0, 1, 2)


def test_rows_computed_in_chunks_are_joined_or_refused() -> None:
    model = built(lambda: ByHand("in chunks"))
    tokens = ids(1, 6)
    try:
        with av.capture(model) as recording:
            model(tokens)
        first = recording.trace.stack().maps[0]
    except av.errors.CaptureError:
        return
    with torch.no_grad():
        truth = model.blocks[0].truth(model.embedding(tokens))
    torch.testing.assert_close(first.weights, truth[0], atol=1e-6, rtol=0)


def test_queries_in_chunks_are_not_missed_beside_other_layers() -> None:
    model = built(lambda: ByHand("F.softmax, @"))
    model.blocks[1] = ByHand("in chunks")
    with pytest.raises(av.errors.CaptureError, match=r"blocks\.1.*cut along the queries"), av.capture(model):
        model(ids(1, 6))


class Heads(nn.Module):
    """Each head's weights meet its values by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(32, 24)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        q, k, v = self.part(hidden).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        self.used = (4 * q @ k.mT).softmax(-1)
        parts = [w @ value for w, value in zip(self.used.unbind(1), v.unbind(1), strict=True)]
        return torch.cat(parts, dim=-1).repeat(1, 1, 4)


def test_heads_that_are_parted_are_maps_of_their_own() -> None:
    model = built(Heads, count=1)
    _, recording = plain_and_captured(model, ids(3, 5))
    one, other = recording.calls
    assert torch.equal(torch.cat([one.weights, other.weights], dim=1), model.blocks[0].used)
    assert [(found.index, found.weights.shape) for found in recording.traces[2].maps] == [
        (0, (1, 5, 5)),
        (1, (1, 5, 5)),
    ]


class TimeFirst(nn.Module):
    """Positions stand first, and heads are folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        length, batch, size = hidden.shape
        q, k, v = (part.reshape(length, 2 * batch, -1).transpose(0, 1) for part in self.qkv(hidden).chunk(3, -1))
        weights = torch.bmm(q, k.mT).softmax(-1)
        return torch.bmm(weights, v).transpose(0, 1).reshape(length, batch, size)


@pytest.mark.parametrize(("length", "batch"), [(4, 2), (2, 3), (6, 3)])
def test_heads_and_sequences_are_not_mixed_where_positions_stand_first(length: int, batch: int) -> None:
    model, hidden = TimeFirst().eval(), torch.randn(length, batch, 8)
    with torch.no_grad():
        plain = model(hidden)
        recording = av.attach(model)
        assert torch.equal(model(hidden), plain)
        recording.detach()
    with pytest.raises(av.errors.CaptureError, match="which of the two is the batch"):
        _ = recording.traces
