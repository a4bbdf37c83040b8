"""Analyses of traces that keep statistics and no weights: the numbers that the maps give."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.errors import NotKeptError, ShapeError
from hf_attnviz.reduced import Reduced
from tests.models import ids, tiny
from tests.views.builders import self_trace, statistics_of, translation, without_weights

FROM_ROWS = (
    "entropy",
    "normalised_entropy",
    "effective_span",
    "distance",
    "first_token",
    "first_token_after_first_row",
)
TEXTS = ("a b c d", "a b", "a b c d e f g", "a", "a b c", "a b c d e")


def texts(count: int, *, causal: bool) -> list[av.Trace]:
    return [self_trace(text.split(), causal=causal, heads=2) for text in TEXTS[:count]]


def agree(traces: Sequence[av.Trace], stack: str | None = None, *, baseline: bool = True) -> None:
    """Numbers, intervals and baselines of the traces without their weights are those of the maps."""
    bare = [without_weights(one) for one in traces]
    for analysis in (av.head_statistics, av.sinks):
        whole, found = analysis(traces, stack=stack), analysis(bare, stack=stack)
        names = found.axes[0].labels
        assert names == tuple(name for name in whole.axes[0].labels if name in names)
        assert found.axes[1:] == whole.axes[1:] and found.unit == whole.unit
        assert {name: found.parameters[name] for name in ("stack", "sequences", "causal")} == {
            name: whole.parameters[name] for name in ("stack", "sequences", "causal")
        }
        for told in ("values", "low", "high", *(["baseline"] if baseline else [])):
            expected = torch.stack([getattr(whole.select(statistic=name), told) for name in names])
            torch.testing.assert_close(getattr(found, told), expected, atol=1e-5, rtol=1e-5, equal_nan=True)
    assert av.head_statistics(bare, stack=stack).axes[0].labels == FROM_ROWS


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("causal", [True, False])
def test_made_by_hand(count: int, causal: bool) -> None:
    agree(texts(count, causal=causal))


@pytest.mark.parametrize("stack", ["encoder", "decoder", "cross"])
def test_an_encoder_decoders(stack: str) -> None:
    agree([translation()], stack)


def test_captured_runs() -> None:
    model = av.load_model("induction")
    agree([av.trace_text(model, text, generate=False) for text in model.examples[:2]])
    agree([av.trace_text(model, model.examples[0], generate=True)])
    translator = av.load_model("translator")
    for stack in ("encoder", "decoder", "cross"):
        agree([av.trace_text(translator, text) for text in translator.examples[:2]], stack)


def test_chosen_rows() -> None:
    with av.capture(tiny("gpt2"), keep=av.Rows([0, 3, 4])) as recording:
        recording.model(ids(1, 6))
    agree([recording.trace], baseline=False)  # of three rows no map tells that keys 1 to 2 are seen by the others
    found = av.head_statistics(without_weights(recording.trace))
    torch.testing.assert_close(found.baseline[2], torch.full((2, 4), (1 + 4 + 5) / 3))
    assert any("3 of 6 rows were kept" in note.en for note in found.notes)


def test_the_baseline_of_a_window_is_not_known_and_that_is_said() -> None:
    trace = self_trace(list("abcdef"), causal=True)
    seen = torch.ones(6, 6).tril().triu(-1)
    cut = [m.weights * seen / (m.weights * seen).sum(-1, keepdim=True) for m in trace.maps]
    maps = (dataclasses.replace(m, kept_weights=weights) for m, weights in zip(trace.maps, cut, strict=True))
    windowed = dataclasses.replace(trace, maps=tuple(maps))
    agree([windowed], baseline=False)
    found = av.head_statistics(without_weights(windowed))
    assert float(found.baseline[2, 0, 0]) == 3.5 > float(av.head_statistics(windowed).baseline[2, 0, 0])
    assert any("statistics do not tell of windows" in note.en for note in found.notes)


def test_without_knowing_what_a_row_may_see_there_is_no_baseline() -> None:
    trace = without_weights(self_trace(list("abcdef"), causal=True))
    for told in ([None, None], [True, False]):
        maps = tuple(dataclasses.replace(m, looks_back=one) for m, one in zip(trace.maps, told, strict=True))
        found = av.head_statistics(dataclasses.replace(trace, maps=maps))
        assert found.baseline is None and "normalised_entropy" not in found.axes[0].labels
        assert any("Without baseline" in note.en for note in found.notes)
        assert av.sinks(dataclasses.replace(trace, maps=maps)).baseline is None


def test_it_is_said_what_needs_the_weights_and_what_is_parked() -> None:
    trace = self_trace(list("abcdef"), causal=True)
    found, whole = av.head_statistics(without_weights(trace)), av.head_statistics(trace)
    assert found.notes[0] == whole.notes[0] and "of all weight lies on the first token" in found.notes[0].en
    left = ", ".join(name for name in whole.axes[0].labels if name not in FROM_ROWS)
    assert f'with the weights (keep="maps") also: {left}.' in found.notes[1].en
    assert found.notes[1].zh != found.notes[1].en
    view = av.picture(found)
    assert "effective" in view.html


def test_rows_that_are_undefined_stay_so() -> None:
    trace = self_trace(list("abcd"))
    holed = torch.cat([trace.maps[0].weights[:, :3], torch.full((3, 1, 4), torch.nan)], 1)
    maps = (dataclasses.replace(trace.maps[0], kept_weights=holed), trace.maps[1])
    bare = without_weights(dataclasses.replace(trace, maps=maps))
    found = av.head_statistics(bare)
    assert bool(found.values[:, 0].isnan().all()) and bool(found.values[:, 1].isfinite().all())
    assert any("Some weights are NaN" in note.en for note in found.notes)


def test_what_lacks_both_says_which_keep() -> None:
    trace = without_weights(self_trace(list("abcd")))
    other = {"segments": Reduced({"mass": torch.rand(3, 4)}, {"mass": ("head", "query")})}
    bare = dataclasses.replace(trace, maps=tuple(dataclasses.replace(m, reduced=other) for m in trace.maps))
    for analysis in (av.head_statistics, av.sinks):
        with pytest.raises(NotKeptError, match='no statistics of l0 were kept: capture with keep="statistics"'):
            analysis(bare)
    with pytest.raises(NotKeptError, match='weights of l0 were not kept.*keep="maps"'):
        av.sinks(trace, position=1)


def test_traces_and_layers_of_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="differ in layers or heads"):
        av.head_statistics([without_weights(self_trace(["a", "b"], heads=heads)) for heads in (2, 3)])
    one = without_weights(self_trace(["a", "b"], layers=1, heads=2))
    other = without_weights(self_trace(["a", "b"], layers=1, heads=3, first_layer=1))
    with pytest.raises(ShapeError, match="layers of stack 'encoder' cannot be stacked"):
        av.head_statistics(dataclasses.replace(one, maps=(*one.maps, *other.maps)))


@pytest.mark.parametrize("analysis", [av.head_statistics, av.sinks])
def test_traces_may_come_one_by_one(analysis) -> None:
    several = texts(2, causal=True)
    for traces in (several, [without_weights(one) for one in several]):
        assert torch.equal(analysis(iter(traces)).values.nan_to_num(), analysis(traces).values.nan_to_num())


def test_weights_tell_more_than_statistics_where_both_were_kept() -> None:
    whole = self_trace(list("abcd"))
    both = (dataclasses.replace(m, reduced={"statistics": statistics_of(m.weights, m.positions)}) for m in whole.maps)
    found = av.head_statistics(dataclasses.replace(whole, maps=tuple(both)))
    assert len(found.axes[0].labels) == 11
