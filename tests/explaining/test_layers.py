"""Attributions of layers, against Captum called directly and against the sums that they must give."""

from typing import Any

import captum.attr
import pytest
import torch
from torch import nn

import hf_attnviz as av
from tests.explaining.subjects import NAMES, STEPS, built, given, scalar, target, vectors
from tests.models import ids

SETTINGS = av.Settings(steps=STEPS, rows=4, baseline=9)
CLOSE = {"atol": 1e-9, "rtol": 1e-9}
CAPTUM = {
    "conductance": captum.attr.LayerConductance,
    "gradient_x_activation": captum.attr.LayerGradientXActivation,
    "activation": captum.attr.LayerActivation,
}


def blocks(name: str, model: Any) -> list[nn.Module]:
    lists = {"bert": "bert.encoder.layer", "gpt2": "transformer.h", "llama": "model.layers"}
    lists |= {"t5": "encoder.block", "bart": "model.encoder.layers"}
    return list(model.get_submodule(lists[name]))


class First(nn.Module):
    """A block that gives its hidden states alone, however it is called, and the rest of its tuple beside them."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.states = block, nn.Identity()

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("block", "states") else getattr(self.block, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.block(*args, **kwargs)
        return (self.states(found[0]), *found[1:]) if isinstance(found, tuple) else self.states(found)


@pytest.mark.parametrize("method", CAPTUM)
@pytest.mark.parametrize("name", NAMES)
def test_captum_called_directly_gives_the_same(name: str, method: str) -> None:
    model, other = built(name), built(name)
    result = av.layer_attributions(model, given(name), target=target(name), method=method, settings=SETTINGS)
    assert [axis.name for axis in result.axes] == ["layer", "key"] and result.parameters["method"] == method
    at, start = (vectors(name, other, tokens) for tokens in (given(name)["input_ids"], torch.full((1, 6), 9)))
    rest = {"baselines": start, "n_steps": STEPS} if method == "conductance" else {}
    for layer, block in enumerate(blocks(name, other)):
        parts = [module for module in other.modules() for child in module.children() if child is block]
        place = next(key for key, child in parts[0]._modules.items() if child is block)
        parts[0]._modules[place] = First(block)
        tap = parts[0]._modules[place].states
        found = CAPTUM[method](scalar(name, other), tap).attribute(at.requires_grad_(), **rest)[0].detach()
        parts[0]._modules[place] = block
        expected = found.norm(dim=-1) if method == "activation" else found.sum(-1)
        torch.testing.assert_close(result.values[layer], expected, **CLOSE)


def test_conductance_of_every_layer_adds_up_to_the_change_but_for_what_is_told() -> None:
    model, missed = built("gpt2"), []
    ends = [float(model(tokens).logits[0, -1, 7].detach()) for tokens in (ids(1, 6), torch.full((1, 6), 9))]
    for steps in (20, 200):
        settings = av.Settings(steps=steps, baseline=9, rows=50)
        result = av.layer_attributions(model, given("gpt2"), target=7, settings=settings)
        off = [float(row.sum()) - (ends[0] - ends[1]) for row in result.values]
        assert result.parameters["convergence_delta"] == pytest.approx(off, abs=1e-9)
        missed.append(max(map(abs, off)))
    assert missed[1] < missed[0] / 5 and missed[1] < 0.02 * abs(ends[0] - ends[1])
    assert "convergence delta" in result.notes[1].en
    assert result.axis("layer").labels == ("0", "1")


def test_chosen_layers_of_a_chosen_stack() -> None:
    options = {"stack": "decoder", "method": "gradient_x_activation"}
    whole = av.layer_attributions(built("bart"), given("bart"), **options)
    one = av.layer_attributions(built("bart"), given("bart"), layers=[1], **options)
    assert whole.values.shape == (2, 4) and torch.equal(one.values, whole.values[1:])
    assert one.axis("layer").labels == ("1",)


def test_errors_list_what_there_is() -> None:
    with pytest.raises(av.errors.UnknownNameError, match="conductance, gradient_x_activation, activation"):
        av.layer_attributions(built("gpt2"), given("gpt2"), method="lrp")
    with pytest.raises(av.errors.UnknownNameError, match="no layer 5; it has: 0, 1"):
        av.layer_attributions(built("gpt2"), given("gpt2"), layers=[5])
