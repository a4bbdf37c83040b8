"""keep="statistics" on real models: the numbers of the maps, the output of the plain run, the way that was taken."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.capturing import proof
from tests.capturing.statistics_ways import alike, assert_those_of_maps, by_tiles, held_against_maps, recorded
from tests.capturing.ways import decoder
from tests.models import ENDS, SMALL, ids, padded, tiny
from tests.reducing import reference
from tests.sweep.build import built

FEW = (2, 16)  # rows that are proved: with 16, a call of no more rows is summed by those
Made = tuple[Any, dict[str, Any]]


@pytest.fixture(params=FEW)
def proved_rows(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(proof, "_SAMPLED", request.param)
    return int(request.param)


def of_sweep(key: str) -> Callable[[], Made]:
    return lambda: built(key)


def sided(name: str) -> Callable[[], Made]:
    """An encoder-decoder, its source padded."""
    source = padded([30, 11], "right")
    return lambda: (tiny(name), source | {"decoder_input_ids": ids(2, 20, 1)})


MODELS: dict[str, tuple[Callable[[], Made], str]] = {
    "gpt2": (lambda: (tiny("gpt2"), {"input_ids": ids(2, 40)}), "tiles"),
    "gpt2, one token": (lambda: (tiny("gpt2"), {"input_ids": ids(1, 1)}), "tiles"),
    "gpt2, left padding": (lambda: (tiny("gpt2"), padded([40, 7], "left")), "tiles"),
    "gpt2, right padding": (lambda: (tiny("gpt2"), padded([40, 7, 1], "right")), "tiles"),
    "gpt2, eager": (lambda: (tiny("gpt2", "eager"), padded([40, 7], "left")), "slow"),
    "bert": (lambda: (tiny("bert"), padded([40, 17, 2], "right")), "tiles"),
    "bert, eager": (lambda: (tiny("bert", "eager"), padded([40, 17, 2], "right")), "slow"),
    "llama, shared keys": (lambda: (tiny("llama"), padded([40, 21], "left")), "tiles"),
    "mistral, a short window": (lambda: (decoder("mistral"), {"input_ids": ids(2, 30)}), "tiles"),
    "mistral, a short window and padding": (lambda: (decoder("mistral"), padded([30, 12], "left")), "tiles"),
    "gemma3, two kinds of layers": (lambda: (decoder("gemma3"), padded([30, 12], "left")), "tiles"),
    "llama4, chunks of keys": (lambda: (decoder("llama4"), {"input_ids": ids(2, 30)}), "tiles"),
    "t5, a bias of positions": (sided("t5"), "tiles"),
    "bart, across": (sided("bart"), "tiles"),
    "gemma2, a soft cap": (of_sweep("gemma2"), "slow"),
    "gpt_oss, learned sinks": (of_sweep("gpt_oss"), "slow"),
    "deberta-v2, its own softmax": (of_sweep("deberta-v2"), "slow"),
    "bloom": (of_sweep("bloom"), "slow"),
    "mpt": (of_sweep("mpt"), "slow"),
    "falcon": (of_sweep("falcon"), "slow"),
    "whisper": (of_sweep("whisper"), "tiles"),
    "vit": (of_sweep("vit"), "tiles"),
    "clip": (of_sweep("clip"), "tiles"),
    "llava": (of_sweep("llava"), "tiles"),
    "qwen2_vl": (of_sweep("qwen2_vl"), "tiles"),
    "jamba, beside a state space": (of_sweep("jamba"), "tiles"),
}


@pytest.mark.parametrize("name", MODELS)
def test_statistics_are_those_of_the_maps(name: str, proved_rows: int) -> None:
    make, way = MODELS[name]
    model, inputs = make()
    with torch.no_grad():
        held_against_maps(model, lambda: model(**inputs), way)


@pytest.mark.filterwarnings("ignore")
def test_flex_goes_the_slow_way_and_says_so() -> None:
    model, tokens = tiny("llama", "flex_attention", hidden_size=64), ids(1, 20)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        _, maps = recorded(model, lambda: model(tokens), "maps")
        with pytest.warns(av.errors.SlowerWarning, match="slow way.*flex_attention"):
            output, found = recorded(model, lambda: model(tokens))
        assert alike(output, model(tokens)) and by_tiles(found) == {"slow"}
    assert_those_of_maps(maps, found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_half_precision_is_summed_in_float32(name: str, dtype: torch.dtype) -> None:
    """Maps of such models are rounded; the truth is float64 arithmetic on queries and keys."""
    config_class = {"qwen2": transformers.Qwen2Config, "llama": transformers.LlamaConfig}[name]
    options = SMALL | {"hidden_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 512} | ENDS
    config = config_class(**options)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    tokens = ids(1, 300)
    with torch.no_grad():
        plain = model(tokens)
        _, vectors = recorded(model, lambda: model(tokens), "vectors")
        output, found = recorded(model, lambda: model(tokens))
    assert alike(output, plain) and by_tiles(found) == {"tiles"}
    for one, other in zip(vectors.calls, found.calls, strict=True):
        scores = reference.scores_of(one.query, one.key, 1.0, causal=True)  # 16 ** -0.5 is a power of two: no rounding
        truth = reference.statistics(reference.softmax(scores), [range(300)], [range(300)])
        for value, wanted in truth.items():
            assert reference.off(other.statistics[value], wanted) <= 1e-4


def test_under_autocast_our_own_sums_are_in_float32() -> None:
    model, tokens = tiny("llama", hidden_size=64), ids(1, 60)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = model(tokens)
        _, vectors = recorded(model, lambda: model(tokens), "vectors")
        output, found = recorded(model, lambda: model(tokens))
    assert alike(output, plain) and by_tiles(found) == {"tiles"}
    for one, other in zip(vectors.calls, found.calls, strict=True):
        scores = reference.scores_of(one.query.bfloat16(), one.key.bfloat16(), 1.0, causal=True)
        truth = reference.statistics(reference.softmax(scores), [range(60)], [range(60)])
        for value, wanted in truth.items():
            assert reference.off(other.statistics[value], wanted) <= 1e-4


def test_under_autocast_the_slow_way_sums_in_float32() -> None:
    model, tokens = tiny("gpt2", "eager"), ids(1, 60)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        held_against_maps(model, lambda: model(tokens), "slow")


def test_gradients_enabled_change_nothing() -> None:
    for name in ("gpt2", "t5"):
        model, inputs = tiny(name), {"input_ids": ids(1, 20)}
        more = {} if name == "gpt2" else {"decoder_input_ids": ids(1, 9, 1)}
        found = held_against_maps(model, lambda m=model, i=inputs | more: m(**i).logits, "both" if more else "tiles")
        assert not found.calls[0].statistics.entropy.requires_grad
        model(**inputs, **more).logits.sum().backward()


def test_dropout_is_left_out_as_from_maps() -> None:
    """Weights are those before dropout; the kernel that drops shows no log-sum-exp."""
    model = tiny("bert", attention_probs_dropout_prob=0.3).train()
    with torch.no_grad():
        held_against_maps(model, lambda: model(ids(2, 20)), "slow")


def test_inference_mode() -> None:
    model = tiny("llama")
    with torch.inference_mode():
        held_against_maps(model, lambda: model(**padded([40, 9], "left")), "tiles")


def test_heads_that_are_silenced_have_the_weights_that_they_had() -> None:
    model = tiny("gpt2")
    with torch.no_grad(), av.ablate(model, heads=[(0, 1)]):
        found = held_against_maps(model, lambda: model(ids(1, 20)), "both")
    assert found.calls[0].way != found.calls[1].way


def test_weights_that_are_knocked_out_are_not_the_kernels() -> None:
    model = tiny("gpt2")
    plain, before = recorded(model, lambda: model(ids(1, 20)))
    with torch.no_grad(), av.knock_out(model, queries=[19], keys=[0, 1, 2]):
        _, maps = recorded(model, lambda: model(ids(1, 20)), "maps")
        output, found = recorded(model, lambda: model(ids(1, 20)))
    assert not alike(output, plain)
    assert_those_of_maps(maps, found)
    assert (
        float(found.calls[0].statistics.sink[..., 19].abs().max()) == 0 < float(before.calls[0].statistics.sink.min())
    )


class OneHead(torch.nn.Module):
    """Attention over its input, by torch's kernel."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(rows, rows, rows)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_is_refused_in_words() -> None:
    model, rows = OneHead(), torch.randn(3, 2, 4, 20, 8)
    with torch.no_grad():
        plain = torch.vmap(model)(rows)
        with pytest.raises(av.errors.CaptureError, match="vmap"), av.capture(model, keep="statistics"):
            assert torch.equal(torch.vmap(model)(rows), plain)


def test_a_model_of_a_user_goes_by_tiles() -> None:
    model, rows = OneHead(), torch.randn(2, 4, 40, 8)
    with torch.no_grad():
        held_against_maps(model, lambda: model(rows), "tiles")


def test_functional_call_is_a_call_like_any_other() -> None:
    model = tiny("gpt2")
    parameters = {name: one * 1.1 for name, one in model.named_parameters()}
    with torch.no_grad():
        held_against_maps(model, lambda: torch.func.functional_call(model, parameters, (ids(1, 20),)), "tiles")


def test_threads_do_not_mix() -> None:
    models = [tiny("gpt2", seed=n) for n in range(2)]
    texts, found = [ids(1, 30 + n, n) for n in range(2)], {}
    alone = [recorded(m, lambda m=m, t=t: m(t).logits.detach()) for m, t in zip(models, texts, strict=True)]

    def work(n: int) -> None:
        for _ in range(5):
            found[n] = recorded(models[n], lambda: models[n](texts[n]).logits.detach())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    [one.start() for one in threads]
    [one.join() for one in threads]
    for n, (output, recording) in enumerate(alone):
        assert torch.equal(found[n][0], output) and by_tiles(found[n][1]) == {"tiles"}
        for one, other in zip(recording.calls, found[n][1].calls, strict=True):
            assert alike(dict(one.statistics.values), dict(other.statistics.values))


def test_an_error_inside_leaves_nothing_behind() -> None:
    model = tiny("gpt2")
    before = set(dir(model)), len(model._forward_hooks), len(model.transformer.h[0].attn._forward_hooks)
    with pytest.raises(IndexError), av.capture(model, keep="statistics"):
        model(torch.tensor([[10_000]]))
    assert (set(dir(model)), len(model._forward_hooks), len(model.transformer.h[0].attn._forward_hooks)) == before
    held_against_maps(model, lambda: model(ids(1, 20)).logits.detach(), "tiles")


def test_a_recording_that_stays_open_forgets_the_oldest() -> None:
    model = tiny("gpt2")
    recording = av.attach(model, last=1, keep="statistics")
    try:
        for length in (20, 25, 30):
            with torch.no_grad():
                model(ids(1, length))
            assert len(recording.runs) == 1
            assert recording.trace.maps[0].statistics.entropy.shape == (4, length)
    finally:
        recording.detach()


def test_a_layer_of_its_own_layout_is_refused_in_words() -> None:
    model, inputs = built("hiera")
    with torch.no_grad():
        _, found = recorded(model, lambda: model(**inputs))
    with pytest.raises(av.errors.NotKeptError, match='layout of its own.*keep="maps"'):
        found.traces  # noqa: B018 - the look-up is the test
    with pytest.raises(av.errors.NotKeptError, match="layout of its own"):
        found.calls[0].statistics  # noqa: B018 - the look-up is the test


def test_windows_of_a_picture_have_statistics_piece_by_piece() -> None:
    model, inputs = built("swin")
    with torch.no_grad():
        _, maps = recorded(model, lambda: model(**inputs), "maps")
        _, found = recorded(model, lambda: model(**inputs))
    one, other = maps.trace.maps[0], found.trace.maps[0]
    assert one.layout == other.layout == ("piece", "head", "query", "key") and one.shape == other.shape
    assert other.statistics.axes["entropy"] == ("piece", "head", "query")
    places = np.broadcast_to(np.arange(one.shape[-1]), (one.shape[0], one.shape[-1]))
    for name, wanted in reference.statistics(one.weights, places, places).items():
        assert reference.off(other.statistics[name], wanted) <= 1e-4


def test_few_rows_that_look_ahead_are_told_where_rows_are_sampled() -> None:
    """A mask by which one row alone looks ahead: no map of it is causal."""
    model = tiny("llama")
    seen = torch.ones(1, 1, 60, 60, dtype=torch.bool).tril()
    seen[..., 30, 31] = True
    with torch.no_grad():
        found = held_against_maps(model, lambda: model(ids(1, 60), attention_mask=seen), "tiles")
    assert not any(one.causal for one in found.trace.maps)
