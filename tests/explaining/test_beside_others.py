"""Explaining a model on which somebody stands: who records it hears nothing, who changed it has that explained."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.explaining.methods import METHODS
from tests.models import ids, tiny

GIVEN = {"input_ids": ids(1, 12)}
QUICK = av.Settings(steps=4, samples=4, rows=4)
SILENCED = [(1, 0), (1, 1), (0, 1)]

ANALYSES: dict[str, Callable[[Any], av.Result]] = {
    "explain": lambda model: av.explain(model, GIVEN, target=7, settings=QUICK),
    "layer_attributions": lambda model: av.layer_attributions(model, GIVEN, target=7, settings=QUICK),
    "input_reduction": lambda model: av.input_reduction(model, GIVEN, beam=1),
    "hotflip": lambda model: av.hotflip(model, GIVEN, target=7),
    "trust": lambda model: (
        av.trust(
            model, GIVEN, target=7, methods=["attention", "saliency"], replacement=3, rule=av.TrustRule(draws=20)
        ).curves
    ),
}


def without_heads() -> Any:
    """The same model whose output projection has no weight for the heads: silenced by hand."""
    model = tiny("gpt2")
    with torch.no_grad():
        for layer, head in SILENCED:
            model.transformer.h[layer].attn.c_proj.weight[8 * head : 8 * head + 8] = 0
    return model


@pytest.mark.parametrize("name", ANALYSES)
def test_what_is_explained_inside_an_intervention_is_the_model_under_it(name: str) -> None:
    model, analysis = tiny("gpt2"), ANALYSES[name]
    with av.ablate(model, heads=SILENCED):
        found = analysis(model)
    expected = analysis(without_heads())
    assert found.values.shape == expected.values.shape
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-4)
    assert found.parameters.get("score") == pytest.approx(expected.parameters.get("score"), abs=1e-5)
    plain = analysis(model)
    assert plain.values.shape != found.values.shape or not torch.allclose(plain.values, found.values, atol=1e-3)


def test_value_zeroing_inside_an_intervention_is_refused() -> None:
    model = tiny("gpt2")
    with pytest.raises(av.errors.CaptureError, match="an intervention"), av.ablate(model, heads=SILENCED):
        av.value_zeroing(model, GIVEN)


@pytest.mark.parametrize("name", [*ANALYSES, "value_zeroing"])
def test_who_records_the_model_hears_nothing_of_an_explanation(name: str) -> None:
    analysis = ANALYSES.get(name, lambda model: av.value_zeroing(model, GIVEN))
    model = tiny("gpt2")
    attached = av.attach(model, last=3)
    with torch.no_grad(), av.capture(model) as recording:
        model(ids(1, 5))
        analysis(model)
    assert len(recording.runs) == len(attached.runs) == 1
    assert attached.trace.maps[0].weights.shape == (4, 5, 5)
    attached.detach()
    assert "forward" not in model.__dict__


def test_methods_one_by_one_are_of_the_model_under_the_intervention() -> None:
    model = tiny("gpt2")
    with av.ablate(model, heads=SILENCED):
        found = {name: method.scores(model, GIVEN, 7, settings=QUICK) for name, method in METHODS.items()}
    for name, method in METHODS.items():
        expected = method.scores(without_heads(), GIVEN, 7, settings=QUICK)
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)


def test_value_zeroing_takes_what_the_others_take() -> None:
    loaded = av.load_model("induction")
    text = loaded.examples[0]
    expected = av.value_zeroing(loaded.model, text, processor=loaded.processor)
    pipe = transformers.pipeline("text-generation", model=loaded.model, tokenizer=loaded.processor)
    for model in (loaded, pipe):
        found = av.value_zeroing(model, text)
        assert torch.equal(found.values, expected.values)
        assert found.axes == expected.axes
