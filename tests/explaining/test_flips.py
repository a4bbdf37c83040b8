"""Replaced tokens: estimates against all of them computed one by one, changes against running the model by hand."""

import itertools

import pytest
import torch

import hf_attnviz as av
from tests.explaining.subjects import NAMES, built, given, linear, logit, scalar, target, vectors
from tests.models import ids


def test_on_a_linear_model_the_estimate_is_the_change_and_the_best_is_the_best_of_all() -> None:
    model, inputs, _, _ = linear()
    tokens = inputs["input_ids"]
    before = float(model(tokens)[0, 1].detach())
    changes = {}
    for place, token in itertools.product(range(5), range(11)):
        other = tokens.clone()
        other[0, place] = token
        if token != tokens[0, place]:
            changes[place, token] = float(model(other)[0, 1].detach()) - before
    for raises in (False, True):
        result = av.hotflip(model, inputs, target=1, candidates=4, raises=raises)
        order = sorted(changes.values(), reverse=raises)[:4]
        for statistic in ("estimate", "measured"):
            found = result.select(statistic=statistic).values
            torch.testing.assert_close(found.double(), torch.tensor(order, dtype=torch.float64), atol=2e-6, rtol=2e-6)
        place, token = (min, max)[raises](changes, key=lambda pair: changes[pair])
        assert result.axis("batch").labels[0] == f"{tokens[0, place]} → {token} ({place})"
        assert result.parameters["ids"] == tuple(token if n == place else int(t) for n, t in enumerate(tokens[0]))


@pytest.mark.parametrize("name", NAMES)
def test_both_numbers_against_the_models_own_gradient_and_a_second_run(name: str) -> None:
    model, inputs = built(name), given(name)
    result = av.hotflip(model, inputs, target=target(name), candidates=5)
    tokens, other = inputs["input_ids"], built(name)
    at = vectors(name, other, tokens).requires_grad_()
    slope = torch.autograd.grad(scalar(name, other)(at).sum(), at)[0][0]
    table = vectors(name, other, torch.arange(97)[None])[0]
    estimates = torch.stack([(table - at[0, place].detach()) @ slope[place] for place in range(6)])
    estimates[torch.arange(6), tokens[0]] = torch.inf
    best = estimates.flatten().topk(5, largest=False)
    expected = {(int(n) // 97, int(n) % 97): float(v) for v, n in zip(best.values, best.indices, strict=True)}
    measured = result.select(statistic="measured").values.tolist()
    assert measured == sorted(measured)
    before = float(logit(name, other(**inputs)).detach())
    for number, label in enumerate(result.axis("batch").labels):
        place, token = int(label.split("(")[1][:-1]), int(label.split(" → ")[1].split(" ")[0])
        assert result.values[0, number].item() == pytest.approx(expected.pop((place, token)), rel=1e-5)
        changed = tokens.clone()
        changed[0, place] = token
        out = other(**inputs | {"input_ids": changed})
        assert measured[number] == pytest.approx(float(logit(name, out).detach()) - before, rel=1e-5, abs=1e-6)
        logits = (out.logits[0] if name == "bert" else out.logits[0, -1]).detach()
        assert result.values[2, number].item() == pytest.approx(float(logits.softmax(-1)[target(name)]), abs=1e-6)
    assert not expected


def test_flips_go_on_from_the_best_and_stay_at_different_places() -> None:
    model, inputs = built("gpt2"), given("gpt2")
    result = av.hotflip(model, inputs, target=7, flips=3, candidates=2)
    assert len(result.axis("batch").labels) == 6 and result.axis("batch").labels[2].startswith("2: ")
    last, first = torch.tensor([result.parameters["ids"]]), inputs["input_ids"]
    assert int((last != first).sum()) == 3
    total = float((model(last).logits[0, -1, 7] - model(first).logits[0, -1, 7]).detach())
    assert total == pytest.approx(float(result.values[1, ::2].sum()), abs=1e-5)  # the first of each flip was kept


def test_special_tokens_neither_go_nor_come() -> None:
    loaded = av.load_model("translator")
    tokenizer = loaded.processor
    inputs = tokenizer(loaded.examples[0], return_tensors="pt")
    special = set(tokenizer.all_special_ids)
    size = len(tokenizer)
    places = [n for n, token in enumerate(inputs["input_ids"][0].tolist()) if token not in special]
    result = av.hotflip(loaded, inputs, candidates=10_000)
    tried = set(result.axis("batch").labels)
    assert len(result.axis("batch").labels) == len(places) * (size - len(special) - 1)
    assert {int(label.split("(")[-1][:-1]) for label in tried} == set(places)
    names = set(tokenizer.all_special_tokens)
    assert not any(name in label for name in names for label in tried)


def test_a_function_as_target_has_no_probability_and_errors_say_why() -> None:
    result = av.hotflip(built("gpt2"), given("gpt2"), target=lambda out: out.logits[0, -1, :3].sum(), candidates=2)
    assert result.axis("statistic").labels == ("estimate", "measured")
    with pytest.raises(av.errors.ArgumentError, match="1 to 6 flips"):
        av.hotflip(built("gpt2"), given("gpt2"), flips=7)
    with pytest.raises(av.errors.ArgumentError, match="candidates=0"):
        av.hotflip(built("gpt2"), {"input_ids": ids(1, 6)}, candidates=0)
