"""Verdicts where the truth is known, the rule where it could be too kind, and what a test may not disturb."""

import math
from typing import Any

import pytest
import torch
from transformers import BertTokenizer

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError
from hf_attnviz.explaining.verdict import Measured, beats
from hf_attnviz.language import speaking
from tests.explaining.toys import MASK, bag, truth, words
from tests.models import ids, padded, tiny

LENGTH = 24


def judged(model: Any, given: Any, **options: Any) -> av.Trust:
    return av.trust(model, given if isinstance(given, (str, dict)) else {"input_ids": given}, **options)


def shuffles(count: int, length: int, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"shuffle {n}": torch.randperm(length, generator=generator).double() for n in range(count)}


# verdicts where the truth is known


@pytest.mark.parametrize("seed", range(5))
def test_the_true_ranking_of_a_bag_of_words_earns_trust_and_its_reverse_does_not(seed: int) -> None:
    model, text = bag(0.4), words(LENGTH, seed)
    true = truth(model, text)
    given = {"true": true, "reversed": -true, "constant": torch.ones(LENGTH)}
    result = judged(model, text, target=1, rankings=given, methods=[], replacement=MASK)
    assert dict(result.verdicts) == {"true": "trust", "reversed": "do not", "constant": "undecided"}
    assert result.beats.select(method="true").values.all()
    assert "no ranking" in result.reasons["constant"].en
    assert "no better than chance" in result.sentences["reversed"].en


def test_the_numbers_are_those_of_the_sum_of_words() -> None:
    """The same arithmetic by hand: the logit is a sum, so what is left is a sum of what is left."""
    model, text = bag(0.4), words(LENGTH)
    true = truth(model, text)
    result = judged(model, text, target=1, rankings={"true": true}, methods=[], replacement=MASK)
    weights = sorted(true.tolist(), reverse=True)

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    whole = sigmoid(math.fsum(weights))
    assert result.probability == pytest.approx(whole, abs=1e-6)
    for place, taken in enumerate((1, 2, 3, 5, 12)):
        without, alone = sigmoid(math.fsum(weights[taken:])), sigmoid(math.fsum(weights[:taken]))
        for way in ("deletion", "replacement"):
            curves = result.curves.select(removal=way, method="true").values
            assert curves[0, place].item() == pytest.approx(whole - without, abs=1e-6)
            assert curves[1, place].item() == pytest.approx(whole - alone, abs=1e-6)
    assert torch.equal(result.aopc.values, result.curves.values.mean(-1))


def test_shuffled_rankings_hardly_ever_earn_trust() -> None:
    """Four tests at 5 % each: in models that are no sums, together far less than 5 %."""
    for name in ("bert_classifier", "gpt2"):
        shuffled = shuffles(200, LENGTH)
        result = av.trust(tiny(name), {"input_ids": ids(1, LENGTH)}, methods=[], rankings=shuffled, replacement=3)
        assert 0.01 < result.beats.values.double().mean() < 0.1  # each test for itself lets about 5 % pass
        assert list(result.verdicts.values()).count("trust") <= 2


def test_shuffled_rankings_earn_trust_at_most_five_times_in_a_hundred_where_all_four_tests_are_one() -> None:
    """The worst case: what a sum of words loses is lost by deletion as by replacement, and the rest keeps it."""
    earned = []
    for seed in range(20):
        model, text = bag(0.4), words(LENGTH, seed)
        options: dict[str, Any] = {"target": 1, "replacement": MASK, "methods": [], "seed": seed}
        result = judged(model, text, rankings=shuffles(50, LENGTH, seed + 100), **options)
        earned += [verdict == "trust" for verdict in result.verdicts.values()]
    assert len(earned) == 1000
    assert sum(earned) <= 50


def test_the_percentile_is_one_that_a_shuffle_beats_in_five_of_a_hundred_and_one_cases() -> None:
    """Of 101 results of which none is special, the five highest beat the 95th percentile of the other hundred."""
    results = torch.randperm(101, generator=torch.Generator().manual_seed(0)).double()
    passed = 0
    for own in range(101):
        others = torch.cat([results[:own], results[own + 1 :]])
        curves = torch.stack([results[own], -results[own]])[:, None, None, None].expand(2, 2, 1, 1)
        random = torch.stack([others, -others])[:, None, :, None].expand(2, 2, 100, 1)
        found = beats(Measured(curves, random, 1e-6, 1.0, {}), av.TrustRule())
        assert bool(found.all()) == bool(found.any())
        passed += bool(found.all())
    assert passed == 5


def test_where_removal_changes_nothing_nobody_beats_anybody() -> None:
    model, text = bag(weights=torch.zeros(200)), words(LENGTH)
    given = {"any": torch.arange(LENGTH)} | shuffles(20, LENGTH)
    result = judged(model, text, target=1, rankings=given, methods=[], replacement=MASK)
    assert not result.beats.values.any()
    assert set(result.verdicts.values()) == {"undecided"}
    assert "stands out from chance" in result.reasons["any"].en


def test_rounding_is_no_victory() -> None:
    """Weights of a millionth of a millionth move the probability by less than it is computed with."""
    model, text = bag(1e-9), words(LENGTH)
    result = judged(model, text, target=1, rankings={"true": truth(model, text)}, methods=[], replacement=MASK)
    assert not result.beats.values.any()
    assert result.verdicts["true"] == "undecided"


def test_what_chance_finds_too_often_is_undecided_and_what_misses_it_is_not_trusted() -> None:
    """One telling token of eight: one random ranking in eight has it first, so not even the truth can stand out."""
    text = words(8)
    weights = torch.zeros(200)
    weights[text[0, 3]] = 6.0
    given = {"true": (torch.arange(8) == 3) * 8.0 - torch.arange(8) / 9, "last": (torch.arange(8) != 3) * 1.0}
    result = judged(bag(weights=weights), text, target=1, rankings=given, methods=[], replacement=MASK)
    assert not result.beats.values.any()
    assert result.verdicts == {"true": "undecided", "last": "do not"}
    assert "with 8 tokens" in result.sentences["true"].en
    assert "random removal by" in result.sentences["true"].en


def test_one_way_alone_is_undecided() -> None:
    """The token that replaces speaks for the class more than any other: what deletion takes away, replacement adds."""
    model, text = bag(0.4), words(LENGTH)
    with torch.no_grad():
        model.weights.weight[MASK] = 3.0
    result = judged(model, text, target=1, rankings={"true": truth(model, text)}, methods=[], replacement=MASK)
    assert result.verdicts["true"] == "undecided"
    assert not result.reasons
    assert "by deletion" in result.sentences["true"].en


@pytest.mark.parametrize("length", [1, 2, 4])
def test_too_few_tokens_are_undecided_with_the_reason(length: int) -> None:
    model, text = bag(0.4), words(length)
    result = judged(model, text, target=1, rankings={"true": truth(model, text)}, methods=[], replacement=MASK)
    assert result.verdicts["true"] == "undecided"
    assert result.reasons["true"].en
    assert isinstance(result.view.html, str)


def test_no_token_to_rank_at_all() -> None:
    result = judged(tiny("gpt2"), ids(1, 1), replacement=3)
    assert set(result.verdicts.values()) == {"undecided"}
    assert result.candidates == ()
    assert result.heads is None
    assert isinstance(result.view.html, str)


def test_a_probability_that_is_no_number_is_undecided() -> None:
    model, text = bag(0.4), words(LENGTH)
    with torch.no_grad():
        model.weights.weight[text[0, 5]] = torch.nan
    given = {"true": torch.arange(LENGTH)}
    result = judged(model, text, target=1, rankings=given, methods=[], replacement=MASK)
    assert result.verdicts["true"] == "undecided"
    assert "no number" in result.reasons["true"].en


def test_a_score_that_is_no_number_is_undecided() -> None:
    model, text = bag(0.4), words(LENGTH)
    scores = truth(model, text).clone()
    scores[3] = torch.nan
    result = judged(model, text, target=1, rankings={"gap": scores}, methods=[], replacement=MASK)
    assert result.verdicts["gap"] == "undecided"
    assert result.curves.values.isnan().all()


def test_equal_scores_are_put_in_a_random_order_not_in_that_of_the_text() -> None:
    """Evidence that stands at the front must not make a ranking with equal scores look good."""
    weights = torch.zeros(200)
    text = torch.arange(2, 2 + LENGTH)[None]
    weights[2:8] = 1.0  # the first six words
    nothing = torch.zeros(LENGTH)
    nothing[-1] = 1.0
    verdicts = [
        judged(bag(weights=weights), text, target=1, rankings={"r": nothing}, methods=[], replacement=MASK, seed=seed)
        for seed in range(5)
    ]
    assert all(result.verdicts["r"] != "trust" for result in verdicts)
    curves = {tuple(result.curves.values[0, 0, 0].tolist()) for result in verdicts}
    assert len(curves) > 1


# models as they are


def inputs_of(name: str) -> dict[str, Any]:
    return {"input_ids": ids(1, 12)} | ({"decoder_input_ids": torch.tensor([[1, 7, 9]])} if name == "t5" else {})


@pytest.mark.parametrize("name", ["bert_classifier", "bert_masked", "gpt2", "gpt2_classifier", "llama", "t5", "bart"])
def test_every_kind_of_model_is_judged_by_every_method(name: str) -> None:
    result = av.trust(tiny(name), inputs_of(name), replacement=3, rule=av.TrustRule(draws=20))
    assert {"attention", "rollout"} <= set(result.verdicts)
    assert not any("could not" in reason.en for reason in result.reasons.values())
    assert result.curves.values.isfinite().all()
    assert result.heads is not None
    assert result.heads.values[:3].isfinite().all()
    assert result.sink is not None
    assert result.stability is not None
    assert result.shift is not None
    torch.testing.assert_close(result.stability.values, torch.ones(2, 2, dtype=torch.float64), atol=0.1, rtol=0)
    torch.testing.assert_close(result.shift.values, torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert result.agreement.values.diagonal().allclose(torch.ones(len(result.verdicts), dtype=torch.float64))
    read_off = {"bert_classifier": 0, "bart": None, "t5": None}.get(name, 11)
    assert result.candidates == tuple(n for n in range(12) if n != read_off)


@pytest.mark.parametrize("name", ["translator", "induction"])
def test_embedded_models(name: str) -> None:
    loaded = av.load_model(name)
    text = loaded.examples[0]
    result = av.trust(loaded, text)
    assert result.curves.values.isfinite().all()
    assert not any(result.tokens.texts[n].startswith("<") for n in result.candidates)
    assert any("<unk>" in note.en for note in result.notes)
    assert result.stability is not None
    assert result.stability.values.allclose(torch.ones_like(result.stability.values), atol=0.1)
    assert result.shift is not None
    assert result.shift.values.abs().max() < 1e-5


def test_the_translator_looks_at_the_word_that_it_translates() -> None:
    """我 becomes I: attention ranks it first, and without it the prediction is gone."""
    result = av.trust(av.load_model("translator"), "我昨天在北京吃了烤鸭", target="I")
    assert result.verdicts["attention"] == "trust"
    assert result.scores.select(method="attention").values.nan_to_num(-1).argmax() == 0
    assert "all 4 tests" in result.sentences["attention"].en
    assert "4 项检验" in result.sentences["attention"].zh


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    model, given = tiny("gpt2"), {"input_ids": ids(1, 12)}
    one, two, other = (av.trust(model, given, replacement=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.random.values, two.random.values)
    assert not torch.equal(one.random.values, other.random.values)


def test_padding_of_the_input_is_left_out() -> None:
    model = tiny("bert_classifier")
    batch = padded([12, 16], "left")
    one = {name: value[:1] for name, value in batch.items()}
    plain = {"input_ids": one["input_ids"][:, 4:]}
    options: dict[str, Any] = {"replacement": 3, "rule": av.TrustRule(draws=20)}
    with_padding, without = av.trust(model, one, **options), av.trust(model, plain, **options)
    torch.testing.assert_close(with_padding.curves.values, without.curves.values, atol=1e-6, rtol=0)


def test_a_target_of_the_users_own() -> None:
    model, text = bag(0.4), words(LENGTH)

    def difference(outputs: Any) -> torch.Tensor:
        return outputs.logits[0, 1] - outputs.logits[0, 0]

    given = {"true": truth(model, text)}
    result = judged(model, text, target=difference, rankings=given, methods=[], replacement=MASK)
    assert result.verdicts["true"] == "trust"
    assert result.probability == pytest.approx(truth(model, text).sum().item(), abs=1e-5)
    assert any("function of your own" in note.en for note in result.notes)


def test_a_model_whose_attention_is_not_seen_is_told_and_rankings_of_ones_own_still_judged() -> None:
    model, text = bag(0.4), words(LENGTH)
    result = judged(model, text, target=1, rankings={"true": truth(model, text)}, replacement=MASK)
    assert result.verdicts["true"] == "trust"
    assert result.verdicts["attention"] == "undecided"
    assert "captured" in result.reasons["attention"].en
    assert result.heads is None
    assert any("Not measured (heads)" in note.en for note in result.notes)


def test_a_model_without_a_padding_token_reads_one_text_at_a_time() -> None:
    model = tiny("gpt2_classifier")
    several = av.trust(model, {"input_ids": ids(1, 10)}, replacement=3, rule=av.TrustRule(draws=20))
    model.config.pad_token_id = None
    alone = av.trust(model, {"input_ids": ids(1, 10)}, replacement=3, rule=av.TrustRule(draws=20))
    torch.testing.assert_close(several.curves.values[:, :, :4], alone.curves.values[:, :, :4], atol=1e-6, rtol=0)
    torch.testing.assert_close(several.scores.values, alone.scores.values, atol=1e-5, rtol=1e-4, equal_nan=True)
    assert alone.shift is not None
    assert alone.shift.values.isnan().all()


@pytest.mark.parametrize("name", ["bert_classifier", "gpt2", "t5"])
def test_what_is_ranked_is_what_explain_and_the_analyses_say(name: str) -> None:
    """One definition of each method: the scores are those of explain(), and those of a trace."""
    model, given = tiny(name), inputs_of(name)
    result = av.trust(model, given, replacement=3, rule=av.TrustRule(draws=20))
    told = av.explain(model, given, methods=["attention", "rollout", "relevance", "integrated_gradients"])
    for method in told.axis("statistic").labels:
        mine, theirs = result.scores.select(method=method).values, told.select(statistic=method).values.double()
        ranked = list(result.candidates)
        torch.testing.assert_close(mine[ranked], theirs[ranked], atol=2e-5, rtol=1e-4)
    with av.capture(model, keep=["maps", "contributions"]) as recording, torch.no_grad():
        model(**given)
    row = {"bert_classifier": 0, "gpt2": 11, "t5": 2}[name]
    norms = av.norms(recording.trace, stack="cross" if name == "t5" else None, shares=False)
    expected = norms.select(statistic="summed", layer="1").values[row].double()
    torch.testing.assert_close(result.scores.select(method="norms").values[ranked], expected[ranked])


def test_a_prediction_that_is_read_off_all_positions_leaves_none_out() -> None:
    def mean(outputs: Any) -> torch.Tensor:
        return outputs.last_hidden_state[0].mean(0)[3]

    result = av.trust(tiny("bert"), {"input_ids": ids(1, 12)}, target=mean, replacement=3, rule=av.TrustRule(draws=20))
    assert result.candidates == tuple(range(12))

    def one(outputs: Any) -> torch.Tensor:
        return outputs.last_hidden_state[0, -1, 3]

    result = av.trust(tiny("bert"), {"input_ids": ids(1, 12)}, target=one, replacement=3, rule=av.TrustRule(draws=20))
    assert result.candidates == tuple(range(11))


@pytest.mark.parametrize("place", [5, 11])
def test_a_function_that_counts_from_the_start_is_refused_where_deletion_would_mislead_it(place: int) -> None:
    def one(outputs: Any) -> torch.Tensor:
        return outputs.last_hidden_state[0, place, 3]

    with pytest.raises(ArgumentError, match=r"one .*target=\(position, id\), which moves along"):
        av.trust(tiny("bert"), {"input_ids": ids(1, 12)}, target=one, replacement=3, methods=["attention"])


# what may not be disturbed


@pytest.mark.parametrize("name", ["bert_classifier", "gpt2", "t5"])
def test_nothing_is_left_behind(name: str) -> None:
    model = tiny(name)
    given = inputs_of(name)
    copies = {key: value.clone() for key, value in given.items()}
    state, config = torch.random.get_rng_state(), model.config.to_dict()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    before = model(**given).logits
    av.trust(model, given, replacement=3, rule=av.TrustRule(draws=20))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert model.config.to_dict() == config
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(given[key], value) for key, value in copies.items())
    assert torch.equal(model(**given).logits, before)


def test_a_verdict_is_frozen_and_short() -> None:
    result = av.trust(tiny("gpt2"), {"input_ids": ids(1, 8)}, replacement=3, rule=av.TrustRule(draws=20))
    with pytest.raises(AttributeError):
        result.seed = 3  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        result.verdicts["attention"] = "trust"  # type: ignore[index]
    assert repr(result).startswith("Trust(token ")
    assert "raw attention: " in repr(result)
    assert len(repr(result)) < 400
    assert "<iframe" in result._repr_html_()


def test_sentences_in_both_languages() -> None:
    result = judged(
        bag(0.4), words(LENGTH), target=1, rankings={"r": torch.arange(LENGTH)}, methods=[], replacement=MASK
    )
    with speaking("en"):
        assert "class 1" in str(result.sentences["r"])
    with speaking("zh"):
        assert "类别 1" in str(result.sentences["r"])


# errors


@pytest.fixture(scope="module")
def classifier() -> Any:
    return tiny("bert_classifier")


def test_errors_of_the_model_and_its_inputs(classifier: Any) -> None:
    given = {"input_ids": ids(1, 8)}
    with pytest.raises(ArgumentError, match="training mode"):
        av.trust(tiny("bert_classifier").train(), given)
    with pytest.raises(ArgumentError, match="one example, got batches of"):
        av.trust(classifier, {"input_ids": ids(2, 8)})
    with pytest.raises(ArgumentError, match="without a tokenizer"):
        av.trust(classifier, "a text")
    with pytest.raises(ArgumentError, match="text is empty"):
        av.trust(av.load_model("induction"), "  ")
    with pytest.raises(ArgumentError, match="tokens are taken out of a text"):
        av.trust(classifier, {"inputs_embeds": torch.zeros(1, 4, 32)})
    with pytest.raises(ArgumentError, match="a text or the model's inputs"):
        av.trust(classifier, ids(1, 8))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="from each position to each"):
        av.trust(tiny("gpt2"), given | {"attention_mask": torch.ones(1, 1, 8, 8)})
    with pytest.raises(ArgumentError, match="in a cache"):
        av.trust(tiny("gpt2"), given | {"past_key_values": object()})


def test_errors_of_the_target(classifier: Any) -> None:
    given = {"input_ids": ids(1, 8)}
    with pytest.raises(ShapeError, match="must be one number"):
        av.trust(classifier, given, target=lambda outputs: outputs.logits)
    with pytest.raises(ArgumentError, match="no logits"):
        av.trust(tiny("bert"), given)
    with pytest.raises(ArgumentError, match="from 0 to 2"):
        av.trust(classifier, given, target=17)
    with pytest.raises(UnknownNameError, match="its classes are: no, yes, perhaps"):
        av.trust(classifier, given, target="never")
    with pytest.raises(ArgumentError, match="labels every token"):
        av.trust(tiny("bert_tagger"), given, replacement=3)


def test_errors_of_what_is_ranked(classifier: Any) -> None:
    given = {"input_ids": ids(1, 8)}
    with pytest.raises(ShapeError, match="a score for each of the 8 tokens"):
        av.trust(classifier, given, rankings={"mine": torch.ones(3)})
    with pytest.raises(ArgumentError, match="bears the name of a method"):
        av.trust(classifier, given, rankings={"attention": torch.ones(8)})
    with pytest.raises(UnknownNameError, match="unknown method astrology; known: attention"):
        av.trust(classifier, given, methods=["astrology"])
    with pytest.raises(ArgumentError, match="no ranking to test"):
        av.trust(classifier, given, methods=[])
    with pytest.raises(ArgumentError, match="positions 0 to 7"):
        av.trust(classifier, given, candidates=[1, 8])
    with pytest.raises(ArgumentError, match="come twice"):
        av.trust(classifier, given, candidates=[1, 1])
    with pytest.raises(ArgumentError, match="the prediction is read there"):
        av.trust(tiny("gpt2"), given, candidates=[1, -1])
    with pytest.raises(ArgumentError, match="a percentile from 50"):
        av.TrustRule(percentile=5)
    with pytest.raises(ArgumentError, match="top tenth"):
        av.TrustRule(bins=(10.0,))


def test_errors_of_the_replacement(classifier: Any) -> None:
    given = {"input_ids": ids(1, 8)}
    with pytest.raises(ArgumentError, match="from 0 to 96"):
        av.trust(classifier, given, replacement=97)
    with pytest.raises(ArgumentError, match="no token of this tokenizer"):
        av.trust(av.load_model("induction"), "sun moon star", replacement="[MASK]")
    nothing = tiny("bert_classifier")
    nothing.config.pad_token_id = nothing.config.eos_token_id = None
    with pytest.raises(ArgumentError, match="say which: replacement="):
        av.trust(nothing, given)


def test_classes_have_names(classifier: Any) -> None:
    options: dict[str, Any] = {"methods": ["attention"], "replacement": 3, "rule": av.TrustRule(draws=20)}
    given = {"input_ids": ids(1, 8)}
    named, numbered = (av.trust(classifier, given, target=target, **options) for target in ("YES", 1))
    assert named.target.name == numbered.target.name == "logit of class 1 (yes)"
    assert named.target.subject.zh == "类别 1（yes）"
    assert torch.equal(named.curves.values, numbered.curves.values)
    tagged = av.trust(tiny("bert_tagger"), given, target=(3, 1), **options)
    assert tagged.target.name == "logit of class 1 at position 3"
    assert 3 not in tagged.candidates


# which tokens


@pytest.fixture(scope="module")
def pieces() -> BertTokenizer:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop"]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(vocabulary)})


def test_special_tokens_and_the_mask_that_is_read_are_no_evidence(pieces: BertTokenizer) -> None:
    result = av.trust(tiny("bert_masked"), "a b [MASK] zebra d e f", processor=pieces, rule=av.TrustRule(draws=20))
    assert result.tokens.texts == ("[CLS]", "a", "b", "[MASK]", "[UNK]", "d", "e", "f", "[SEP]")
    assert result.candidates == (1, 2, 4, 5, 6, 7)
    assert result.target.position == 3
    notes = " ".join(note.en for note in result.notes)
    assert "special tokens ([CLS] [SEP])" in notes
    assert "“[MASK]” at position 3, where the prediction is read" in notes
    assert "Replacement puts [MASK]" in notes
    with pytest.raises(ArgumentError, match=r"2 masks.*target=\(1, None\)"):
        av.trust(tiny("bert_masked"), "[MASK] [MASK] a", processor=pieces)
    chosen = av.trust(tiny("bert_masked"), "[MASK] [MASK] a b c d e", processor=pieces, target=(2, "b"))
    assert (chosen.target.position, chosen.target.index) == (2, 6)


def test_what_stands_behind_the_position_is_not_ranked_where_nobody_looks_ahead() -> None:
    result = av.trust(
        tiny("gpt2"), {"input_ids": ids(1, 12)}, target=(7, 5), replacement=3, rule=av.TrustRule(draws=20)
    )
    assert result.candidates == tuple(range(7))
    assert any("4 tokens after that position" in note.en for note in result.notes)


def test_candidates_of_ones_own() -> None:
    result = av.trust(
        tiny("gpt2"),
        {"input_ids": ids(1, 12)},
        candidates=[9, 2, 3, 4, 5, 6],
        replacement=3,
        rule=av.TrustRule(draws=20),
    )
    assert result.candidates == (2, 3, 4, 5, 6, 9)
    assert result.scores.values.isfinite().sum(-1).tolist() == [6] * 5
