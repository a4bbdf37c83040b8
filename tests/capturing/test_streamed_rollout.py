"""Grouped rollout streamed through the layers, against plain loops over the maps of the same run."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz import functional
from hf_attnviz.errors import ArgumentError, CaptureError, NotKeptError
from hf_attnviz.reducing.carried import Carriage, Carried
from hf_attnviz.reducing.keeping import over_weights
from hf_attnviz.reducing.ran import Places
from tests.capturing.streamed import GENERATIONS, GREEDY, LEFT, PASSES, PLAIN, captured, llama
from tests.functional import reference
from tests.layers import decoder
from tests.models import ENDS, SMALL, ids, tiny

pytestmark = pytest.mark.filterwarnings("ignore::hf_attnviz.errors.SlowerWarning")
OPTIONS: dict[str, Any] = {"head_fusion": "mean", "normalise": "after", "discard": 0.0, "start_layer": 0}


def summed(whole: torch.Tensor, bounds: dict[str, tuple[int, int]]) -> torch.Tensor:
    """Columns added up, group by group, of ``[layer, query, key]``."""
    return torch.stack([whole[..., start:stop].sum(-1) for start, stop in bounds.values()], -1)


def wanted(trace: av.Trace, stack: str, residual: float) -> torch.Tensor:
    """The rollout of whole maps, by loops in float64."""
    maps = trace.stack(stack).stacked().double().numpy()[:, None]
    valid = np.ones((1, maps.shape[-1]), dtype=bool)
    return torch.from_numpy(reference.rollout(maps, **OPTIONS, residual=residual, valid=valid))[:, 0]


def check(traces: list[av.Trace], whole: list[av.Trace], residual: float) -> None:
    assert len(traces) == len(whole)
    for trace, known in zip(traces, whole, strict=True):
        assert set(trace.stacks) == set(known.stacks) - {"cross"}
        for name in trace.stacks:
            result = av.rollout(trace, stack=name, residual=residual)
            groups = result.parameters["groups"]
            expected = summed(wanted(known, name, residual), groups)
            assert sum(stop - start for start, stop in groups.values()) == len(trace.stack(name).keys)
            torch.testing.assert_close(result.values.double(), expected, atol=2e-6, rtol=0)
            torch.testing.assert_close(result.values.sum(-1), torch.ones(result.values.shape[:2]), atol=2e-6, rtol=0)
            even = av.rollout(known, stack=name, residual=residual).baseline
            assert even is not None
            assert result.baseline is not None
            torch.testing.assert_close(result.baseline, summed(even, groups), atol=2e-6, rtol=0)


@pytest.mark.parametrize("way", PASSES)
@pytest.mark.parametrize("name", PLAIN)
def test_it_is_the_rollout_of_whole_maps(name: str, way: str) -> None:
    with PASSES[way]():
        streamed = captured(PLAIN[name], [av.Rollout(groups=3, residual=0.4), "statistics"])
    if name not in ("encoder and decoder", "position bias"):
        check(streamed.traces, captured(PLAIN[name], "maps").traces, 0.4)
        return
    alone = captured(PLAIN[name], av.Rollout(groups=3, residual=0.4)).traces
    check(alone, captured(PLAIN[name], "maps").traces, 0.4)
    assert "rollout" not in streamed.traces[0].cross.maps[0].reduced
    with pytest.raises(NotKeptError):
        av.rollout(streamed.traces[0], stack="cross")


@pytest.mark.parametrize("name", GENERATIONS)
def test_it_follows_a_generation(name: str) -> None:
    check(captured(GENERATIONS[name], "rollout").traces, captured(GENERATIONS[name], "maps").traces, 0.5)


@pytest.mark.parametrize("name", ["beams", "beams of an encoder-decoder"])
def test_the_beams_of_these_tests_change_places(name: str) -> None:
    one, *later = [one.prefix for one in captured(GENERATIONS[name], "rollout").runs[0].forwards]
    moved = []
    for after in later:
        assert one is not None
        assert after is not None
        moved.append(not torch.equal(after[:, :-1], one))
        one = after
    assert any(moved)


def test_drafts_that_were_rejected_leave_nothing() -> None:
    prompt = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    options = GREEDY | {"max_new_tokens": 12, "min_new_tokens": 12, "prompt_lookup_num_tokens": 3}
    run = (llama, lambda m: m.generate(prompt, **options))
    recording = captured(run, av.Rollout(groups=4))
    assert sum(call.shape[2] for call in recording.calls if call.layer == 0) > 8 + 11  # some were
    check(recording.traces, captured(run, "maps").traces, 0.5)


def test_a_prompt_read_in_chunks_has_the_groups_of_the_first() -> None:
    run = (llama, lambda m: m.generate(ids(1, 9), prefill_chunk_size=4, **GREEDY))
    streamed = captured(run, av.Rollout(groups=2))
    check(streamed.traces, captured(run, "maps").traces, 0.5)
    assert list(av.rollout(streamed.trace).parameters["groups"].values()) == [(0, 2), (2, 4), (4, 13)]


def test_stretches_by_name() -> None:
    stretches = {"system": (0, 2), "user": (3, 5)}
    run = (llama, lambda m: m.generate(**LEFT, **GREEDY))
    for trace, whole in zip(captured(run, av.Rollout(stretches)).traces, captured(run, "maps").traces, strict=True):
        result, known = av.rollout(trace), wanted(whole, "decoder", 0.5)
        assert result.axis("group").labels == ("system", "user", "others")
        assert result.parameters["groups"]["system"] == (0, 2)
        for name, (start, stop) in stretches.items():
            found = result.select(group=name).values.double()
            torch.testing.assert_close(found, known[..., start:stop].sum(-1), atol=2e-6, rtol=0)


def test_equal_spans_are_named_by_their_places_and_tokens() -> None:
    model = av.load_model("induction")
    trace = av.trace_text(model, "the cat sat on the mat", keep=av.Rollout(groups=3))
    result = av.rollout(trace)
    texts = trace.stack().keys.texts
    for label, (start, stop) in result.parameters["groups"].items():
        assert label == (
            "generated" if label == "generated" else f"{start}–{stop - 1}: {texts[start]} … {texts[stop - 1]}"
        )
    assert "group" in av.heatmap(result).html
    short = av.rollout(av.trace_text(model, "the cat", keep="rollout"))
    assert all(stop == start + 1 for name, (start, stop) in short.parameters["groups"].items() if name != "generated")


def test_a_file_brings_it_back(tmp_path: Any) -> None:
    trace = captured(PLAIN["gpt2"], "rollout").traces[0]
    again = av.load(trace.save(tmp_path / "trace.safetensors"))
    assert torch.equal(av.rollout(again).values, av.rollout(trace).values)
    assert av.rollout(again).axis("group") == av.rollout(trace).axis("group")


def test_other_options_are_refused() -> None:
    trace = captured(PLAIN["gpt2"], av.Rollout(groups=3, residual=0.3)).traces[0]
    for options in ({}, {"residual": 0.3, "head_fusion": "max"}, {"residual": 0.3, "normalise": "before"}):
        with pytest.raises(NotKeptError, match="residual=0.3, the mean of heads"):
            av.rollout(trace, **options)


def test_rows_that_were_kept_alone_have_no_baseline() -> None:
    run = (llama, lambda m: m.generate(ids(1, 7), **GREEDY))
    result = av.rollout(captured(run, [av.Rollout(groups=3), av.Rows([8, 9])]).trace)
    known = av.rollout(captured(run, av.Rollout(groups=3)).trace)
    assert torch.equal(result.values, known.values[:, 8:10])
    assert result.baseline is None
    assert result.axis("group").labels == ("0", "1", "2", "generated")
    assert any("Some rows were not kept" in note.en for note in result.notes)


@pytest.mark.parametrize(
    "groups", [0, True, 1.5, {}, {"a": (0, 2), "b": (1, 3)}, {"a": (2, 2)}, {"a": 3}, {"others": (0, 1)}, {1: (0, 1)}]
)
def test_groups_that_mean_nothing(groups: Any) -> None:
    with pytest.raises(ArgumentError, match="Rollout"):
        av.Rollout(groups)


@pytest.mark.parametrize("residual", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_nothing_to_all(residual: float) -> None:
    with pytest.raises(ArgumentError, match="a share from 0 to 1"):
        av.Rollout(residual=residual)


def test_chosen_layers_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"rollout goes up through every layer: leave out layers=\[0\]"):
        av.capture(tiny("gpt2"), keep="rollout", layers=[0])


def prefilled(model: Any) -> None:
    cache = transformers.DynamicCache(config=model.config)
    for layer in range(3):
        cache.update(torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8), layer)
    model(ids(1, 5), past_key_values=cache)


def jamba() -> Any:
    options = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 9, "expert_layer_period": 10}
    return transformers.JambaForCausalLM(
        transformers.JambaConfig(**SMALL | ENDS | options | {"num_key_value_heads": 2, "use_mamba_kernels": False})
    ).eval()


def swin() -> Any:
    options = {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4}
    return transformers.SwinModel(transformers.SwinConfig(**options)).eval()


REFUSED = {
    "a cache filled before": (llama, prefilled, r"rows begin at the places \[4\]"),
    "two maps a layer": (
        lambda: decoder("DiffLlamaConfig", "DiffLlamaForCausalLM", "sdpa"),
        lambda m: m(ids(1, 5)),
        "computes several maps",
    ),
    "layers that mix by other means": (jamba, lambda m: m(ids(1, 5)), "came after no other layer"),
    "windows": (swin, lambda m: m(pixel_values=torch.rand(1, 3, 16, 16)), "in windows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_in_words(name: str) -> None:
    make, run, words = REFUSED[name]
    with pytest.raises(CaptureError, match=words), av.capture(make(), keep="rollout") as recording, torch.no_grad():
        run(recording.model)


# ---- the reducer alone, on weights of any kind


def places(start: int, rows: int, keys: int) -> Places:
    stand = torch.arange(start, start + rows)[None]
    return Places(stand, torch.full((1, rows), keys), torch.arange(keys)[None], torch.ones(1, rows, dtype=torch.bool))


def fed(reducer: av.Rollout, stack: torch.Tensor, steps: list[slice]) -> list[torch.Tensor]:
    """The sources of each layer ``[query, group]``, ``stack`` ``[layer, head, query, key]`` fed in several passes."""
    before: list[Carried | None] = [None] * len(stack)
    parts: list[list[torch.Tensor]] = [[] for _ in stack]
    for rows in steps:
        below = None
        for layer, weights in enumerate(stack):
            old = before[layer]
            carriage = Carriage({"rollout": Carried(below, None if old is None else old.before)})
            where = places(rows.start, rows.stop - rows.start, rows.stop)
            kept = over_weights([reducer], weights[None, :, rows, : rows.stop], where, {}, carriage)
            below = carriage.goes["rollout"]
            before[layer] = Carried(before=below)
            parts[layer].append(kept["rollout"].sources[0])
    return [torch.cat(one) for one in parts]


def stack_of(rows: int, *, causal: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 2, rows, rows, generator=generator) * 2
    scores = scores.masked_fill(torch.ones(rows, rows).triu(1).bool(), -torch.inf) if causal else scores
    return scores.softmax(-1)


def test_three_hundred_steps_one_by_one() -> None:
    """What is carried grows beyond its room several times, and what was handed out is never written to."""
    stack = stack_of(300, causal=True)
    steps = [slice(0, 5), *(slice(n, n + 1) for n in range(5, 300))]
    whole = functional.rollout(stack[:, None].double())[:, 0]
    stretches = {"a": (0, 3), "b": (3, 100)}
    expected = torch.stack([whole[..., :3].sum(-1), whole[..., 3:100].sum(-1), whole[..., 100:].sum(-1)], -1)
    for layer, found in enumerate(fed(av.Rollout(stretches), stack, steps)):
        torch.testing.assert_close(found.double(), expected[layer], atol=2e-6, rtol=0)
    at_once = fed(av.Rollout(stretches), stack, [slice(0, 300)])
    torch.testing.assert_close(torch.stack(at_once).double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("residual", [0.0, 0.5, 1.0])
def test_rows_of_nothing_and_undefined_rows(residual: float) -> None:
    """A kernel that makes NaN of a row that may look at nothing tells no more than one that makes zeros of it."""
    stack = stack_of(8, causal=False)
    stack[0, :, 3] = 0  # looks at nothing
    stack[1, :, 5] = torch.nan
    stack[2, :, :4, 5] = 0
    whole = functional.rollout(stack[:, None].double().nan_to_num(0), residual=residual)[:, 0]
    reducer = av.Rollout({"a": (0, 4)}, residual=residual)
    expected = torch.stack([whole[..., :4].sum(-1), whole[..., 4:].sum(-1)], -1)
    found = torch.stack(fed(reducer, stack, [slice(0, 8)])).double()
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0, equal_nan=True)


def test_places_read_again_take_the_new_rows_and_leave_what_was_handed_out() -> None:
    first, second = stack_of(8, causal=True), torch.full((1, 2, 8, 7), 1 / 7)
    reducer = av.Rollout(groups=2)
    kept = over_weights([reducer], first[:1], places(0, 8, 8), {}, carriage := Carriage({"rollout": Carried()}))
    handed_out = kept["rollout"].sources.clone()
    before = carriage.goes["rollout"]
    carriage = Carriage({"rollout": Carried(before=before)})
    again = over_weights([reducer], second[:, :, 6:7], places(6, 1, 7), {}, carriage)
    assert torch.equal(kept["rollout"].sources, handed_out)
    assert not torch.equal(again["rollout"].sources[:, 0], handed_out[:, 6])
    assert torch.equal(carriage.goes["rollout"]["mixed"][:, 6], again["rollout"].sources[:, 0])
    assert torch.equal(carriage.goes["rollout"]["mixed"][:, :6], handed_out[:, :6])
