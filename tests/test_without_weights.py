"""Traces that keep what was made of the weights, and not the weights: what works, and what says that it cannot."""

import dataclasses
from functools import cache

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import NotKeptError, ShapeError
from hf_attnviz.labels import Labels
from hf_attnviz.packed import PackedRows
from hf_attnviz.reduced import Reduced
from tests.views.builders import self_trace, statistics_of, translation, without_weights

FROM_STATISTICS = {"head_statistics", "sinks"}  # the analyses that need no weights
OF_GENERATIONS = {"evolution"}  # and those that need none of a generation
VIEWS = ("head_view", "model_view", "neuron_view", "to_bertviz")
LABELS = Labels.plain("abcd")


@cache
def captured(what: str) -> av.Trace:
    if what == "translation":
        model = av.load_model("translator")
        return av.trace_text(model, model.examples[0])
    model = av.load_model("induction")
    keep = ["maps", "contributions", av.Vectors()] if what == "plain" else ["maps"]
    return av.trace_text(model, model.examples[0], generate=what == "generation", keep=keep)


@pytest.mark.parametrize("what", ["plain", "generation", "translation"])
@pytest.mark.parametrize("name", sorted(av.analyses()))
def test_every_analysis_says_what_to_capture(name: str, what: str) -> None:
    trace = without_weights(captured(what))
    for stack in trace.stacks:
        if name in FROM_STATISTICS or (name in OF_GENERATIONS and trace.stack(stack).maps[0].produced is not None):
            assert isinstance(av.analyses()[name](trace, stack=stack), av.Result)
            continue
        with pytest.raises(NotKeptError, match=r"keep=|needs a generation|cross-attention"):
            av.analyses()[name](trace, stack=stack)


@pytest.mark.parametrize("name", [*VIEWS, "heatmap", "compare", "attention_gradient", "head_importance", "relevance"])
@pytest.mark.parametrize("what", ["plain", "generation"])
def test_every_view_and_all_other_analyses_say_what_to_capture(name: str, what: str) -> None:
    whole = captured(what)
    trace = without_weights(whole)
    given = {"heatmap": (trace.maps[0],), "compare": (whole, trace)}.get(name, (trace,))
    with pytest.raises(NotKeptError, match='weights of transformer.h.0.attn were not kept.*keep="maps"'):
        getattr(av, name)(*given)


@pytest.mark.parametrize("what", ["plain", "generation", "translation"])
def test_a_report_has_what_can_be_told(what: str) -> None:
    trace = without_weights(captured(what))
    page = av.report(trace).html
    assert page.count("Head statistics") >= len(trace.stacks) and page.count("Attention sinks") >= len(trace.stacks)
    assert "Head view" not in page and "Head roles" not in page
    assert "Left out: all that needs the weights themselves" in page
    assert "Left out: all that needs the weights themselves" not in av.report(captured(what)).html
    table = {"x": Reduced({"mass": torch.rand(7)}, {"mass": ("segment",)})}
    maps = tuple(dataclasses.replace(m, reduced=table, head_count=m.heads) for m in trace.maps)
    with pytest.raises(NotKeptError, match='keep="statistics"'):
        av.report(dataclasses.replace(trace, maps=maps))


def test_a_trace_tells_of_itself_without_its_weights() -> None:
    whole = translation()
    trace = without_weights(whole)
    assert repr(trace.cross) == "cross with 2 × 2×3×4 (no weights; statistics)"
    assert repr(whole.cross) == "cross with 2 × 2×3×4"
    for one, other in zip(trace.maps, whole.maps, strict=True):
        assert one.heads == other.heads and one.shape == other.shape == other.weights.shape
        assert one.causal == other.causal and one.whole == other.whole
        assert not one.has_weights and other.has_weights
        assert one.statistics.entropy.shape == other.weights.shape[:2]
    assert [m.causal for m in trace.maps] == [False] * 3 + [True] * 2 + [False] * 2


def test_the_weights_are_asked_for_in_vain_and_so_are_statistics_of_maps() -> None:
    whole = self_trace(["a", "b"])
    trace = without_weights(whole)
    stack = trace.encoder
    for ask in (lambda: trace.maps[0].weights, trace.maps[0].plain, stack.stacked, stack.whole):
        with pytest.raises(NotKeptError, match='l0 were not kept, only statistics: capture with keep="maps"'):
            ask()
    with pytest.raises(NotKeptError, match='weights of l1 .*keep="maps"'):
        stack.head(1, 0)
    with pytest.raises(NotKeptError, match='no statistics of l0 were kept.*keep="statistics", or use head_statistics'):
        whole.maps[0].statistics  # noqa: B018 - the look-up is the test
    other = Reduced({"mass": torch.rand(3, 2)}, {"mass": ("head", "query")})
    one = dataclasses.replace(trace.maps[0], reduced={"segments": other})
    with pytest.raises(NotKeptError, match='no statistics of l0 were kept: capture with keep="statistics"$'):
        one.statistics  # noqa: B018 - the look-up is the test


def test_packed_weights_are_weights() -> None:
    whole = self_trace([str(n) for n in range(140)], causal=True)
    maps = tuple(dataclasses.replace(m, kept_weights=PackedRows.of(m.weights)) for m in whole.maps)
    packed = dataclasses.replace(whole, maps=maps)
    assert all(m.causal and m.has_weights and m.shape == (3, 140, 140) for m in packed.maps)
    expected = whole.encoder.stacked().half().float()
    assert torch.equal(packed.encoder.stacked(), expected)
    assert torch.equal(packed.encoder.whole().head(1, 2), expected[1, 2])
    one = av.head_statistics(packed).values
    assert torch.allclose(one, av.head_statistics(whole).values, atol=1e-3, equal_nan=True)


def test_weights_decide_what_is_causal() -> None:
    back = torch.ones(1, 4, 4).tril()
    back /= back.sum(-1, keepdim=True)
    ahead = torch.full((1, 4, 4), 0.25)
    for weights, causal in ((back, True), (ahead, False)):
        for kept in (weights, PackedRows.of(weights)):
            for told in (None, True, False):
                one = AttentionMap(kept, LABELS, LABELS, "decoder", 0, positions=tuple(range(4)), looks_back=told)
                assert one.causal is causal
    reduced = {"statistics": statistics_of(back, (0, 1, 2, 3))}
    for told in (None, True, False):
        one = AttentionMap(None, LABELS, LABELS, "d", 0, positions=(0, 1, 2, 3), reduced=reduced, looks_back=told)
        assert one.causal is bool(told)


def test_a_map_with_neither_weights_nor_anything_made_of_them_is_refused() -> None:
    with pytest.raises(ShapeError, match="got neither"):
        AttentionMap(None, LABELS, LABELS, "encoder", 0)


@pytest.mark.parametrize(
    ("values", "axes", "count"),
    [
        ({"a": (2, 3)}, ("head", "query"), 0),
        ({"a": (2, 5)}, ("head", "key"), 0),
        ({"a": (1, 2, 4)}, ("batch", "head", "query"), 0),
        ({"a": (2, 4)}, ("head", "query"), 3),
        ({"a": (4, 2)}, ("query", "rank"), 0),
        ({"a": (4, 2)}, ("query", "rank"), -2),
    ],
)
def test_what_was_reduced_must_be_of_this_map(values, axes, count) -> None:
    one = Reduced({name: torch.zeros(shape) for name, shape in values.items()}, dict.fromkeys(values, axes))
    with pytest.raises(ShapeError, match=r"without a batch|expected weights \[head, query, key\]"):
        AttentionMap(None, LABELS, LABELS, "encoder", 0, reduced={"x": one}, head_count=count)


def test_heads_are_told_where_nothing_reduced_has_them() -> None:
    one = Reduced({"a": torch.zeros(4, 2)}, {"a": ("query", "rank")})
    assert AttentionMap(None, LABELS, LABELS, "encoder", 0, reduced={"x": one}, head_count=5).shape == (5, 4, 4)


@pytest.mark.parametrize("place", [-2, 4])
def test_places_that_are_held_must_be_there(place: int) -> None:
    top = torch.tensor([[-1, 3, 0, place]])
    one = Reduced({"top": top}, {"top": ("head", "query")}, {"top": "key"})
    with pytest.raises(ShapeError, match="x: expected top to hold places of 4 keys, or -1"):
        AttentionMap(None, LABELS, LABELS, "encoder", 0, reduced={"x": one})
    AttentionMap(
        None, LABELS, LABELS, "encoder", 0, reduced={"x": Reduced({"top": top.clamp(-1, 3)}, one.axes, one.holds)}
    )
