"""Statistics row by row and key by key, of real runs: held against their maps, cell by cell."""

import dataclasses
import math

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.errors import NotKeptError
from tests.views.builders import self_trace, without_weights

KEEP = ["maps", "statistics"]


def rows_of(weights: torch.Tensor, positions: tuple[int, ...] | None) -> dict[str, list[list[float]]]:
    """The four of each row of ``[head, query, key]``, number by number."""
    found: dict[str, list[list[float]]] = {"entropy": [], "effective_span": [], "distance": [], "first_token": []}
    for head in weights.double().tolist():
        entropies = [-math.fsum(w * math.log(w) for w in row if w > 0) for row in head]
        places = [None] * len(head) if positions is None else positions
        found["entropy"].append(entropies)
        found["effective_span"].append([math.exp(one) for one in entropies])
        found["distance"].append(
            [
                math.nan if place is None else math.fsum(w * abs(place - key) for key, w in enumerate(row))
                for place, row in zip(places, head, strict=True)
            ]
        )
        found["first_token"].append([row[0] for row in head])
    return found


@pytest.mark.parametrize(("name", "generate"), [("induction", False), ("induction", True), ("translator", True)])
def test_they_are_those_of_the_maps(name: str, generate: bool) -> None:
    loaded = av.load_model(name)
    trace = av.trace_text(loaded, loaded.examples[0], generate=generate, keep=KEEP)
    for stack, found in trace.stacks.items():
        rows, received = av.row_statistics(trace, stack=stack), av.received(trace, stack=stack)
        assert [axis.name for axis in rows.axes] == ["statistic", "layer", "head", "query"]
        assert rows.axes[-1].labels == found.queries.texts and received.axes[-1].labels == found.keys.texts
        for n, m in enumerate(found):
            for statistic, values in rows_of(m.weights, m.positions).items():
                told = rows.select(statistic=statistic).values[n]
                torch.testing.assert_close(told, torch.tensor(values), atol=2e-5, rtol=2e-5, equal_nan=True)
            torch.testing.assert_close(received.values[n], m.weights.sum(1), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_the_baseline_is_what_even_rows_get(causal: bool) -> None:
    count = 7
    even = torch.ones(count, count).tril() if causal else torch.ones(count, count)
    even /= even.sum(-1, keepdim=True)
    trace = without_weights(self_trace(list("abcdefg"), causal=causal))
    rows, received = av.row_statistics(trace), av.received(trace)
    for statistic, values in rows_of(even[None], tuple(range(count))).items():
        told = rows.select(statistic=statistic).baseline
        torch.testing.assert_close(told, torch.tensor(values).expand_as(told), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(received.baseline, even.sum(0).expand_as(received.values), atol=2e-5, rtol=2e-5)
    told_early = any("early keys can be seen by more rows" in note.en for note in received.notes)
    assert told_early == causal


def test_their_mean_is_that_of_the_head_statistics() -> None:
    loaded = av.load_model("induction")
    trace = av.trace_text(loaded, loaded.examples[0], generate=False, keep=KEEP)
    means, rows = av.head_statistics(trace), av.row_statistics(trace)
    for statistic in rows.axes[0].labels:
        one, other = (result.select(statistic=statistic).values for result in (rows, means))
        torch.testing.assert_close(one.mean(-1), other, atol=1e-5, rtol=0)


def test_where_it_is_not_known_what_a_row_may_see_there_is_no_baseline() -> None:
    trace = without_weights(self_trace(list("abcd"), causal=True))
    for told in ([None, None], [True, False]):
        maps = tuple(dataclasses.replace(m, looks_back=one) for m, one in zip(trace.maps, told, strict=True))
        changed = dataclasses.replace(trace, maps=maps)
        for result in (av.row_statistics(changed), av.received(changed)):
            assert result.baseline is None
            assert any("Without baseline" in note.en for note in result.notes)


@pytest.mark.parametrize("analysis", [av.row_statistics, av.received])
def test_without_statistics_it_says_what_to_capture(analysis) -> None:
    with pytest.raises(NotKeptError, match='keep="statistics"'):
        analysis(self_trace(list("abcd")))
