"""Where a block adds attention to its stream: blocks of the test's own making, norms of all kinds, coarse numbers."""

import contextlib
import itertools
from typing import Any

import pytest
import torch
from torch import nn

import hf_attnviz as av
from hf_attnviz.capturing.held import held
from tests.layers import FORMS, built, inputs
from tests.models import ids

KEEP = ["maps", "contributions"]
WIDTH, HEADS = 8, 2


class Attention(nn.Module):
    """Attention by hand, with a projection and a bias."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), norm

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        batch, length, _ = hidden.shape
        query, key, value = self.qkv(hidden).reshape(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(query @ key.transpose(-1, -2), -1) @ value
        mixed = mixed.transpose(1, 2).reshape(batch, length, WIDTH)
        return self.out(mixed if self.norm is None else self.norm(mixed))


class Block(nn.Module):
    """A block in one of the ways in which blocks are built."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.attention = Attention(nn.LayerNorm(WIDTH) if way == "norm before the projection" else None)
        self.first_norm, self.second_norm = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU(), nn.Linear(12, WIDTH))
        self.scale = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.way == "pre":
            x = x + self.attention(self.first_norm(x))
            return x + self.mlp(self.second_norm(x))
        if self.way == "post":
            x = self.first_norm(x + self.attention(x))
            return self.second_norm(x + self.mlp(x))
        if self.way == "inner":
            x = x + self.first_norm(self.attention(x))
            return x + self.second_norm(self.mlp(x))
        if self.way == "scaled":
            x = x + self.scale * self.attention(self.first_norm(x))
            return x + self.mlp(self.second_norm(x))
        if self.way == "parallel":
            read = self.first_norm(x)
            return x + self.attention(read) + self.mlp(read)
        if self.way == "attention only":
            return x + self.attention(self.first_norm(x))
        if self.way == "no norm":
            x = x + self.attention(x)
            return x + self.mlp(x)
        if self.way == "norm of the sum for the mlp alone":
            x = x + self.attention(x)
            return x + self.mlp(self.second_norm(x))
        if self.way == "in place":
            kept = x.clone()
            x += self.attention(self.first_norm(kept))
            return x + self.mlp(self.second_norm(x))
        if self.way == "norm before the projection":
            x = x + self.attention(self.first_norm(x))
            return x + self.mlp(self.second_norm(x))
        if self.way == "doubled residual":
            return 2 * x + self.attention(self.first_norm(x))
        assert self.way == "squared"
        return x + self.attention(self.first_norm(x)) ** 2


class Model(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.blocks = nn.Embedding(97, WIDTH), nn.ModuleList(Block(way) for _ in range(2))
        for parameter in self.parameters():
            parameter.data.add_(torch.randn(parameter.shape) * 0.3)
        self.eval()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return x


def maps_of(model: nn.Module, given: Any = None) -> tuple[av.AttentionMap, ...]:
    with torch.no_grad(), av.capture(model, keep=KEEP) as recording:
        model(**(given or {"input_ids": ids(1, 5)}))
    return recording.trace.maps


WAYS = {
    "pre": "pre-norm", "post": "post-norm", "inner": "inner norm", "scaled": "pre-norm", "parallel": "parallel",
    "attention only": "pre-norm", "no norm": "no norm", "norm of the sum for the mlp alone": "no norm",
    "in place": "pre-norm",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_block_is_understood_by_what_runs_in_it(way: str) -> None:
    model = Model(way)
    for layer, m in enumerate(maps_of(model)):
        found, block = m.taken_apart(), model.blocks[layer]
        assert found.form == WAYS[way]
        assert found.error <= found.bound < 1e-3
        scale = block.scale if way == "scaled" else torch.ones(WIDTH)
        projection = (block.attention.out.weight.T * scale).reshape(HEADS, -1, WIDTH)
        torch.testing.assert_close(found.projection, projection.detach(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.constant, (block.attention.out.bias * scale).detach(), atol=1e-5, rtol=1e-5)


REFUSED = {
    "norm before the projection": "LayerNorm norms what it mixed before that is projected",
    "doubled residual": "no place was found",
    "squared": "do not add up|no place was found",
}


@pytest.mark.parametrize("way", REFUSED)
def test_other_ways_are_refused_in_words(way: str) -> None:
    for m in maps_of(Model(way)):
        with pytest.raises(av.errors.NotKeptError, match=REFUSED[way]) as refused:
            m.taken_apart()
        assert m.module in str(refused.value)


def test_rows_that_are_all_alike_are_refused() -> None:
    """Then any stream and any constant are the same."""
    model = Model("pre")
    (first, _) = maps_of(model, {"input_ids": torch.full((1, 5), 7)})
    with pytest.raises(av.errors.NotKeptError, match="alike"):
        first.taken_apart()


COARSE = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", COARSE, ids=str)
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "olmo2"])
def test_coarse_numbers_are_taken_apart_within_their_rounding(family: str, dtype: torch.dtype) -> None:
    model = built(family).to(dtype)
    for m in maps_of(model, inputs(family)):
        found = m.taken_apart()
        assert found.form == FORMS[family]
        assert found.projection.dtype == torch.float32
        assert found.error <= found.bound
    exact = maps_of(built(family), inputs(family))
    one, other = (
        av.alti(av.Trace((maps[0],)), rolled=False).values for maps in (maps_of(model, inputs(family)), exact)
    )
    assert float((one - other).abs().max()) < 20 * COARSE[dtype]


def test_autocast_is_taken_apart() -> None:
    model = built("bert")
    with torch.no_grad(), torch.autocast("cpu"), av.capture(model, keep=KEEP) as recording:
        model(ids(1, 5))
    assert {m.taken_apart().form for m in recording.trace.maps} == {"post-norm"}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad, contextlib.nullcontext])
def test_it_works_in_every_mode_of_gradients(mode: Any) -> None:
    model = built("llama")
    with mode(), av.capture(model, keep=KEEP) as recording:
        output = model(ids(1, 5)).logits
    assert all(m.taken_apart().form == "pre-norm" for m in recording.trace.maps)
    if output.requires_grad:
        output.sum().backward()
        assert model.model.layers[0].self_attn.v_proj.weight.grad is not None


def test_random_numbers_go_on_as_without_us() -> None:
    model = built("bert")
    torch.manual_seed(3)
    maps_of(model)
    after = torch.rand(1)
    torch.manual_seed(3)
    with torch.no_grad():
        model(ids(1, 5))
    assert torch.equal(after, torch.rand(1))


# ---- norms held fast


class UnitNorm(nn.Module):
    """Divides by the length of the vector: RMSNorm without a weight, but for a factor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-9)


@pytest.mark.parametrize("width", [7, 8])
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm, UnitNorm])
def test_a_norm_is_read_from_what_it_does(kind: type[nn.Module], width: int) -> None:
    torch.manual_seed(0)
    norm = (kind() if kind is UnitNorm else kind(width)).double()
    for parameter in norm.parameters():
        parameter.data.copy_(torch.randn(width) * 2)
    given = torch.randn(2, 3, width).double() * torch.tensor([0.01, 1.0, 30.0])[:, None] + 1
    put = norm(given).detach()
    found = held(norm, given, put, torch.ones(2, 3, dtype=torch.bool))
    assert found.centred == (kind is nn.LayerNorm)
    for row in range(2):
        scale = found.scale[row]
        whole = found.direction(given[row].double()) / scale[:, None] + found.bias
        torch.testing.assert_close(whole, put[row], atol=1e-9, rtol=1e-9)
    if kind is nn.LayerNorm:
        torch.testing.assert_close(found.weight, norm.weight, atol=1e-9, rtol=1e-9)
        spread = (given.var(-1, unbiased=False) + norm.eps).sqrt()
        torch.testing.assert_close(found.scale, spread, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("change", [torch.tanh, torch.abs, lambda x: x.roll(1, -1)], ids=["tanh", "abs", "roll"])
def test_what_is_no_norm_is_refused(change: Any) -> None:
    class OddNorm(nn.LayerNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return change(super().forward(x))

    norm, given = OddNorm(8), torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)) * 3
    with pytest.raises(av.errors.ProofError, match="OddNorm is no norm whose statistics can be held fast"):
        held(norm, given, norm(given).detach(), torch.ones(1, 4, dtype=torch.bool))


def test_two_recordings_of_one_model_do_not_disturb_each_other() -> None:
    model = built("bert")
    with torch.no_grad(), av.capture(model, keep=KEEP) as one, av.capture(model, keep=KEEP) as other:
        model(ids(1, 5))
    for a, b in zip(one.trace.maps, other.trace.maps, strict=True):
        assert torch.equal(a.taken_apart().projection, b.taken_apart().projection)


def test_chosen_layers_alone_are_taken_apart() -> None:
    model = built("bert")
    with torch.no_grad(), av.capture(model, keep=KEEP, layers=[1]) as recording:
        model(ids(1, 5))
    assert [m.layer for m in recording.trace.maps] == [1]
    assert recording.trace.maps[0].taken_apart().form == "post-norm"


def test_parts_through_a_decomposition_add_up() -> None:
    """The law behind it all: every key's part, constants and residual are the output."""
    for family in ("bert", "gemma2", "gptj"):
        for m in maps_of(built(family), inputs(family)):
            parts = m.taken_apart().to(torch.float64)
            weights, group = m.weights.double(), m.heads // len(m.taken_apart().values)
            total = torch.zeros_like(parts.residual)
            for head, key in itertools.product(range(m.heads), range(len(m.keys))):
                moved = parts.values[head // group, key] @ parts.projection[head]
                total += weights[head, :, key][:, None] * moved
            torch.testing.assert_close(total, parts.mixed(weights))
