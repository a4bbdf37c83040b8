"""Alignment: on the embedded translator, whose right links are known, and on tiny models against plain loops."""

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.zoo import grammar
from hf_attnviz.zoo.translator import FRESH
from tests.models import ids, tiny
from tests.test_analysis_evolution import MODELS, generated

DUCK = "我爱吃北京烤鸭"


@pytest.fixture(scope="module")
def loaded() -> av.Loaded:
    return av.load_model("translator")


@pytest.fixture(scope="module")
def duck(loaded: av.Loaded) -> av.Trace:
    return av.trace_text(loaded, DUCK)


def test_the_duck_is_peking_duck(duck: av.Trace) -> None:
    found = av.alignment(duck, layer=1, head=1)
    targets, sources = found.axis("query").labels, found.axis("key").labels
    assert [(sources[s], targets[t]) for s, t in av.links(found)] == [
        ("我", "I"), ("爱", "love"), ("北京", "Peking"), ("烤鸭", "duck"),
    ]  # fmt: skip
    assert av.pharaoh(found) == "0-0 1-1 3-2 4-3\n"
    weights = duck.cross.head(1, 1)[:4, :5]
    assert torch.equal(found.select(statistic="weight").values, weights)


def test_what_special_tokens_take_is_told(duck: av.Trace) -> None:
    rest = duck.cross.stacked()[:, :, :4, 5:].sum(-1).mean()
    assert any(note.en.startswith(f"{rest:.0%} of the weight") for note in av.alignment(duck).notes)
    everything = av.alignment(duck, special=True)
    assert everything.axis("key").labels[-1] == everything.axis("query").labels[-1] == "</s>"
    assert not any("left out" in note.en for note in everything.notes)


def test_the_row_that_reads_is_the_next_one(duck: av.Trace) -> None:
    output, reading = (av.alignment(duck, layer=1, head=0, read=read, special=True) for read in ("output", "reading"))
    assert output.axis("query").labels == ("I", "love", "Peking", "duck", "</s>")
    assert reading.axis("query").labels == ("I", "love", "Peking", "duck")  # the end was never read
    rows = duck.cross.head(1, 0)
    assert torch.equal(output.values[1], rows) and torch.equal(reading.values[1], rows[1:])


def test_both_rows_of_the_card_on_its_own_400_sentences(loaded: av.Loaded) -> None:
    """The card was measured by teacher forcing on an eager model, by other code: see zoo.translator.measure."""
    pairs = list(islice(grammar.sentences(FRESH), 400))
    numbers = loaded.processor.get_vocab()
    batch = [[*(numbers[piece] for piece in pair.source), numbers["</s>"]] for pair in pairs]
    longest = max(map(len, batch))
    pad = loaded.model.config.pad_token_id
    inputs = torch.tensor([row + [pad] * (longest - len(row)) for row in batch])
    with av.capture(loaded.model, loaded.processor) as recording:
        loaded.model.generate(inputs, attention_mask=(inputs != pad).long())
    scores = av.alignment_scores(
        recording.traces, sure=[pair.sure for pair in pairs], possible=[pair.links for pair in pairs]
    )
    truth = loaded.truth["aer_by_head"]
    for read in ("output", "reading"):
        rates = scores.select(statistic=f"error_rate_{read}").values
        assert rates.tolist() == [pytest.approx(row, abs=5e-5) for row in truth[read]]
    assert scores.select(statistic="error_rate_output").values[1, 1].item() == pytest.approx(0.0191, abs=5e-5)
    assert scores.select(statistic="error_rate_reading").values[1, 1].item() == pytest.approx(0.8448, abs=5e-5)


def test_the_mean_over_coarse_heads_is_not_coarse(duck: av.Trace) -> None:
    """A mean taken in bfloat16 ties keys that are not equal, and NumPy knows no bfloat16."""
    coarse = replace(duck, maps=tuple(replace(m, kept_weights=m.weights.bfloat16()) for m in duck.cross))
    found = av.alignment(coarse, head="mean", special=True)
    weights = coarse.cross.stacked().double().mean(1)
    torch.testing.assert_close(found.select(statistic="weight").values.double(), weights, atol=1e-6, rtol=0)
    assert found.values.dtype == torch.float32 and found.to_numpy().shape == found.values.shape


def counted(weights: list[list[float]], sure: set[Any], possible: set[Any]) -> float:
    links = {(row.index(max(row)), t) for t, row in enumerate(weights)}
    return 1 - (len(links & sure) + len(links & possible)) / (len(links) + len(sure))


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_tiny_models_by_counting(name: str) -> None:
    (trace,) = generated(MODELS[name]())
    sure, possible = {(0, 0), (3, 2)}, {(0, 0), (3, 2), (1, 1), (5, 3), (2, 0)}
    scores = av.alignment_scores(trace, sure=sure, possible=possible)
    for layer in range(2):
        for head in range(trace.cross.maps[0].heads):
            rows = trace.cross.head(layer, head).tolist()
            for read, chosen in (("output", rows), ("reading", rows[1:])):
                found = scores.select(statistic=f"error_rate_{read}").values[layer, head].item()
                assert found == pytest.approx(counted(chosen, sure, possible), abs=1e-6)
                places = [row.index(max(row)) for row in chosen]
                forward = [float(b >= a) for a, b in pairwise(places)]
                monotone = scores.select(statistic=f"monotone_{read}").values[layer, head].item()
                assert monotone == pytest.approx(sum(forward) / len(forward), abs=1e-6)


def test_the_chance_is_what_random_sources_get() -> None:
    (trace,) = generated(tiny("bart"))
    sure, possible = {(0, 0), (3, 2)}, {(0, 0), (3, 2), (1, 1)}
    told = av.alignment_scores(trace, sure=sure, possible=possible).parameters["chance_error_rate"]
    generator = torch.Generator().manual_seed(0)
    rates = []
    for _ in range(4000):
        drawn = {(s, t) for t, s in enumerate(torch.randint(6, (5,), generator=generator).tolist())}
        rates.append(1 - (len(drawn & sure) + len(drawn & possible)) / (5 + len(sure)))
    assert told == pytest.approx(sum(rates) / len(rates), abs=0.01)


def test_every_candidate_has_an_alignment_of_its_own() -> None:
    traces = generated(tiny("bart"), num_beams=3, num_return_sequences=3)
    found = [av.alignment(trace, layer=1, head=0) for trace in traces]
    for one, trace in zip(found, traces, strict=True):
        assert one.values[0].argmax(-1).tolist() == trace.cross.head(1, 0).argmax(-1).tolist()
    assert len(av.pharaoh(found).splitlines()) == 3


def test_a_plain_pass_over_both_texts_aligns_as_the_generation_did(loaded: av.Loaded, duck: av.Trace) -> None:
    source = loaded.processor(DUCK, return_tensors="pt")
    written = torch.tensor([duck.cross.queries.ids])
    with av.capture(loaded.model, loaded.processor) as recording, torch.no_grad():
        loaded.model(**source, decoder_input_ids=written)
    plain, produced = av.alignment(recording.trace), av.alignment(duck)
    assert plain.axis("query").labels == produced.axis("query").labels
    torch.testing.assert_close(plain.values, produced.values, atol=2e-5, rtol=0)
    assert av.alignment(recording.trace, read="reading").axis("query").labels == produced.axis("query").labels


def test_a_decoder_alone_aligns_with_its_prompt() -> None:
    (trace,) = generated(tiny("llama"))
    found = av.alignment(trace, stack="decoder", layer=0, head=2)
    assert found.axis("key").labels == trace.decoder.keys.texts[:6]
    assert torch.equal(found.values[1], trace.decoder.head(0, 2)[5:, :6])
    assert any("no text of the prompt" in note.en for note in found.notes)


def test_means_over_heads_and_all_heads(duck: av.Trace) -> None:
    every = av.alignment(duck)
    assert [axis.name for axis in every.axes] == ["statistic", "layer", "head", "query", "key"]
    assert av.links(every.select(layer="1", head="1")) == av.links(av.alignment(duck, layer=1, head=1))
    mean = av.alignment(duck, layer=0, head="mean")
    torch.testing.assert_close(mean.values[1], duck.cross.stacked()[0, :, :4, :5].mean(0))


def test_the_path_never_goes_back(duck: av.Trace) -> None:
    found = av.links(av.alignment(duck, layer=1, head=1, method="dtw"))
    assert found[0] == (0, 0) and found[-1] == (4, 3)
    assert all(s <= s2 and t <= t2 for (s, t), (s2, t2) in pairwise(found))


def test_words_of_pieces() -> None:
    """Two pieces of one word on either side, by hand."""
    keys = av.Labels(
        ("un", "do", "it", "</s>"),
        (5, 6, 7, 2),
        (0, 0, 1, None),
        (av.Segment("text", 0, 3), av.Segment("special", 3, 4)),
    )
    queries = av.Labels.of(
        ("<s>", "dé", "faire", "le"), (1, 8, 9, 3), (None, 0, 0, 1), ("special", "text", "text", "text")
    )
    weights = torch.tensor([[[0.1, 0.3, 0.5, 0.1], [0.3, 0.4, 0.2, 0.1], [0.0, 0.1, 0.8, 0.1], [0.2, 0.2, 0.2, 0.4]]])
    produced = ("dé", "faire", "le", "</s>")
    trace = av.Trace(
        (av.AttentionMap(weights, queries, keys, "decoder", 0, kind="cross", steps=(0, 1, 2, 3), produced=produced),)
    )
    found = av.alignment(trace, layer=0, head=0, words=True)
    assert found.axis("query").labels == ("défaire", "le") and found.axis("key").labels == ("undo", "it")
    torch.testing.assert_close(found.values[1], torch.tensor([[0.55, 0.35], [0.1, 0.8]]))
    assert av.pharaoh(found) == "0-0 1-1\n"
    assert av.links(av.alignment(trace, layer=0, head=0)) == ((1, 1), (2, 0), (2, 2))
    assert any(note.en.startswith("Words:") for note in found.notes)


def test_text_is_written_whole_or_not_at_all(duck: av.Trace, tmp_path: Path) -> None:
    one = av.alignment(duck, layer=1, head=1)
    nothing = av.Result(torch.zeros_like(one.values), one.axes, one.method)
    path = tmp_path / "links.txt"
    text = av.pharaoh([one, nothing, one], path=path)
    assert text == "0-0 1-1 3-2 4-3\n\n0-0 1-1 3-2 4-3\n" and path.read_bytes() == text.encode()
    with pytest.raises(av.errors.ArgumentError, match="got none; nothing was written"):
        av.pharaoh([], path=path)
    with pytest.raises(av.errors.ArgumentError, match=r"select\(layer="):
        av.pharaoh([one, av.alignment(duck)], path=path)
    with pytest.raises(av.errors.SaveError):
        av.pharaoh(one, path=tmp_path / "no folder" / "links.txt")
    assert path.read_bytes() == text.encode() and [p.name for p in tmp_path.iterdir()] == ["links.txt"]


def test_rows_that_see_nothing_have_no_link(duck: av.Trace) -> None:
    one = duck.cross.layer(1)
    holed = one.weights.clone()
    holed[:, 2] = torch.nan
    trace = av.Trace(
        (
            av.AttentionMap(
                holed, one.queries, one.keys, "decoder", 1, kind="cross", steps=one.steps, produced=one.produced
            ),
        )
    )
    found = av.alignment(trace, layer=1, head=1)
    assert av.pharaoh(found) == "0-0 1-1 4-3\n"
    assert any("no link" in note.en for note in found.notes)
    assert av.alignment_scores(trace).values.isnan().sum() == 2 * 2 * 2  # both orders, both rows, both heads
    with pytest.raises(av.errors.ArgumentError, match="NaN"):
        av.alignment(trace, method="dtw")


def test_errors(duck: av.Trace) -> None:
    with pytest.raises(av.errors.UnknownNameError, match="output, reading"):
        av.alignment(duck, read="writing")
    with pytest.raises(av.errors.UnknownNameError, match="argmax, dtw"):
        av.alignment(duck, method="best")
    with pytest.raises(av.errors.UnknownNameError, match="there are: 0, 1"):
        av.alignment(duck, layer=2)
    with pytest.raises(av.errors.UnknownNameError, match="there are: 0, 1"):
        av.alignment(duck, head=-1)
    with pytest.raises(av.errors.UnknownStackError, match="encoder, decoder, cross"):
        av.alignment(duck, stack="vision")
    with pytest.raises(av.errors.ArgumentError, match="two texts"):
        av.alignment(duck, stack="encoder")
    with pytest.raises(av.errors.ArgumentError, match="got none"):
        av.alignment_scores([])
    with pytest.raises(av.errors.ArgumentError, match="for each of 2 traces, got 1"):
        av.alignment_scores([duck, duck], sure=[{(0, 0)}])
    with pytest.raises(av.errors.ArgumentError, match="without sure"):
        av.alignment_scores(duck, possible={(0, 0)})
    with pytest.raises(av.errors.ArgumentError, match=r"within 5 sources and 4 targets of trace 0, got \(5, 0\)"):
        av.alignment_scores(duck, sure={(5, 0)})
    with pytest.raises(av.errors.ArgumentError, match=r"possible \| sure"):
        av.alignment_scores(duck, sure={(0, 0)}, possible={(1, 1)})
    with pytest.raises(av.errors.ArgumentError, match="one head"):
        av.links(av.evolution(duck))


def test_rows_that_were_not_kept_are_missed() -> None:
    model = tiny("bart")
    with av.capture(model, queries=[0, 2]) as recording, torch.no_grad():
        model(input_ids=ids(1, 6), decoder_input_ids=ids(1, 5, seed=1))
    with pytest.raises(av.errors.NotKeptError, match=r'keep="maps"'):
        av.alignment(recording.trace)


def test_the_rows_that_put_out_tokens_are_enough(loaded: av.Loaded, duck: av.Trace) -> None:
    with av.capture(loaded.model, loaded.processor, queries=[-1]) as recording:
        loaded.model.generate(**loaded.processor(DUCK, return_tensors="pt"))
    for read in ("output", "reading"):
        found, whole = (av.alignment(trace, read=read) for trace in (recording.trace, duck))
        torch.testing.assert_close(found.values, whole.values, rtol=0, atol=1e-6)
        assert found.axes == whole.axes


def test_one_token_was_never_read() -> None:
    (trace,) = generated(tiny("bart"), max_new_tokens=1, min_new_tokens=1)
    assert len(av.alignment(trace).axis("query").labels) == 1
    with pytest.raises(av.errors.ArgumentError, match="read='output'"):
        av.alignment(trace, read="reading")


def test_the_report_of_a_translation_shows_alignment_and_paths(duck: av.Trace) -> None:
    with av.language.speaking("en"):
        html = av.report(duck).html
    assert "Alignment: which source each word looks at" in html
    assert html.count("The key each head looks at most, step by step") >= 2  # of the decoder and of the cross-attention
    (short,) = generated(tiny("bart"), max_new_tokens=1, min_new_tokens=1)
    assert "Alignment: which" not in av.report(short).html
