"""Analyses: the right numbers under the right labels, against plain loops over the trace."""

import itertools
import math

import pytest
import torch

import hf_attnviz as av
from tests.models import ids, padded, tiny


@pytest.fixture(scope="module")
def encoder_traces() -> list[av.Trace]:
    model = tiny("bert")
    with av.capture(model) as recording, torch.no_grad():
        model(**padded([7, 4, 9], "left"))
    return recording.traces


@pytest.fixture(scope="module")
def generation() -> av.Trace:
    model = tiny("llama")
    with av.capture(model) as recording:
        model.generate(ids(1, 5), max_new_tokens=6, do_sample=False)
    return recording.trace


def test_head_statistics_pool_rows_of_all_traces(encoder_traces: list[av.Trace]) -> None:
    result = av.head_statistics(encoder_traces)
    assert [axis.name for axis in result.axes] == ["statistic", "layer", "head"]
    for layer, head in itertools.product(range(2), range(4)):
        entropies, previous = [], []
        for trace in encoder_traces:
            rows = trace.encoder.head(layer, head).double().tolist()
            entropies += [-sum(a * math.log(a) for a in row if a > 0) for row in rows]
            previous += [rows[i][i - 1] for i in range(1, len(rows))]
        found = result.values[:, layer, head]
        names = result.axis("statistic").labels
        assert found[names.index("entropy")].item() == pytest.approx(sum(entropies) / len(entropies), abs=2e-5)
        assert found[names.index("previous_token")].item() == pytest.approx(sum(previous) / len(previous), abs=2e-5)


def test_head_correlation_compares_allowed_pairs(generation: av.Trace) -> None:
    result = av.head_correlation(generation)
    maps = [generation.decoder.head(layer, head).double() for layer in range(2) for head in range(4)]
    cells = [[m[i, j].item() for i in range(m.shape[0]) for j in range(i + 1)] for m in maps]
    expected = torch.corrcoef(torch.tensor(cells, dtype=torch.float64))
    torch.testing.assert_close(result.values.double(), expected, atol=2e-5, rtol=0)
    assert result.axis("head").labels[5] == "L1H1"
    assert sorted(result.axis("head").order or ()) == list(range(8))


def test_a_constant_head_has_no_correlation_and_no_place_in_the_order(encoder_traces: list[av.Trace]) -> None:
    one = encoder_traces[0].encoder.maps[0]
    flat = one.weights.clone()
    flat[2] = 1 / flat.shape[-1]
    trace = av.Trace((av.AttentionMap(flat, one.queries, one.keys, "encoder", 0, positions=one.positions),))
    result = av.head_correlation(trace)
    assert result.values[2].isnan().all()
    assert (result.axis("head").order or ())[-1] == 2


def test_jeffreys_may_be_infinite_and_is_then_not_ordered(generation: av.Trace) -> None:
    weights = torch.zeros(2, 3, 3)
    weights[0], weights[1] = torch.eye(3), torch.full((3, 3), 1 / 3)
    labels = av.Labels.plain("abc")
    trace = av.Trace((av.AttentionMap(weights, labels, labels, "encoder", 0, positions=(0, 1, 2)),))
    result = av.head_correlation(trace, method="jeffreys")
    assert result.values[0, 1] == math.inf
    assert result.axis("head").order is None


def test_rollout_is_the_product_of_half_attention_and_half_identity(encoder_traces: list[av.Trace]) -> None:
    trace = encoder_traces[0]
    result = av.rollout(trace)
    rolled = torch.eye(7, dtype=torch.float64)
    for layer in range(2):
        mean = trace.encoder.layer(layer).weights.double().mean(0)
        rolled = (0.5 * mean + 0.5 * torch.eye(7)) @ rolled
        torch.testing.assert_close(result.values[layer].double(), rolled, atol=2e-5, rtol=0)
    assert result.axis("key").labels == trace.encoder.keys.texts


def test_rollout_says_how_far_it_drifts_by_itself(generation: av.Trace) -> None:
    drift = av.rollout(generation).parameters["uniform_first_token"]
    length, mass = 10, torch.zeros(10)
    mass[0] = 1  # column 0 of the rollout of uniform causal attention, by the recursion of its definition
    for _ in range(2):
        mass = torch.stack([0.5 * mass[i] + 0.5 * mass[: i + 1].mean() for i in range(length)])
    assert drift == pytest.approx(mass[-1].item(), abs=1e-6)


def test_rollout_refuses_what_has_no_diagonal() -> None:
    model = tiny("bart")
    with av.capture(model) as recording:
        model.generate(ids(1, 5), max_new_tokens=4, do_sample=False)
    with pytest.raises(av.errors.NotKeptError, match="cross-attention"):
        av.rollout(recording.trace, stack="cross")
    with pytest.raises(av.errors.UnknownStackError, match="encoder, decoder, cross"):
        av.rollout(recording.trace)


def test_evolution_reads_the_row_that_put_out_each_token(generation: av.Trace) -> None:
    result = av.evolution(generation)
    maps = generation.decoder
    produced = [text for text in maps.maps[0].produced or () if text is not None]
    assert result.axis("step").labels == tuple(f"{n} → {text}" for n, text in enumerate(produced))
    statistics = result.axis("statistic").labels
    for step, layer, head in itertools.product(range(len(produced)), range(2), range(4)):
        row = maps.head(layer, head)[4 + step, : 5 + step].double()
        mass = row[:5].sum().item()
        assert result.values[statistics.index("prompt_mass"), step, layer, head].item() == pytest.approx(mass, abs=2e-5)
        if step:
            back = row[:5].mean() / (row[:5].mean() + row[5:].mean())
            found = result.values[statistics.index("lookback_ratio"), step, layer, head].item()
            assert found == pytest.approx(back.item(), abs=2e-5)


def test_evolution_of_chosen_rows_is_the_same(generation: av.Trace) -> None:
    model = tiny("llama")
    with av.capture(model, queries=[-1]) as recording:
        model.generate(ids(1, 5), max_new_tokens=6, do_sample=False)
    one, other = av.evolution(generation).values, av.evolution(recording.trace).values
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5, equal_nan=True)  # added up in another order


def test_evolution_needs_a_generation(encoder_traces: list[av.Trace]) -> None:
    with pytest.raises(av.errors.NotKeptError, match="generate"):
        av.evolution(encoder_traces[0])


def test_results_go_to_numpy_pandas_and_xarray(generation: av.Trace) -> None:
    result = av.rollout(generation)
    table, array = result.to_pandas(), result.to_xarray()
    assert len(table) == result.values.numel()
    row = table.iloc[37]
    assert row["value"] == result.to_numpy()[row["layer"], row["query"], row["key"]]
    assert row["key_label"] == result.axis("key").labels[row["key"]]
    assert array.dims == ("layer", "query", "key")
    with pytest.raises(av.errors.UnknownNameError, match="layer, query, key"):
        result.axis("head")
