"""Evolution worked out while the rows are there, against plain loops over the maps of the same run."""

import itertools
from typing import Any

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.errors import CaptureError, NotKeptError
from tests.capturing.streamed import BEAMS, GENERATIONS, GREEDY, LEFT, PASSES, RIGHT, captured, llama
from tests.models import ids, tiny
from tests.test_analysis_evolution import MODELS, loops

pytestmark = pytest.mark.filterwarnings("ignore::hf_attnviz.errors.SlowerWarning")
FROM_STATISTICS = {"distance", "first_token", "entropy", "normalised_entropy", "effective_span"}
RUNS = GENERATIONS | {
    "cross-attention, beams": (MODELS["marian"], lambda m: m.generate(**RIGHT, **BEAMS)),
    "chunks": (llama, lambda m: m.generate(ids(1, 9), prefill_chunk_size=4, **GREEDY)),
}


def check(result: av.Result, whole: av.Trace, stack: str, tolerance: float = 1e-5) -> None:
    prompt = result.parameters["prompt_length"]
    layers, heads = (range(len(result.axis(name).labels)) for name in ("layer", "head"))
    for layer, head in itertools.product(layers, heads):
        expected = loops(whole, stack, layer, head, prompt)
        for name in result.axis("statistic").labels:
            found = result.select(statistic=name).values[:, layer, head].double()
            wanted = torch.as_tensor(expected[name], dtype=torch.float64)
            torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance, equal_nan=True)


@pytest.mark.parametrize("name", RUNS)
def test_the_numbers_are_those_of_the_maps(name: str) -> None:
    maps, kept = captured(RUNS[name], "maps").traces, captured(RUNS[name], "evolution").traces
    assert len(maps) == len(kept)
    for whole, trace in zip(maps, kept, strict=True):
        for stack in set(trace.stacks) - {"encoder"}:
            result, known = av.evolution(trace, stack=stack), av.evolution(whole, stack=stack)
            assert result.axes == known.axes
            assert {"drift", "uniform_drift", "entropy", "first_token"} <= set(result.axis("statistic").labels)
            check(result, whole, stack)
            paths = av.argmax_paths(trace, stack=stack), av.argmax_paths(whole, stack=stack)
            assert torch.equal(paths[0].values, paths[1].values)
            assert paths[0].parameters == paths[1].parameters
            assert "Attention while decoding" in av.evolution_view(result).html


@pytest.mark.parametrize("way", PASSES)
def test_with_statistics_beside_it(way: str) -> None:
    with PASSES[way]():
        (trace,) = captured(RUNS["greedy"], ["statistics", "evolution"]).traces
    check(av.evolution(trace), captured(RUNS["greedy"], "maps").trace, "decoder")


@pytest.mark.parametrize("name", ["greedy, padding left", "cross-attention, beams", "window"])
def test_statistics_tell_some_of_them(name: str) -> None:
    maps, kept = captured(RUNS[name], "maps").traces, captured(RUNS[name], "statistics").traces
    for whole, trace in zip(maps, kept, strict=True):
        for stack in set(trace.stacks) - {"encoder"}:
            result = av.evolution(trace, stack=stack)
            here = FROM_STATISTICS - {"distance"} if stack == "cross" else FROM_STATISTICS
            assert set(result.axis("statistic").labels) == here
            assert any('keep="evolution"' in note.en for note in result.notes)
            check(result, whole, stack)
            with pytest.raises(NotKeptError, match='keep="evolution"'):
                av.argmax_paths(trace, stack=stack)
            assert av.evolution_view(result).html


def test_rows_of_a_prompt_are_not_worked_out() -> None:
    trace = captured(RUNS["greedy"], "evolution").trace
    for m in trace.decoder:
        kept = m.reduced["evolution"]
        assert kept.entropy.shape == (4, 11)
        assert kept.entropy[:, :6].isnan().all()
        assert not kept.entropy[:, 6:].isnan().any()
        assert kept.drift[:, 6].isnan().all()
        assert not kept.drift[:, 7:].isnan().any()
        assert (kept.argmax[:, :6] == -1).all()
        assert not {"weights", "row"} & set(kept)


def test_memory_is_that_of_the_numbers_and_one_row() -> None:
    recording = captured(RUNS["greedy"], "evolution")
    run = recording.runs[0]
    rows = [left.goes["evolution"]["row"] for left in run.streams._at.values()]
    assert [tuple(row.shape) for row in rows] == [(1, 4, 11)] * 3


def test_candidates_side_by_side() -> None:
    result = av.evolution(captured(RUNS["beams"], "evolution").traces[:2])
    known = av.evolution(captured(RUNS["beams"], "maps").traces[:2])
    torch.testing.assert_close(result.values, known.values, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_a_plain_pass_has_none() -> None:
    with av.capture(tiny("gpt2"), keep="evolution") as recording:
        recording.model(ids(1, 5))
    with pytest.raises(NotKeptError, match="plain forward pass"):
        av.evolution(recording.trace)


def test_drafts_are_refused() -> None:
    options: dict[str, Any] = GREEDY | {"prompt_lookup_num_tokens": 2}
    with pytest.raises(CaptureError, match="drafts"):
        captured((llama, lambda m: m.generate(ids(1, 6), **options)), "evolution").check()


def test_chosen_layers_are_enough() -> None:
    model = llama()
    with av.capture(model, keep="evolution", layers=[2]) as recording:
        model.generate(**LEFT, **GREEDY)
    for trace, whole in zip(recording.traces, captured(RUNS["greedy, padding left"], "maps").traces, strict=True):
        known = av.evolution(whole).values[:, :, 2:]
        torch.testing.assert_close(av.evolution(trace).values, known, atol=1e-5, rtol=1e-5, equal_nan=True)
