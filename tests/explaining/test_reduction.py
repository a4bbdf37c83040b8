"""Input reduction, against a slow search of its own on the models' own gradients."""

from typing import Any

import pytest
import torch

import hf_attnviz as av
from tests.explaining.subjects import NAMES, built, given, vectors
from tests.models import ids


def run(name: str, model: Any, kept: list[int], read: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits where the prediction is read, and |gradient · vector| of each token, of the text that is left."""
    inputs = given(name)
    at = vectors(name, model, inputs["input_ids"][:, kept]).requires_grad_()
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    logits = model(inputs_embeds=at, **rest).logits
    row = logits[0] if name == "bert" else logits[0, -1]
    slope = torch.autograd.grad(row[read], at)[0]
    return row.detach(), (slope * at.detach()).sum(-1)[0].abs()


def greedy(name: str, model: Any) -> tuple[list[list[int]], list[float]]:
    """The least important token goes, as long as the prediction stays; the last one of a causal model cannot go."""
    kept = list(range(6))
    first = run(name, model, kept, 0)[0]
    predicted = int(first.argmax())
    texts, probabilities = [list(kept)], [float(first.softmax(-1)[predicted])]
    while True:
        importance = run(name, model, kept, predicted)[1].tolist()
        free = [n for n, place in enumerate(kept) if not (name in ("gpt2", "llama") and place == 5)]
        if not free or len(kept) == 1:
            return texts, probabilities
        kept.pop(min(free, key=lambda n: importance[n]))
        row = run(name, model, kept, predicted)[0]
        if int(row.argmax()) != predicted:
            return texts, probabilities
        texts.append(list(kept))
        probabilities.append(float(row.softmax(-1)[predicted]))


@pytest.mark.parametrize("name", NAMES)
def test_one_beam_is_the_greedy_search(name: str) -> None:
    result = av.input_reduction(built(name), given(name), beam=1)
    texts, probabilities = greedy(name, built(name))
    tokens = given(name)["input_ids"][0].tolist()
    assert result.parameters["ids"] == tuple(tuple(tokens[n] for n in kept) for kept in texts)
    torch.testing.assert_close(result.values[0].double(), torch.tensor(probabilities).double(), atol=1e-6, rtol=1e-6)
    assert result.values[1].tolist() == [len(kept) for kept in texts]
    assert result.axis("step").labels[-1] == " ".join(str(tokens[n]) for n in texts[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_wider_beam_ends_no_longer_and_every_step_predicts_the_same(name: str) -> None:
    model, inputs = built(name), given(name)
    one, five = (av.input_reduction(model, inputs, beam=beam).parameters["ids"] for beam in (1, 5))
    assert len(five[-1]) <= len(one[-1])
    answers = set()
    for before, after in zip((None, *five), five, strict=False):
        logits = model(**inputs | {"input_ids": torch.tensor([after])}).logits
        answers.add(int((logits[0] if name == "bert" else logits[0, -1]).argmax()))
        assert before is None or len(after) == len(before) - 1
    assert len(answers) == 1


def test_it_goes_down_to_nothing_but_what_must_stay() -> None:
    """A model that reads its last token alone needs no other."""
    model = built("gpt2")
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.attn.c_proj.bias.zero_()
        model.transformer.wpe.weight.zero_()
    result = av.input_reduction(model, given("gpt2"))
    assert result.parameters["ids"][-1] == (int(given("gpt2")["input_ids"][0, -1]),)
    assert len(result.axis("step").labels) == 6


def test_special_tokens_stay() -> None:
    loaded = av.load_model("translator")
    inputs = loaded.processor(loaded.examples[0], return_tensors="pt")
    result = av.input_reduction(loaded, inputs, beam=2)
    special = [t for t in inputs["input_ids"][0].tolist() if t in set(loaded.processor.all_special_ids)]
    for kept in result.parameters["ids"]:
        assert [t for t in kept if t in set(special)] == special


def test_errors_say_what_is_missing() -> None:
    with pytest.raises(av.errors.ArgumentError, match="does not predict token"):
        av.input_reduction(built("gpt2"), given("gpt2"), target=7)
    with pytest.raises(av.errors.ArgumentError, match="a class or a token as target"):
        av.input_reduction(built("gpt2"), given("gpt2"), target=lambda out: out.logits[0, -1, 0])
    with pytest.raises(av.errors.ArgumentError, match="beam=0"):
        av.input_reduction(built("gpt2"), given("gpt2"), beam=0)
    with pytest.raises(av.errors.ArgumentError, match="no word in this text"):
        av.input_reduction(built("gpt2"), {"input_ids": ids(1, 1)})
