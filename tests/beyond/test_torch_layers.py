"""torch's own layers, fast and slow: same bits, same random numbers, and the weights that torch gives.

The reference is torch itself: the same layers in eval mode, asked for the weights of every head.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import hf_attnviz as av

SIZE, HEADS, BATCH, QUERIES, KEYS = 16, 4, 3, 5, 7
MODES = {"grad": torch.enable_grad, "no grad": torch.no_grad, "inference": torch.inference_mode}

pytestmark = pytest.mark.filterwarnings(
    "ignore:enable_nested_tensor is True:UserWarning",
    "ignore:The PyTorch API of nested tensors:UserWarning",
    "ignore:Support for mismatched:UserWarning",
)

Case = tuple[nn.Module, tuple[torch.Tensor, ...], dict[str, Any]]


def torchs_own(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The weights of each attention, ``[batch, head, query, key]``, as torch's slow way gives them."""
    seen: list[torch.Tensor] = []
    forward = nn.MultiheadAttention.forward

    def asked(self: nn.MultiheadAttention, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("is_causal", None)
        output, weights = forward(self, *args, **kwargs | {"need_weights": True, "average_attn_weights": False})
        seen.append(weights.detach() if weights.dim() == 4 else weights.detach()[None])
        return output, weights

    with pytest.MonkeyPatch.context() as patch, torch.enable_grad():
        patch.setattr(nn.MultiheadAttention, "forward", asked)
        model.eval()(*args, **kwargs)
    return seen


def first(output: Any) -> torch.Tensor:
    output = output[0] if isinstance(output, tuple) else output
    output = torch.nested.to_padded_tensor(output, 0.0) if output.is_nested else output
    return output.nan_to_num(7.0)  # type: ignore[no-any-return]


def check(case: Case, mode: str, training: bool = False) -> av.Recording:
    """The same bits and random numbers; each map as torch gives it; a trace for each sequence."""
    model, args, kwargs = case
    truth = torchs_own(model, args, kwargs)
    model.train(training)
    with MODES[mode]():
        torch.manual_seed(1)
        plain, after = model(*args, **kwargs), torch.get_rng_state()
        torch.manual_seed(1)
        with av.capture(model) as recording:
            seen = model(*args, **kwargs)
    assert torch.equal(first(seen), first(plain))
    assert torch.equal(torch.get_rng_state(), after)
    assert len(recording.calls) == len(truth)
    for call, weights in zip(recording.calls, truth, strict=True):
        if training and call is not recording.calls[0]:
            continue  # dropout has changed what the later layers read
        torch.testing.assert_close(call.weights.nan_to_num(), weights.nan_to_num(), atol=1e-5, rtol=0)
    assert len(recording.traces) == len(truth[0])
    return recording


def states(batch_first: bool, length: int, batched: bool = True) -> torch.Tensor:
    lead = ((BATCH, length) if batch_first else (length, BATCH)) if batched else (length,)
    return torch.randn(*lead, SIZE)


def padding(length: int, batched: bool = True) -> torch.Tensor:
    rows = torch.arange(length) >= torch.tensor([length, 3, length - 1])[:, None]
    return rows if batched else rows[1]


def attentions(mask: str | None, batch_first: bool, batched: bool) -> Iterator[Case]:
    """Every way to ask a MultiheadAttention, of itself and of another sequence."""
    for cross, padded, (need, average) in itertools.product(
        (False, True), (False, True), ((False, True), (True, True), (True, False))
    ):
        torch.manual_seed(0)
        model = nn.MultiheadAttention(SIZE, HEADS, dropout=0.3, batch_first=batch_first)
        keys = KEYS if cross else QUERIES
        query = states(batch_first, QUERIES, batched)
        key = states(batch_first, KEYS, batched) if cross else query
        masks = {
            None: None,
            "bool": torch.ones(QUERIES, keys).triu(1).bool(),
            "float": torch.randn(QUERIES, keys),
            "for each head": torch.randn((BATCH if batched else 1) * HEADS, QUERIES, keys),
        }
        kwargs: dict[str, Any] = {
            "need_weights": need, "average_attn_weights": average, "attn_mask": masks[mask]
        }  # fmt: skip
        if padded:
            where = padding(keys, batched)
            added = torch.zeros(where.shape).masked_fill(where, -torch.inf)
            kwargs["key_padding_mask"] = added if mask in ("float", "for each head") else where
        yield model, (query, key, key), kwargs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("mask", [None, "bool", "float", "for each head"])
def test_multihead_attention(mask: str | None, batch_first: bool, mode: str) -> None:
    for batched, training in itertools.product((True, False), (True, False)):
        for case in attentions(mask, batch_first, batched):
            (call,) = check(case, mode, training).calls
            assert call.kind == ("self" if case[1][0] is case[1][1] else "cross")


@pytest.mark.parametrize(
    "options", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 10, "vdim": 12}, {"bias": False}], ids=str
)
def test_options_of_multihead_attention(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(SIZE, HEADS, batch_first=True, **options)
    key, value = (torch.randn(BATCH, KEYS, options.get(name, SIZE)) for name in ("kdim", "vdim"))
    for mode in MODES:
        check((model, (states(True, QUERIES), key, value), {"need_weights": False}), mode)


def encoder(batch_first: bool, norm_first: bool, nested: bool, mask: str | None, padded: bool) -> Case:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, 32, 0.2, batch_first=batch_first, norm_first=norm_first)
    causal = nn.Transformer.generate_square_subsequent_mask(QUERIES)
    kwargs: dict[str, Any] = {
        None: {},
        "causal": {"mask": causal, "is_causal": True},
        "bool": {"mask": torch.eye(QUERIES).roll(1, 0).bool()},
    }[mask]
    if padded:
        where = padding(QUERIES)
        floating = torch.zeros(where.shape).masked_fill(where, -torch.inf)
        kwargs["src_key_padding_mask"] = floating if mask == "causal" else where
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
    return model, (states(batch_first, QUERIES),), kwargs


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", [None, "causal", "bool"])
def test_transformer_encoder(mask: str | None, mode: str, training: bool) -> None:
    for batch_first, norm_first, nested, padded in itertools.product((False, True), repeat=4):
        recording = check(encoder(batch_first, norm_first, nested, mask, padded), mode, training)
        assert recording.traces[0].encoder.layers == (0, 1)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "alone"])
def test_transformer_with_encoder_and_decoder(batched: bool, mode: str, training: bool) -> None:
    for batch_first, norm_first in itertools.product((False, True), repeat=2):
        torch.manual_seed(0)
        model = nn.Transformer(SIZE, HEADS, 2, 2, 32, 0.2, batch_first=batch_first, norm_first=norm_first)
        source, target = states(batch_first, KEYS, batched), states(batch_first, QUERIES, batched)
        hidden = torch.zeros(QUERIES, QUERIES).masked_fill(torch.ones(QUERIES, QUERIES).triu(1).bool(), -torch.inf)
        where = padding(KEYS, batched)
        kwargs = {"tgt_mask": hidden, "src_key_padding_mask": where, "memory_key_padding_mask": where}
        trace = check((model, (source, target), kwargs), mode, training).traces[0]
        assert {name: stack.layers for name, stack in trace.stacks.items()} == {
            "encoder": (0, 1),
            "decoder": (0, 1),
            "cross": (0, 1),
        }
        assert trace.decoder.maps[0].causal
        assert trace.cross.stacked().shape == (2, HEADS, QUERIES, KEYS)


NESTED: dict[str, Callable[[nn.TransformerEncoder], nn.Module]] = {
    "encoder": lambda encoder: encoder,
    "layer": lambda encoder: encoder.layers[0],
    "attention": lambda encoder: encoder.layers[0].self_attn,
}


@pytest.mark.parametrize("part", NESTED)
def test_nested_tensors(part: str) -> None:
    """Sequences of several lengths in one nested tensor, which only the fast way takes: as if they stood alone."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, 32, batch_first=True)
    model = NESTED[part](nn.TransformerEncoder(layer, 2).eval())
    alone = [torch.randn(length, SIZE) for length in (5, 3)]
    nested = torch.nested.nested_tensor(alone)
    copies = 3 if part == "attention" else 1
    with torch.no_grad():
        plain = model(*[nested] * copies)
        with av.capture(model) as recording:
            seen = model(*[nested] * copies)
        assert torch.equal(first(seen), first(plain))
        for row, sequence in enumerate(alone):
            truth = torchs_own(model, (sequence,) * copies, {})
            for call, weights in zip(recording.calls, truth, strict=True):
                length = len(sequence)
                torch.testing.assert_close(call.weights[row, :, :length, :length], weights[0], atol=1e-5, rtol=0)
                assert not call.weights[row, :, :length, length:].any()
