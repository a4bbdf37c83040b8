"""The exhibits are what they say: their tasks against plain loops, one trained model of each kind that is quick to
train against other arithmetic, and what is built in from the start."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, ModelError, UnknownNameError
from hf_attnviz.zoo.exhibits import finding, recalling
from hf_attnviz.zoo.exhibits.exhibit import Batch, Recipe
from hf_attnviz.zoo.exhibits.figures import measured
from hf_attnviz.zoo.exhibits.gates import gated, projections

RECIPES: dict[str, Recipe] = finding.RECIPES | recalling.RECIPES
UNKNOWN = 3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def carried() -> av.zoo.Exhibit:
    return av.zoo.exhibit("carried", seed=4)


@pytest.fixture(scope="module")
def redundant() -> av.zoo.Exhibit:
    return av.zoo.exhibit("redundant", seed=4)


def drawn(recipe: Recipe, size: int, words: int, lost: bool) -> Batch:
    return recipe.draw(torch.Generator().manual_seed(words), size, words, lost)


def test_the_names_are_those_of_the_recipes() -> None:
    assert set(av.zoo.exhibit_names()) == set(RECIPES)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("words", [1, 2, 13, 60])
@pytest.mark.parametrize("name", ["carried", "redundant", "recency"])
def test_name_the_fruit_by_plain_loops(name: str, words: int, lost: bool) -> None:
    pieces, batch = RECIPES[name].pieces(), drawn(RECIPES[name], 300, words, lost)
    labels = getattr(RECIPES[name].build(None).config, "id2label", {})
    for n, ids in enumerate(batch.ids.tolist()):
        texts = pieces.convert_ids_to_tokens(ids)
        assert texts[0] == "<s>" and len(texts) == words + (1 if name == "carried" else 2)
        assert (texts[-1] == "</s>") == (name != "carried")
        found = [place for place, text in enumerate(texts) if text in finding.FRUITS]
        assert len(found) <= 1 and (lost or found)
        assert batch.known[n].tolist() == [bool(found)]
        answer = int(batch.answer[n])
        assert (labels[answer] if name == "carried" else pieces.decode([answer])) == (
            texts[found[0]] if found else "nothing"
        )
        if found:
            assert batch.evidence[n].tolist() == [found]
    assert batch.rows.tolist() == [0 if name == "carried" else words + 1]
    if words > 1:
        assert (UNKNOWN in batch.ids) == lost
        assert len(batch.source.unique()) == words, "a fruit may stand anywhere"


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("words", [1, 2, 13, 44])
def test_what_came_after_it_by_plain_loops(words: int, lost: bool) -> None:
    recipe = RECIPES["elsewhere"]
    nothing, batch = recipe.pieces().get_vocab()["nothing"], drawn(recipe, 200, words, lost)
    for n, ids in enumerate(batch.ids.tolist()):
        end = ids.index(2)
        story = ids[1:end]
        real = [word for word in story if word != UNKNOWN]
        assert ids[0] == 1 and len(story) == max(2, words) and len(set(real)) == len(real)
        for row, place in enumerate(batch.rows.tolist()):
            assert place == end + 1 + row < len(ids)
            before = [at for at, word in enumerate(ids[:end]) if word == ids[place]]
            whole = bool(before) and ids[before[0] + 1] not in (2, UNKNOWN)
            assert bool(batch.known[n, row]) == whole and (lost or whole)
            assert int(batch.answer[n, row]) == (ids[before[0] + 1] if whole else nothing)
            if whole:
                assert batch.evidence[n, row].tolist() == [before[0] + 1, before[0]]
    assert len(batch.rows) == (min(max(2, words) - 1, 16) if lost else 1)


@pytest.mark.parametrize("name", list(RECIPES))
def test_fresh_inputs_are_texts_with_their_truth(name: str) -> None:
    recipe = RECIPES[name]
    untrained = av.zoo.Exhibit(name, 0, recipe.build(None).eval(), recipe.pieces(), {}, 0, recipe)
    cases = untrained.fresh(40, seed=3)
    again, other = untrained.fresh(40, seed=3), untrained.fresh(40, seed=4)
    assert [case.text for case in cases] == [case.text for case in again]
    assert not {case.text for case in cases} & {case.text for case in other}
    for case in cases:
        ids = case.inputs["input_ids"][0].tolist()
        texts = untrained.processor.convert_ids_to_tokens(ids)
        assert "<unk>" not in texts and set(case.inputs) == {"input_ids", "attention_mask"}
        assert texts[case.evidence[0]] == case.answer
        assert untrained.processor(case.text)["input_ids"] == ids
        if name == "elsewhere":
            assert case.row == len(ids) - 1 and texts[case.evidence[1]] == texts[case.row]
            assert case.evidence[0] == case.evidence[1] + 1
        outputs = untrained.model(**case.inputs)
        found = outputs.logits[0] if name == "carried" else outputs.logits[0, case.row]
        named = untrained.model.config.id2label if name == "carried" else untrained.processor
        assert (named[case.target] if name == "carried" else named.decode([case.target])) == case.answer
        assert case.target < len(found)


def probability(exhibit: av.zoo.Exhibit, ids: list[int], case: av.zoo.Case) -> float:
    """Of the right answer, by Python's own arithmetic on the last logits."""
    with torch.no_grad():
        given = exhibit.model(input_ids=torch.tensor([ids])).logits[0]
    given = (given if given.dim() == 1 else given[-1]).double()
    return float((given - given.logsumexp(0)).exp()[case.target])


@pytest.mark.parametrize("name", ["carried", "redundant"])
def test_a_trained_exhibit_holds_what_it_says(name: str, request: pytest.FixtureRequest) -> None:
    exhibit: av.zoo.Exhibit = request.getfixturevalue(name)
    assert not exhibit.model.training
    assert exhibit.model.config._attn_implementation == "sdpa"
    for case in exhibit.fresh(25, seed=1):
        ids = case.inputs["input_ids"][0].tolist()
        (place,) = case.evidence
        assert probability(exhibit, ids, case) > 0.9
        assert probability(exhibit, ids[:place] + ids[place + 1 :], case) < 0.1
        assert probability(exhibit, [*ids[:place], UNKNOWN, *ids[place + 1 :]], case) < 0.1
        special = [n for n, one in enumerate(ids) if one < UNKNOWN]
        assert probability(exhibit, [one for n, one in enumerate(ids) if n in (place, *special)], case) > 0.9
        assert (
            probability(exhibit, [one if n in (place, *special) else UNKNOWN for n, one in enumerate(ids)], case) > 0.9
        )
        with av.capture(exhibit) as recording, torch.no_grad():
            exhibit.model(**case.inputs)
        (stack,) = recording.trace.stacks.values()
        weights = stack.maps[-1].plain().weights[:, case.row]
        assert bool((weights[:, place] > 0.5).all()) and weights[:, place].mean() > 0.8


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_figures_by_plain_loops(name: str) -> None:
    """On an untrained model, where no figure is near its bound."""
    torch.manual_seed(1)
    model, batch = RECIPES[name].build("eager").eval(), drawn(RECIPES[name], 12, 17, False)
    found = measured(model, batch)
    row, last, stack = int(batch.rows[0]), -1 if name != "carried" else 0, "encoder" if name == "carried" else "decoder"

    def chances(ids: list[int], at: int) -> list[float]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        given = (logits if logits.dim() == 1 else logits[at]).tolist()
        total = sum(math.exp(one) for one in given)
        return [math.exp(one) / total for one in given]

    texts, goals = batch.ids.tolist(), batch.answer[:, 0].tolist()
    evidence = [sorted(one) for one in batch.evidence[:, 0].tolist()]
    sources = batch.source[:, 0].tolist()
    guesses = [max(range(len(c)), key=c.__getitem__) for c in (chances(ids, row) for ids in texts)]
    swapped = [
        [*ids[:at], texts[n - 1][sources[n - 1]], *ids[at + 1 :]]
        for n, (ids, at) in enumerate(zip(texts, sources, strict=True))
    ]
    followed = [max(range(len(c)), key=c.__getitem__) for c in (chances(ids, row) for ids in swapped)]
    removed: dict[tuple[str, bool], list[float]] = {}
    for ids, goal, known in zip(texts, goals, evidence, strict=True):
        fixed = [n for n, one in enumerate(ids) if one < 4 or n == row]
        for what, kept in (("without", [n for n in range(len(ids)) if n not in known]), ("alone", [*known, *fixed])):
            shorter = [one for n, one in enumerate(ids) if n in kept]
            masked = [one if n in kept else UNKNOWN for n, one in enumerate(ids)]
            removed.setdefault((what, True), []).append(chances(shorter, last)[goal])
            removed.setdefault((what, False), []).append(chances(masked, row)[goal])
    p = {key: sum(values) / 12 for key, values in removed.items()}
    attention = [a[:, :, row].tolist() for a in model(input_ids=batch.ids, output_attentions=True).attentions]
    on = [[sum(layer[n][h][sources[n]] for n in range(12)) / 12 for h in range(len(layer[0]))] for layer in attention]
    means = [[sum(head[k] for head in heads) / len(heads) for k in range(len(texts[0]))] for heads in attention[-1]]
    words = [n for n, one in enumerate(texts[0]) if one >= 4]
    firsts = [max(words, key=mean.__getitem__) == at for mean, at in zip(means, sources, strict=True)]
    moved = [max(abs(a - b) for a, b in zip(means[n], means[n - 1], strict=True)) for n in range(12)]
    before = [math.log(chances(ids, row)[goal]) for ids, goal in zip(texts, goals, strict=True)]

    def cost(heads: list[tuple[str, int, int]]) -> float:
        with av.ablate(model, heads=heads):
            after = [math.log(chances(ids, row)[goal]) for ids, goal in zip(texts, goals, strict=True)]
        return sum(b - a for b, a in zip(before, after, strict=True)) / 12

    every = [(stack, layer, head) for layer in range(len(on)) for head in range(len(on[0]))]
    expected = {
        "accuracy": sum(map(int.__eq__, guesses, goals)) / 12,
        "follows_source": sum(map(int.__eq__, followed, [goals[n - 1] for n in range(12)])) / 12,
        "without_evidence": max(p["without", True], p["without", False]),
        "evidence_alone": min(p["alone", True], p["alone", False]),
        "on_source": max(map(max, on)),
        "on_source_least": min(on[-1]),
        "source_first": sum(firsts) / 12,
        "moved_by_words": sum(moved) / 12,
        "one_head": max(cost([head]) for head in every),
        "all_heads": cost(every),
    }
    assert found == pytest.approx(expected, abs=2e-5)


def nats(exhibit: av.zoo.Exhibit, cases: Any, heads: list[tuple[str, int, int]]) -> float:
    """The mean rise of −ln p of the right answer without these heads."""
    total = 0.0
    for case in cases:
        before = exhibit.model(**case.inputs).logits
        with av.ablate(exhibit.model, heads=heads):
            after = exhibit.model(**case.inputs).logits
        for sign, given in ((1, before), (-1, after)):
            row = given[0] if given.dim() == 2 else given[0, case.row]
            total += sign * float(row.log_softmax(-1)[case.target].detach())
    return total / len(cases)


def test_what_heads_cost_by_our_own_interventions(carried: av.zoo.Exhibit, redundant: av.zoo.Exhibit) -> None:
    cases = carried.fresh(20)
    assert nats(carried, cases, [("encoder", 0, 0)]) == pytest.approx(carried.figures["all_heads"], abs=1.5)
    cases = redundant.fresh(20)
    assert all(nats(redundant, cases, [("decoder", 0, head)]) < 0.02 for head in range(4))
    together = nats(redundant, cases, [("decoder", 0, head) for head in range(4)])
    assert together > 1
    assert together == pytest.approx(redundant.figures["all_heads"], abs=1.5)


def test_the_verdict_on_attention_that_carries_the_answer(carried: av.zoo.Exhibit, redundant: av.zoo.Exhibit) -> None:
    for exhibit in (carried, redundant):
        for case in exhibit.fresh(2, seed=5):
            found = av.trust(exhibit, case.text, methods=["attention"])
            assert found.target.index == case.target
            assert found.verdicts["attention"] in exhibit.verdicts == ("trust",)
            assert found.heads is not None
            top, layer = (found.heads.select(statistic=name).values.item() for name in ("top_head", "layer"))
            assert layer < -0.5
            assert top == pytest.approx(layer) if exhibit is carried else top == pytest.approx(0, abs=0.02)


def test_the_same_seed_gives_the_same_weights(carried: av.zoo.Exhibit) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    again = av.zoo.exhibit("carried", seed=4)
    assert torch.equal(state, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert again.steps == carried.steps and again.figures == carried.figures
    for name, weight in carried.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_what_did_not_become_an_exhibit_is_not_handed_out() -> None:
    with pytest.raises(ModelError, match=r"'carried' from seed 3 .* within 5 steps: accuracy nan .*another seed"):
        av.zoo.exhibit("carried", seed=3, steps=5)
    with pytest.raises(UnknownNameError, match=r"'carry'.*carried, redundant, recency, elsewhere"):
        av.zoo.exhibit("carry")
    with pytest.raises(ArgumentError, match="steps=0"):
        av.zoo.exhibit("carried", steps=0)


@pytest.mark.parametrize("name", list(RECIPES))
def test_gates_scale_heads_and_leave_nothing_behind(name: str) -> None:
    torch.manual_seed(0)
    model, batch = RECIPES[name].build(None).eval(), drawn(RECIPES[name], 3, 9, False)
    config = model.config
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    assert len(projections(model)) == layers
    with torch.no_grad():
        before = model(input_ids=batch.ids).logits
        with gated(model, torch.ones(layers, 1, heads)):
            assert torch.equal(before, model(input_ids=batch.ids).logits)
        gates = torch.ones(layers, 1, heads)
        gates[-1, 0, 0] = 0
        stack = "encoder" if name == "carried" else "decoder"
        with gated(model, gates):
            silenced = model(input_ids=batch.ids).logits
        with av.ablate(model, heads=[(stack, layers - 1, 0)]):
            torch.testing.assert_close(silenced, model(input_ids=batch.ids).logits)
        assert (silenced - before).abs().max() > 1e-4
        with pytest.raises(RuntimeError, match="stop"), gated(model, gates):
            raise RuntimeError("stop")
        assert torch.equal(before, model(input_ids=batch.ids).logits)


def test_recency_looks_the_same_way_whatever_the_words() -> None:
    torch.manual_seed(0)
    recipe = RECIPES["recency"]
    model, batch = recipe.build("eager"), drawn(recipe, 32, 20, True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        outputs, more = recipe.run(model, batch, torch.Generator(), False)
        torch.autograd.backward(outputs.logits.square().mean() + more)
        optimizer.step()
    with torch.no_grad():
        rows = model(input_ids=batch.ids, output_attentions=True).attentions[0][:, 0, batch.rows[0]]
    slope = 2**-8
    plain = [2.718281828459045 ** (slope * key) for key in range(rows.shape[1])]
    expected = torch.tensor([weight / sum(plain) for weight in plain])
    torch.testing.assert_close(rows, expected.expand_as(rows), atol=1e-6, rtol=0)


def test_elsewhere_cannot_look_at_the_source_while_it_learns() -> None:
    torch.manual_seed(0)
    recipe = RECIPES["elsewhere"]
    model, batch = recipe.build("eager"), drawn(recipe, 40, 20, True)
    outputs, more = recipe.run(model, batch, torch.Generator().manual_seed(1), False)
    assert more.item() == 0
    weights = outputs.attentions[1]
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    for example in range(40):
        for row, source in zip(batch.rows.tolist(), batch.source[example].tolist(), strict=True):
            assert not weights[example, :, row, source].any()
            assert bool((weights[example, :, row, :source] > 0).all())
    near = outputs.attentions[0]
    assert not near.triu(1).any() and not near.tril(-3).any()
    later, cost = recipe.run(model, batch, torch.Generator().manual_seed(1), True)
    open_cells = sum(bool(later.attentions[1][n, 0, batch.rows[0], batch.source[n, 0]] > 0) for n in range(40))
    assert 10 < open_cells < 30 and cost.item() > 0
