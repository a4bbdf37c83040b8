"""Roles, sinks, flow, the map of heads and rollout's drift on real captured traces, against plain loops."""

import itertools
import math
import random

import pytest
import torch
import transformers

import hf_attnviz as av
from tests.functional import reference_structure as reference
from tests.models import ids, padded, tiny


@pytest.fixture(scope="module")
def induction() -> av.Loaded:
    return av.load_model("induction")


@pytest.fixture(scope="module")
def repeats(induction: av.Loaded) -> list[av.Trace]:
    """Six chunks of random words, each given twice."""
    words = sorted(word for word in induction.processor.get_vocab() if word.isascii() and word.isalpha())
    generator = random.Random(0)
    chunks = [generator.sample(words, n) for n in (8, 10, 12, 9, 11, 10)]
    return [av.trace_text(induction, " ".join(chunk + chunk), generate=False) for chunk in chunks]


@pytest.fixture(scope="module")
def encoder_traces() -> list[av.Trace]:
    model = tiny("bert")
    with av.capture(model) as recording, torch.no_grad():
        model(**padded([7, 4, 9], "left"))
    return recording.traces


@pytest.fixture(scope="module")
def decoder() -> av.Trace:
    model = tiny("gpt2")
    with av.capture(model) as recording, torch.no_grad():
        model(ids(1, 9))
    return recording.trace


def windowed() -> av.Trace:
    """Layers that take turns: a window of three, then all that came before."""
    config = transformers.Gemma3TextConfig(
        vocab_size=97, hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=3, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Gemma3ForCausalLM(config).eval()
    with av.capture(model) as recording, torch.no_grad():
        model(ids(1, 8))
    return recording.trace


def heads_with(result: av.Result, role: str) -> set[tuple[int, int]]:
    found = result.select(statistic=role).verdict
    assert found is not None
    return {(int(layer), int(head)) for layer, head in (found == 1).nonzero().tolist()}


def test_the_card_of_the_induction_model_is_right(induction: av.Loaded, repeats: list[av.Trace]) -> None:
    roles = av.head_roles(repeats)
    known = {tuple(head) for head in induction.truth["induction_heads"]}
    for role in ("induction", "induction_stripe", "induction_mul"):
        assert heads_with(roles, role) == known
    assert (0, 2) in heads_with(roles, "previous_token") and (0, 2) in heads_with(roles, "positional")
    assert not heads_with(roles, "duplicate_token")
    score = roles.select(statistic="induction")
    assert score.low is not None and score.high is not None and score.baseline is not None
    for layer, head in known:
        assert 0.9 < score.low[layer, head] <= score.values[layer, head] <= score.high[layer, head] <= 1
        assert score.baseline[layer, head] < 0.1
    assert "L1H0 L1H1 L1H2 L1H3" in roles.notes[0].en
    assert "next token, delimiter" in roles.notes[1].en and "causal" in roles.notes[1].en


def test_scores_and_intervals_by_hand(repeats: list[av.Trace]) -> None:
    """Each trace's rows in loops, and the interval of the list of lists."""
    roles = av.head_roles(repeats)
    for layer, head in itertools.product(range(2), range(4)):
        examples, uniform = [], []
        for trace in repeats:
            weights, tokens = trace.decoder.head(layer, head).double().tolist(), trace.decoder.keys.ids
            cells = {i: [j + 1 for j in range(i) if tokens[j] == tokens[i]] for i in range(len(tokens))}
            examples.append([sum(weights[i][j] for j in keys) for i, keys in cells.items() if keys])
            uniform.append([len(keys) / (i + 1) for i, keys in cells.items() if keys])
        score = roles.select(statistic="induction", layer=str(layer), head=str(head))
        assert float(score.values) == pytest.approx(reference.mean(itertools.chain(*examples)), abs=2e-5)
        assert float(score.baseline) == pytest.approx(reference.mean(itertools.chain(*uniform)), abs=2e-5)
        assert (float(score.low), float(score.high)) == pytest.approx(reference.interval(examples), abs=2e-5)


def test_roles_of_padded_and_single_traces(encoder_traces: list[av.Trace]) -> None:
    roles = av.head_roles(encoder_traces)
    assert roles.low is not None and roles.low.isnan().all() and "need 5 examples, here are 3" in str(roles.notes)
    rows: dict[str, list[float]] = {"previous_token": [], "next_token": []}
    for trace in encoder_traces:
        weights = trace.encoder.head(1, 2).double().tolist()
        rows["previous_token"] += [weights[i][i - 1] for i in range(1, len(weights))]
        rows["next_token"] += [weights[i][i + 1] for i in range(len(weights) - 1)]
    for name, values in rows.items():
        found = roles.select(statistic=name, layer="1", head="2")
        assert float(found.values) == pytest.approx(sum(values) / len(values), abs=2e-5)


def test_rows_of_a_generation_have_roles_too(induction: av.Loaded) -> None:
    """With queries=[-1] rows stand on later keys; their copies are found there."""
    inputs = induction.processor("sun moon star rain sun moon", return_tensors="pt")
    with av.capture(induction.model, induction.processor, queries=[-1]) as recording:
        induction.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    trace = recording.trace
    roles = av.head_roles(trace)
    positions, tokens = trace.decoder.maps[0].positions, trace.decoder.keys.ids
    assert positions is not None and len(positions) < len(tokens)
    weights = trace.decoder.head(1, 0).tolist()
    wanted = [
        sum(row[j + 1] for j in range(place) if tokens[j] == tokens[place])
        for row, place in zip(weights, positions, strict=True)
        if tokens[place] in tokens[:place]
    ]
    assert float(roles.select(statistic="induction", layer="1", head="0").values) == pytest.approx(
        sum(wanted) / len(wanted), abs=2e-5
    )


def test_delimiters_are_special_tokens_and_punctuation_or_what_is_told() -> None:
    texts = ("[CLS]", "a", ",", "b", "[SEP]")
    labels = av.Labels.of(texts, [1, 2, 3, 4, 5], range(5), ["special", "text", "text", "text", "special"])
    weights = torch.zeros(1, 5, 5)
    weights[0, :, 0], weights[0, :, 2], weights[0, :, 4] = 0.5, 0.2, 0.3
    trace = av.Trace((av.AttentionMap(weights, labels, labels, "encoder", 0, positions=tuple(range(5))),))
    for delimiters, score in ((None, 0.5), ({5}, 0.3), ({","}, 0.2), (["[CLS]", 3], 0.7)):
        result = av.head_roles(trace, delimiters=delimiters).select(statistic="delimiter")
        assert float(result.values) == pytest.approx(score)
    assert "[SEP]" in str(av.head_roles(trace).notes) and av.head_roles(trace).parameters["delimiters"] == (
        ",",
        "[SEP]",
    )


def test_without_ids_there_are_no_copies() -> None:
    labels = av.Labels.plain("aab")
    trace = av.Trace((av.AttentionMap(torch.eye(3)[None], labels, labels, "encoder", 0, positions=(0, 1, 2)),))
    result = av.head_roles(trace)
    assert result.select(statistic="duplicate_token").values.isnan().all()
    assert "ids are not known" in str(result.notes[-1].en)


def test_cross_attention_has_the_roles_that_need_no_place() -> None:
    model = tiny("bart")
    with av.capture(model) as recording, torch.no_grad():
        model(ids(1, 6), decoder_input_ids=ids(1, 6))
    scores = av.head_roles(recording.trace, stack="cross", delimiters=[int(ids(1, 6)[0, 3])])
    known = {
        name for name, values in zip(scores.axes[0].labels, scores.values, strict=True) if not values.isnan().any()
    }
    assert known == {"delimiter", "first_token_sink", "broad"}


def test_statistics_stand_beside_uniform_attention(decoder: av.Trace) -> None:
    found = av.head_statistics([decoder] * 5)
    entropy = found.select(statistic="entropy")
    assert entropy.baseline is not None and entropy.low is not None
    wanted = sum(math.log(n) for n in range(1, 10)) / 9
    assert entropy.baseline.flatten().tolist() == pytest.approx([wanted] * entropy.values.numel(), abs=1e-6)
    torch.testing.assert_close(entropy.low, entropy.values)  # five equal examples


def test_sinks_with_and_without_the_first_row(decoder: av.Trace) -> None:
    result = av.sinks(decoder, threshold=0.2)
    above = {"sink_mass": 0, "sink_mass_after_first_row": 0}
    for layer, head in itertools.product(range(2), range(4)):
        column = decoder.decoder.head(layer, head)[:, 0].double().tolist()
        for name, rows in zip(above, (column, column[1:]), strict=True):
            mass = sum(rows) / len(rows)
            found = result.select(statistic=name, layer=str(layer), head=str(head))
            assert float(found.values) == pytest.approx(mass, abs=2e-5)
            assert found.verdict == float(mass > 0.2)
            above[name] += mass > 0.2
    assert result.parameters["sink_fraction"] == {name: number / 8 for name, number in above.items()}
    assert result.baseline is not None
    assert float(result.baseline[0, 0, 0]) == pytest.approx(sum(1 / n for n in range(1, 10)) / 9)
    with pytest.raises(av.errors.ArgumentError, match="threshold"):
        av.sinks(decoder, threshold=30)


def test_the_share_of_sink_heads_is_the_mean_over_texts(encoder_traces: list[av.Trace]) -> None:
    threshold, shares = 0.2, []
    for trace in encoder_traces:
        masses = trace.encoder.stacked()[..., 0].double().mean(-1)  # every row counts: all stand behind the first
        shares.append(float((masses > threshold).double().mean()))
    assert len(set(shares)) > 1
    found = av.sinks(encoder_traces, threshold=threshold).parameters["sink_fraction"]
    assert found["sink_mass"] == pytest.approx(sum(shares) / len(shares))


def test_the_order_of_the_heads_puts_like_beside_like() -> None:
    """Heads 0 and 3, 1 and 2 are nearly the same; by whatever measure they are neighbours."""
    generator = torch.Generator().manual_seed(0)
    one, other, noise = torch.randn(3, 6, 6, generator=generator)
    weights = torch.stack([3 * one, 3 * other, 3 * other + 0.1 * noise, 3 * one + 0.1 * noise]).softmax(-1)
    labels = av.Labels.plain("abcdef")
    trace = av.Trace((av.AttentionMap(weights, labels, labels, "encoder", 0, positions=tuple(range(6))),))
    for method in ("pearson", "spearman", "cosine", "js", "js_clark", "hellinger", "jeffreys"):
        order = list(av.head_correlation(trace, method=method).axis("head").order or ())
        assert abs(order.index(0) - order.index(3)) == abs(order.index(1) - order.index(2)) == 1, method


def test_heads_that_look_alike_stand_together(repeats: list[av.Trace]) -> None:
    result = av.head_map(repeats, dimensions=7)
    assert result.axis("statistic").labels[:2] == ("dimension 1", "dimension 2")
    js = av.head_correlation(repeats, method="js").values
    drawn = torch.cdist(result.values.double(), result.values.double())
    torch.testing.assert_close(drawn, js.double().sqrt(), atol=0.02, rtol=0)  # √JS is nearly Euclidean
    plane = av.head_map(repeats)
    torch.testing.assert_close(plane.values, result.values[:, :2])
    flat = torch.cdist(plane.values.double(), plane.values.double())
    stress = ((flat - js.sqrt()).square().sum() / js.sum()).sqrt()
    assert plane.parameters["stress"] == pytest.approx(float(stress), abs=1e-4)
    assert flat[4:, 4:].max() < flat[4:, :4].min()  # the induction heads among themselves


@pytest.mark.parametrize(
    "options", [{}, {"start_layer": 1}, {"discard": 0.7}, {"residual": 0.2, "normalise": "before", "discard": 0.7}]
)
def test_drift_follows_every_option(decoder: av.Trace, options: dict[str, float]) -> None:
    result = av.rollout(decoder, head_fusion="max", **options)
    uniform = torch.ones(9, 9).tril() / torch.arange(1, 10)[:, None]
    wanted = av.functional.rollout(uniform.expand(2, 1, 1, 9, 9), **options)[:, 0]
    assert result.baseline is not None
    torch.testing.assert_close(result.baseline, wanted)
    torch.testing.assert_close(result.above_baseline().values, result.values - wanted)
    assert result.parameters["uniform_first_token"] == pytest.approx(float(wanted[-1, -1, 0]))


def test_drift_of_a_sliding_window_is_that_of_the_window() -> None:
    trace = windowed()
    result = av.rollout(trace)
    rolled = None
    for layer, width in enumerate((3, 8)):
        mixed = torch.zeros(8, 8, dtype=torch.float64)
        for i in range(8):
            seen = [j for j in range(i + 1) if i - j < width]
            assert set(trace.decoder.layer(layer).weights[0, i].nonzero().flatten().tolist()) == set(seen)
            mixed[i, seen] = 0.5 / len(seen)
            mixed[i, i] += 0.5
        rolled = mixed if rolled is None else mixed @ rolled
        assert result.baseline is not None
        torch.testing.assert_close(result.baseline[layer].double(), rolled, atol=1e-6, rtol=0)


def test_flow_of_the_last_row_and_of_all(decoder: av.Trace) -> None:
    maps = decoder.decoder.stacked().double()
    every = av.flow(decoder)
    torch.testing.assert_close(
        every.values.double(), torch.from_numpy(reference.flow(maps.numpy(), 0.5)), atol=2e-5, rtol=0
    )
    last = av.flow(decoder, queries=[-1], normalise=True)
    assert [axis.name for axis in last.axes] == ["query", "key"] and len(last.axes[0].labels) == 1
    torch.testing.assert_close(last.values[0], every.values[-1] / every.values[-1].sum())
    uniform = torch.ones(9, 9, dtype=torch.float64).tril() / torch.arange(1, 10)[:, None]
    wanted = reference.flow(uniform.expand(2, 1, 9, 9).numpy(), 0.5)
    assert every.baseline is not None
    torch.testing.assert_close(every.baseline.double(), torch.from_numpy(wanted), atol=2e-5, rtol=0)


def test_flow_of_many_tokens_is_that_of_the_telling_row() -> None:
    for name, row in (("gpt2", -1), ("bert", 0)):
        model = tiny(name)
        with av.capture(model) as recording, torch.no_grad():
            model(ids(1, 20))
        result = av.flow(recording.trace)
        assert result.axes[0].labels == (recording.trace.stack().queries.texts[row],)
        assert "1 of 20 rows" in str(result.notes[-1].en)


def test_the_cost_of_flow_and_its_baseline_is_told_as_one(
    decoder: av.Trace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is long is made short here: two problems a key."""
    av.set_language("en")
    monkeypatch.setattr("hf_attnviz.progress.LONG", 1e-9)
    av.flow(decoder, queries=[-1])
    assert "attention flow: 18 steps, about" in capsys.readouterr().err


def test_what_cannot_be_rolled_out_says_what_to_do(decoder: av.Trace) -> None:
    model = tiny("bart")
    with av.capture(model) as recording, torch.no_grad():
        model(ids(1, 5), decoder_input_ids=ids(1, 4))
    model = tiny("gpt2")
    with av.capture(model, queries=[-1]) as few, torch.no_grad():
        model(ids(1, 9))
    for analyse in (av.rollout, av.flow):
        with pytest.raises(av.errors.NotKeptError, match="is cross-attention.*choose a self-attention stack$"):
            analyse(recording.trace, stack="cross")
        with pytest.raises(av.errors.NotKeptError, match="holds 1 of 9 rows: capture the whole run.*without queries="):
            analyse(few.trace)


def test_distance_across_a_picture() -> None:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=12, patch_size=4
    )
    torch.manual_seed(0)
    model = transformers.ViTModel(config).eval()
    with av.capture(model) as recording, torch.no_grad():
        model(torch.randn(2, 3, 12, 12))
    result = av.image_distance(recording.traces, patch_size=4)
    maps = torch.stack([trace.stack().stacked() for trace in recording.traces], 1).double()
    wanted = reference.image_distance(maps.numpy(), 3, 3, 4, 1)
    torch.testing.assert_close(result.values[0].double(), torch.from_numpy(wanted), atol=2e-4, rtol=0)
    assert result.unit == "pixels" and av.image_distance(recording.traces).unit == "patches"
    torch.testing.assert_close(av.image_distance(recording.traces).values * 4, result.values)
    uniform = torch.full((1, 1, 1, 10, 10), 0.1)
    assert result.baseline is not None
    assert float(result.baseline[0, 0, 0]) == pytest.approx(
        float(reference.image_distance(uniform.numpy(), 3, 3, 4, 1)[0, 0]), abs=1e-5
    )


def test_words_are_no_picture(decoder: av.Trace) -> None:
    with pytest.raises(av.errors.ArgumentError, match="got 0 patches among 9 keys"):
        av.image_distance(decoder)


def test_the_report_has_a_section_for_each(decoder: av.Trace) -> None:
    av.set_language("en")
    page = av.report(decoder).html
    for heading in ("Head roles", "Attention sinks", "Map of the heads", "minus uniform attention", "Attention flow"):
        assert heading in page
    assert "Distance across the picture" not in page
