"""Evolution over decoding steps: greedy, with beams, with cross-attention, against plain loops over the trace."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from tests.capturing.pointing import redrawn
from tests.functional import reference
from tests.models import ids, tiny

GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}


def marian() -> Any:
    both = {"layers": 2, "attention_heads": 4, "ffn_dim": 37}
    sides = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in both.items()}
    config = transformers.MarianConfig(
        vocab_size=97, d_model=32, max_position_embeddings=64, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
        forced_eos_token_id=None, **sides,
    )  # fmt: skip
    model = redrawn(transformers.MarianMTModel._from_config(config))
    model.generation_config.bad_words_ids = None
    return model


MODELS = {"bart": lambda: tiny("bart"), "t5": lambda: tiny("t5"), "marian": marian}


def generated(model: Any, **options: Any) -> list[av.Trace]:
    with av.capture(model) as recording:
        model.generate(ids(1, 6), **GREEDY | options)
    return recording.traces


@pytest.fixture(scope="module")
def llama() -> list[av.Trace]:
    return generated(tiny("llama"), num_beams=3, num_return_sequences=3, min_new_tokens=2)


def loops(trace: av.Trace, stack: str, layer: int, head: int, prompt: int | None) -> dict[str, Any]:
    """The reference on the rows that put out tokens, each cut to the keys there were by then."""
    found = trace.stack(stack)
    rows = [n for n, text in enumerate(found.maps[0].produced or ()) if text is not None]
    weights = found.head(layer, head).double().numpy()
    steps = [weights[n : n + 1, : None if prompt is None else n + 1][None, None, None] for n in rows]
    return {name: values[:, 0, 0, 0] for name, values in reference.evolution(steps, prompt).items()}


def assert_result_is(result: av.Result, wanted: dict[str, Any], layer: int, head: int) -> None:
    names = [name for name in wanted if name != "argmax"]
    assert set(result.axis("statistic").labels) == set(names)
    for name in names:
        found = result.select(statistic=name).values[:, layer, head]
        expected = torch.tensor(wanted[name], dtype=torch.float64)
        torch.testing.assert_close(found[: len(expected)].double(), expected, atol=2e-5, rtol=2e-5, equal_nan=True)


def test_every_statistic_of_every_head(llama: list[av.Trace]) -> None:
    result = av.evolution(llama[0])
    for layer, head in itertools.product(range(2), range(4)):
        assert_result_is(result, loops(llama[0], "decoder", layer, head, 6), layer, head)


def test_the_lookback_ratio_by_hand(llama: list[av.Trace]) -> None:
    """At step 2 there are six prompt keys and two generated ones."""
    row = llama[0].decoder.head(1, 3)[7, :8].tolist()
    prompt, own = sum(row[:6]) / 6, sum(row[6:]) / 2
    found = av.evolution(llama[0]).select(statistic="lookback_ratio").values
    assert found[2, 1, 3].item() == pytest.approx(prompt / (prompt + own), abs=1e-6)
    assert found[0].isnan().all() and not found[1:].isnan().any()


@pytest.mark.parametrize("name", MODELS)
def test_cross_attention_has_no_growing_keys(name: str) -> None:
    (trace,) = generated(MODELS[name]())
    result = av.evolution(trace, stack="cross")
    for layer, head in itertools.product(range(2), range(trace.cross.maps[0].heads)):
        assert_result_is(result, loops(trace, "cross", layer, head, None), layer, head)
    assert (result.select(statistic="uniform_drift").values[1:] == 0).all()
    told = " ".join(note.en for note in result.notes)
    assert "do not grow" in told and "one key more" not in told and "prompt" not in told
    page = av.evolution_view(result)
    assert "do not grow" in page.how_to_read and "more keys at each step" not in page.how_to_read


def test_the_decoder_of_a_translator_says_what_its_prompt_is() -> None:
    (trace,) = generated(tiny("bart"))
    result = av.evolution(trace)
    assert result.parameters["prompt_length"] == 1
    assert any("not the source" in note.en and "(1 token)" in note.en for note in result.notes)
    assert any("one key more" in note.en for note in result.notes)
    assert not any("window" in note.en for note in result.notes)


def test_keys_behind_a_window_are_told() -> None:
    trace = generated(tiny("llama"))[0]
    first = trace.decoder.maps[0]
    cut = first.weights.clone()
    cut[:, -1, :3] = 0
    windowed = av.Trace(tuple(replace(m, kept_weights=cut) for m in trace.maps))
    assert any("window" in note.en for note in av.evolution(windowed).notes)


@pytest.mark.parametrize("stack", ["decoder", "cross"])
def test_paths_hold_the_names_of_keys(stack: str) -> None:
    (trace,) = generated(tiny("bart"))
    path = av.argmax_paths(trace, stack=stack)
    assert [axis.name for axis in path.axes] == ["layer", "head", "step"] and path.values.dtype == torch.int64
    assert path.parameters["keys"] == trace.stack(stack).keys.texts
    for layer, head in itertools.product(range(2), range(2)):
        wanted = loops(trace, stack, layer, head, 1 if stack == "decoder" else None)["argmax"]
        assert path.values[layer, head].tolist() == wanted.astype(int).tolist()
    assert path.axis("step").labels[0] == f"0 → {trace.cross.maps[0].produced[0]}"
    assert "argmax" not in av.evolution(trace, stack=stack).axis("statistic").labels


def test_candidates_lie_side_by_side(llama: list[av.Trace]) -> None:
    assert [trace.candidate for trace in llama] == [0, 1, 2]
    result = av.evolution(llama)
    assert [axis.name for axis in result.axes] == ["batch", "statistic", "step", "layer", "head"]
    for n, (trace, name) in enumerate(zip(llama, result.axis("batch").labels, strict=True)):
        alone = av.evolution(trace)
        steps = len(alone.axis("step").labels)
        torch.testing.assert_close(result.values[n, :, :steps], alone.values, equal_nan=True, atol=0, rtol=0)
        assert result.values[n, :, steps:].isnan().all()
        assert name == f"0.{n}: " + " ".join(t for t in trace.decoder.maps[0].produced or () if t is not None)
    assert "side by side" in result.notes[-1].en


def test_a_candidate_that_ends_first_is_undefined_from_there_on() -> None:
    model = tiny("llama")
    short, long = generated(model, max_new_tokens=2, min_new_tokens=2), generated(model)
    result = av.evolution([*short, *long])
    assert result.values[0, :, 2:].isnan().all() and not result.values[1, 0, 1:].isnan().any()
    assert av.evolution_view(result).html


def test_errors(llama: list[av.Trace]) -> None:
    with pytest.raises(av.errors.ArgumentError, match="got none"):
        av.evolution([])
    with pytest.raises(av.errors.ShapeError, match="one model"):
        av.evolution([llama[0], *generated(tiny("bart"))])
    with av.capture(tiny("bert")) as recording, torch.no_grad():
        recording.model(ids(1, 4))
    for analysis in (av.evolution, av.argmax_paths):
        with pytest.raises(av.errors.NotKeptError, match="generate"):
            analysis(recording.trace)


def test_uniform_attention_drifts_by_growth_alone(llama: list[av.Trace]) -> None:
    first = llama[0].decoder.maps[0]
    rows = torch.tril(torch.ones(first.weights.shape[1:]))
    flat = (rows / rows.sum(-1, keepdim=True)).expand_as(first.weights)
    result = av.evolution(av.Trace((replace(first, kept_weights=flat),)))
    drift, growth = (result.select(statistic=name).values for name in ("drift", "uniform_drift"))
    torch.testing.assert_close(drift, growth, equal_nan=True)
    assert (growth[1:] > 0).all()
    assert torch.allclose(result.select(statistic="lookback_ratio").values[1:], torch.tensor(0.5))
    assert math.isnan(growth[0, 0, 0])
