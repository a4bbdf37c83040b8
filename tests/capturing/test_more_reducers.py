"""Products, scores and masses of heads, kept without the matrix, against loops over maps captured apart."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import SlowerWarning
from hf_attnviz.reducing import passes, sweep
from tests.capturing import loops
from tests.models import ENDS, SMALL, ids, padded, tiny

BOUNDS = {"a": (0, 3), "b": (3, 5)}
KEPT = [av.Gram(), av.Scores(), av.Segments(BOUNDS)]
SAYS = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 9, 6]])
PASSES = {"torch": passes.pure} | ({"numba": nullcontext} if find_spec("numba") else {})


def windowed() -> Any:
    config = transformers.MistralConfig(**SMALL, **ENDS, num_key_value_heads=2, sliding_window=5)
    torch.manual_seed(0)
    model = transformers.MistralForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


def in_two(model: Any) -> None:
    before = model(SAYS, use_cache=True)
    model(ids(1, 3, 5), past_key_values=before.past_key_values, use_cache=True)


def generated(**more: Any) -> Callable[[Any], Any]:
    given = {"max_new_tokens": 4, "do_sample": False} | more
    return lambda model: model.generate(
        **({} if {"input_ids", "inputs_embeds"} & given.keys() else {"input_ids": SAYS}) | given
    )


LEFT = padded([4, 9], "left")
RUNS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "plain": (lambda: tiny("llama"), lambda m: m(SAYS)),
    "left padding": (lambda: tiny("gpt2"), lambda m: m(**LEFT)),
    "right padding": (lambda: tiny("bert"), lambda m: m(**padded([4, 9], "right"))),
    "an eager model": (lambda: tiny("gpt2", "eager"), lambda m: m(**LEFT)),
    "a window": (windowed, lambda m: m(ids(1, 14))),
    "two sides": (lambda: tiny("bart"), lambda m: m(**padded([4, 9], "right"), decoder_input_ids=ids(2, 6, 3))),
    "a bias": (lambda: tiny("t5"), lambda m: m(**padded([4, 9], "right"), decoder_input_ids=ids(2, 6, 3))),
    "generated": (lambda: tiny("llama"), generated()),
    "generated, left padding": (lambda: tiny("llama"), generated(**LEFT)),
    "beams": (lambda: tiny("llama"), generated(**LEFT, num_beams=3, num_return_sequences=2)),
    "a static cache": (lambda: tiny("llama"), generated(cache_implementation="static")),
    "no cache": (lambda: tiny("llama"), generated(use_cache=False)),
    "a prompt in chunks": (lambda: tiny("llama"), generated(prefill_chunk_size=4)),
    "a window over a cache": (windowed, generated()),
    "a cache by hand": (lambda: tiny("llama"), in_two),
    "two sides, beams": (lambda: tiny("bart"), generated(**padded([4, 9], "right"), num_beams=2)),
}


def captured(model: Any, run: Callable[[Any], Any], **options: Any) -> list[av.Trace]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowerWarning)
        with av.capture(model, **options) as recording:
            run(model)
    return recording.traces


def pairs(name: str) -> list[tuple[AttentionMap, AttentionMap]]:
    make, run = RUNS[name]
    model = make()
    kept, whole = captured(model, run, keep=KEPT), captured(model, run)
    assert len(kept) == len(whole) > 0
    return [pair for one, other in zip(kept, whole, strict=True) for pair in zip(one.maps, other.maps, strict=True)]


def off(found: Any, wanted: np.ndarray) -> float:
    found = np.asarray(found, dtype=np.float64)
    assert found.shape == wanted.shape
    assert (np.isnan(found) == np.isnan(wanted)).all()
    return float(np.nan_to_num(np.abs(found - wanted)).max()) if wanted.size else 0.0


@pytest.mark.parametrize("name", RUNS)
def test_of_every_kind_of_run(name: str) -> None:
    for kept, whole in pairs(name):
        assert not kept.has_weights and kept.causal == whole.causal
        weights = whole.weights.double().numpy()
        heads, queries, keys = weights.shape
        gram = kept.reduced["gram"]
        assert off(gram.products, loops.products(weights)) < 2e-5
        stands = list(whole.positions or [keys - 1] * queries)
        if whole.causal:
            centred = loops.products(weights, [[(k <= place) / (place + 1) for k in range(keys)] for place in stands])
            assert off(gram.products_centred_causal, centred) < 2e-5
            assert float(gram.pairs_causal) == sum(place + 1 for place in stands)
        else:
            assert off(gram.products_centred, loops.products(weights, [[1 / keys] * keys] * queries)) < 2e-5
            assert float(gram.pairs) == queries * keys
        assert float(gram.rows) == queries
        assert off(gram.mass, weights.sum((1, 2))) < 1e-4
        assert off(gram.sink, weights[:, :, 0].sum(1)) < 1e-4
        mass = kept.reduced["segments"].mass
        assert off(mass, loops.masses(weights, list(BOUNDS.values()))) < 1e-5
        assert torch.allclose(mass.sum(-1), torch.ones(heads, queries), atol=1e-5)
        if whole.positions is not None:
            wanted = loops.scores(weights, whole.positions, whole.keys.ids, whole.causal)
        else:
            wanted = dict.fromkeys(loops.scores(weights[:, :0], [], [], False), np.full((heads, queries), np.nan))
        for score, values in wanted.items():
            assert off(kept.reduced["scores"][score], values) < 1e-5, score


@pytest.mark.parametrize("way", PASSES)
@pytest.mark.parametrize("name", ["plain", "left padding", "right padding", "two sides"])
def test_both_passes_and_every_height_of_tiles_give_the_same(name: str, way: str, monkeypatch: Any) -> None:
    make, run = RUNS[name]
    model = make()
    keep = [*KEPT, av.Sketch(16), av.TopK(3)]
    wanted = captured(model, run, keep=keep)
    monkeypatch.setattr(sweep, "_MOST", 1)  # sixteen rows at a time
    monkeypatch.setattr(sweep, "ROWS", 16)
    with PASSES[way]():
        found = captured(model, run, keep=keep)
    for one, other in zip(found, wanted, strict=True):
        for a, b in zip(one.maps, other.maps, strict=True):
            for reducer, kept in b.reduced.items():
                for value, tensor in kept.values.items():
                    torch.testing.assert_close(a.reduced[reducer][value], tensor, atol=2e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("length", [1, 2, 17, 150, 300])
def test_long_rows_in_tiles_of_either_pass(length: int) -> None:
    model = tiny("gpt2", n_positions=512)
    says = ids(1, length, 4)
    whole = captured(model, lambda m: m(says))[0].maps[1].weights.double()
    for way in PASSES.values():
        with way():
            kept = captured(model, lambda m: m(says), keep=[*KEPT, av.TopK(5)])[0].maps[1]
        assert off(kept.reduced["gram"].products, np.einsum("aqk,bqk->ab", whole, whole)) < 1e-4
        top = kept.reduced["topk"]
        best = whole.topk(min(5, length)).values.float()
        assert torch.allclose(top.weights[..., : best.shape[-1]], best, atol=1e-6)
        held = whole.gather(2, top.keys.clamp(min=0).long()).float().masked_fill(top.keys < 0, 0)
        assert torch.allclose(held, top.weights, atol=1e-6)
        seen = torch.arange(1, length + 1).clamp(max=5)
        assert torch.equal((top.keys >= 0).sum(-1), seen.expand(whole.shape[:2]))  # what lies ahead is no key


def test_heads_in_another_order_give_the_same_in_that_order() -> None:
    model, order = tiny("gpt2"), [2, 0, 3, 1]
    before = captured(model, lambda m: m(SAYS), keep=KEPT)[0].maps[0]
    block, size = model.transformer.h[0].attn, 8
    columns = torch.cat([torch.arange(h * size, (h + 1) * size) for h in order])
    with torch.no_grad():
        wide = torch.cat([columns + n * 32 for n in range(3)])
        block.c_attn.weight.copy_(block.c_attn.weight[:, wide])
        block.c_attn.bias.copy_(block.c_attn.bias[wide])
        block.c_proj.weight.copy_(block.c_proj.weight[columns])
    after = captured(model, lambda m: m(SAYS), keep=KEPT)[0].maps[0]
    for name, kept in before.reduced.items():
        for value, tensor in kept.values.items():
            for place, axis in enumerate(kept.axes[value]):
                tensor = tensor.index_select(place, torch.tensor(order)) if axis.endswith("head") else tensor
            torch.testing.assert_close(after.reduced[name][value], tensor, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_padding_changes_nothing() -> None:
    for family in ("gpt2", "bert"):
        model = tiny(family)
        alone = captured(model, lambda m: m(input_ids=LEFT["input_ids"][:1, 5:]), keep=KEPT)[0]
        if family == "gpt2":  # its positions count padding, unless they are told
            told = LEFT | {"position_ids": (LEFT["attention_mask"].cumsum(1) - 1).clamp(min=0)}
        else:
            told = padded([4, 9], "right")
        beside = captured(model, lambda m, told=told: m(**told), keep=KEPT)[0]
        for one, other in zip(alone.maps, beside.maps, strict=True):
            for name, kept in one.reduced.items():
                for value, tensor in kept.values.items():
                    torch.testing.assert_close(other.reduced[name][value], tensor, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_heads_that_are_nearly_even_are_told_apart() -> None:
    """What sets them apart is a millionth of what they share: products of whole weights would lose it."""
    model = tiny("gpt2", n_positions=256)
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight[:, :64] *= 0.03
            block.attn.c_attn.bias[:64] *= 0.03
    says = ids(1, 200)
    weights = captured(model, lambda m: m(says))[0].maps[0].weights
    wanted = loops.pearson(weights.double().numpy()[:, :60], range(60), causal=True, centred=True)
    kept = captured(model, lambda m: m(says[:, :60]), keep="gram")[0]
    gram = kept.maps[0].reduced["gram"]
    assert float((gram.products_centred_causal / gram.products).diagonal().max()) < 1e-3
    found = av.head_correlation(kept, centred=True).values[:4, :4]
    assert off(found, wanted) < 1e-4


# ---- segments


def names_of(trace: av.Trace) -> tuple[str, ...]:
    return av.segment_mass(trace).axis("segment").labels


def test_segments_are_named_and_counted() -> None:
    trace = captured(tiny("gpt2"), lambda m: m(SAYS), keep=av.Segments([(0, 2), (2, 6)]))[0]
    kept = trace.maps[0].reduced["segments"]
    assert names_of(trace) == ("0:2", "2:6", "other") and kept.axes["mass"] == ("head", "query", "segment")
    assert kept["keys"].tolist() == [[2, 4, 3]] * 9
    assert kept.keys_causal.tolist() == [[min(n, 2), min(max(n - 2, 0), 4), max(n - 6, 0)] for n in range(1, 10)]


def test_the_first_of_two_segments_has_a_key_that_both_hold() -> None:
    kept = captured(tiny("gpt2"), lambda m: m(SAYS), keep=av.Segments({"a": (0, 4), "b": (2, 6)}))[0].maps[0]
    assert kept.reduced["segments"]["keys"][0].tolist() == [4, 2, 3]


def test_segments_by_token_ids() -> None:
    model = tiny("llama")
    by_ids = av.Segments({"sevens": lambda tokens: tokens == 7, "fives": lambda tokens: tokens == 5})
    kept = captured(model, generated(), keep=by_ids)[0].maps[1]
    whole = captured(model, generated())[0].maps[1]
    read = torch.tensor(whole.keys.ids)
    wanted = torch.stack([whole.weights[..., read == token].sum(-1) for token in (7, 5)], -1)
    assert torch.allclose(kept.reduced["segments"].mass[..., :2], wanted, atol=1e-5)
    embedded = model.get_input_embeddings()(SAYS)
    unknown = captured(model, lambda m: m(inputs_embeds=embedded), keep=by_ids)[0].maps[0].reduced["segments"]
    assert bool(unknown.mass.isnan().all())


def test_kinds_are_told_by_the_configuration() -> None:
    model = tiny("llama")
    model.config.image_token_id = 7
    assert av.capture(model, keep="segments").reducers[0].names == ("image", "text")
    trace = captured(model, lambda m: m(SAYS), keep="segments")[0]
    kept = trace.maps[0].reduced["segments"]
    assert names_of(trace) == ("image", "text") and kept["keys"][0].tolist() == [2, 7]
    with pytest.raises(av.errors.ArgumentError, match="stands for a picture or a sound.*av.Segments"):
        av.capture(tiny("llama"), keep="segments")


@pytest.mark.parametrize(
    "bounds",
    ["kind", {}, [], {"a": (3, 3)}, {"a": (-1, 3)}, {"a": (0, 2.5)}, {"other": (0, 2)}, [(0, 1, 2)], {"": (0, 1)}],
)
def test_segments_that_mean_nothing_are_refused(bounds: Any) -> None:
    with pytest.raises(av.errors.ArgumentError, match="Segments"):
        av.Segments(bounds)


# ---- what is not known


def test_scores_without_token_ids_are_undefined() -> None:
    model = tiny("llama")
    embedded = model.get_input_embeddings()(SAYS)
    kept = captured(model, lambda m: m(inputs_embeds=embedded), keep="scores")[0].maps[0].reduced["scores"]
    assert bool(kept.induction.isnan().all() & kept.duplicate_token.isnan().all())
    assert not bool(kept.previous_token[:, 1:].isnan().any())


def test_kept_sums_survive_a_file(tmp_path: Any) -> None:
    trace = captured(tiny("gpt2"), lambda m: m(SAYS), keep=[*KEPT, av.Sketch(8)])[0]
    again = av.load(trace.save(tmp_path / "x.attnviz"))
    assert names_of(trace) == names_of(again) == ("a", "b", "other")
    for one, other in zip(trace.maps, again.maps, strict=True):
        for name, kept in one.reduced.items():
            for value, tensor in kept.values.items():
                assert torch.equal(other.reduced[name][value].nan_to_num(7), tensor.nan_to_num(7))
