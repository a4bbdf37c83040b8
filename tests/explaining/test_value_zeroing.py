"""Value zeroing against the plainest way to do it: a hook of the test on the layer that makes the values."""

from typing import Any

import pytest
import torch
from torch import nn

import hf_attnviz as av
from tests.layers import built
from tests.models import ids, tiny

VALUES = {  # the layer that makes the values, which of its columns they are, and the block
    "bert": ("encoder.layer.{}.attention.self.value", slice(None), "encoder.layer.{}"),
    "gpt2": ("transformer.h.{}.attn.c_attn", slice(64, 96), "transformer.h.{}"),
    "llama": ("model.layers.{}.self_attn.v_proj", slice(None), "model.layers.{}"),
    "t5": ("encoder.block.{}.layer.0.SelfAttention.v", slice(None), "encoder.block.{}"),
}
CROSS = ("decoder.block.{}.layer.1.EncDecAttention.v", slice(None), "decoder.block.{}")


def by_hooks(model: nn.Module, given: dict[str, Any], names: tuple[str, slice, str], layer: int) -> torch.Tensor:
    """1 − cosine of the block's output with and without each key, rows divided by their sums."""
    value, columns, block = names[0].format(layer), names[1], model.get_submodule(names[2].format(layer))
    read: dict[str, Any] = {}

    def note(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        read["args"], read["kwargs"] = args, kwargs
        read["output"] = output[0] if isinstance(output, tuple) else output

    handle = block.register_forward_hook(note, with_kwargs=True)
    model(**given, use_cache=False)
    handle.remove()
    whole, rows = read["output"][0].double(), []
    keys = given["input_ids"].shape[1]
    for key in range(keys):

        def zero(_: nn.Module, __: Any, output: torch.Tensor, key: int = key) -> torch.Tensor:
            output = output.clone()
            output[:, key, columns] = 0
            return output

        handle = model.get_submodule(value).register_forward_hook(zero)
        less = block(*read["args"], **read["kwargs"])
        handle.remove()
        less = (less[0] if isinstance(less, tuple) else less)[0].double()
        rows.append(1 - torch.cosine_similarity(whole, less, dim=-1))
    scores = torch.stack(rows, dim=1)
    return scores / scores.sum(1, keepdim=True)


@pytest.mark.parametrize("family", VALUES)
@torch.no_grad()
def test_it_is_what_hooks_on_the_values_give(family: str) -> None:
    model = built(family).double()
    given = {"input_ids": ids(1, 6)}
    if family == "t5":
        given["decoder_input_ids"] = ids(1, 3, seed=2)
    found = av.value_zeroing(model, given, stack="encoder" if family == "t5" else None)
    assert [axis.name for axis in found.axes] == ["layer", "query", "key"]
    for layer in range(2):
        expected = by_hooks(model, given, VALUES[family], layer)
        torch.testing.assert_close(found.values[layer].double(), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(found.values.sum(-1), torch.ones(2, 6, dtype=found.values.dtype))


@torch.no_grad()
def test_cross_attention_is_zeroed_at_its_own_keys() -> None:
    model = built("t5").double()
    given = {"input_ids": ids(1, 6), "decoder_input_ids": ids(1, 3, seed=2)}
    found = av.value_zeroing(model, given, stack="cross", layers=[1])
    assert found.axis("layer").labels == ("1",)
    torch.testing.assert_close(found.values[0].double(), by_hooks(model, given, CROSS, 1), atol=2e-6, rtol=1e-5)


def test_it_is_rolled_out_by_multiplying_the_layers() -> None:
    model, given = built("bert"), {"input_ids": ids(1, 5)}
    each, rolled = av.value_zeroing(model, given).values, av.value_zeroing(model, given, rolled=True).values
    torch.testing.assert_close(rolled[0], each[0])
    torch.testing.assert_close(rolled[1], each[1] @ each[0], atol=1e-5, rtol=0)


def test_what_may_not_be_seen_brings_exactly_nothing() -> None:
    assert bool((av.value_zeroing(built("gpt2"), {"input_ids": ids(1, 5)}).values.triu(1) == 0).all())


def test_the_model_is_as_it_was() -> None:
    model, given = built("bert"), {"input_ids": ids(1, 5)}
    with torch.no_grad():
        before = model(**given)[0]
        av.value_zeroing(model, given)
        assert torch.equal(model(**given)[0], before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_errors_say_what_to_do() -> None:
    with pytest.raises(av.errors.ArgumentError, match="eval"):
        av.value_zeroing(tiny("bert").train(), {"input_ids": ids(1, 5)})
    two = {"input_ids": ids(1, 4), "decoder_input_ids": ids(1, 3)}
    with pytest.raises(av.errors.UnknownStackError, match="encoder, decoder, cross"):
        av.value_zeroing(tiny("t5"), two)
    with pytest.raises(av.errors.NotKeptError, match="rolled=True"):
        av.value_zeroing(tiny("t5"), two, stack="cross", rolled=True)
    with pytest.raises(av.errors.CaptureError, match=r"attention cannot be run again.*no list of blocks"):
        av.value_zeroing(Alone(), {"input_ids": ids(1, 4)})


class Alone(nn.Module):
    """Attention that stands in no list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Embedding(97, 8), SelfAttention()
        self.eval()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.attention(self.embed(input_ids))


class SelfAttention(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        apart = hidden[:, None]
        return torch.nn.functional.scaled_dot_product_attention(apart, apart, apart)[:, 0]
