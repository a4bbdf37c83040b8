"""What the numbers come with: the reason of every NaN, what was left out, how much weight is parked where."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import hf_attnviz as av
from tests.models import ids, tiny


def softmax(*shape: int, seen: torch.Tensor | None = None) -> torch.Tensor:
    scores = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return (scores if seen is None else scores.masked_fill(~seen, -math.inf)).softmax(-1)


def trace_of(weights: torch.Tensor, *, kind: str = "self", positions: tuple[int, ...] = (), **kept: Any) -> av.Trace:
    """Of ``[layer, head, query, key]``; what is kept beside the weights has the same layers."""
    keys = av.Labels.plain([f"k{n}" for n in range(weights.shape[-1])])
    places = None if kind == "cross" else positions or tuple(range(weights.shape[-2]))
    rows = av.Labels.plain([f"q{n}" for n in range(weights.shape[-2])]) if places is None else keys.at(places)
    maps = [
        av.AttentionMap(
            one, rows, keys, "decoder" if places is None else "encoder", layer, kind=kind, positions=places,
            **{name: values[layer] for name, values in kept.items()},
        )
        for layer, one in enumerate(weights)
    ]  # fmt: skip
    return av.Trace(tuple(maps))


def spoilt() -> torch.Tensor:
    weights = softmax(2, 3, 5, 5)
    weights[0, 1, 2] = math.nan
    return weights


WINDOW = torch.ones(8, 8).tril().triu(-2).bool()
ODD: dict[str, Callable[[], av.Trace]] = {
    "one token": lambda: trace_of(softmax(2, 3, 1, 1)),
    "one token, layer and head": lambda: trace_of(softmax(1, 1, 1, 1)),
    "cross": lambda: trace_of(softmax(2, 3, 4, 6), kind="cross"),
    "one row of cross": lambda: trace_of(softmax(1, 1, 1, 3), kind="cross"),
    "two rows of cross": lambda: trace_of(softmax(1, 1, 2, 3), kind="cross"),
    "a NaN row of cross": lambda: trace_of(spoilt(), kind="cross"),
    "a NaN row": lambda: trace_of(spoilt()),
    "NaN everywhere": lambda: trace_of(softmax(2, 2, 4, 4) * math.nan),
    "constant": lambda: trace_of(torch.full((1, 2, 4, 4), 0.25)),
    "a row of zeros": lambda: trace_of(softmax(2, 2, 4, 4) * torch.tensor([1.0, 0, 1, 1])[:, None]),
    "window": lambda: trace_of(softmax(2, 3, 8, 8, seen=WINDOW)),
    "some rows": lambda: trace_of(softmax(2, 3, 2, 6), positions=(2, 5)),
    "without gradient": lambda: trace_of(softmax(2, 3, 4, 4), gradient=torch.zeros(2, 3, 4, 4)),
    "NaN gradient": lambda: trace_of(softmax(2, 3, 4, 4), gradient=torch.full((2, 3, 4, 4), math.nan)),
}
ANALYSES: dict[str, Callable[[av.Trace], av.Result]] = {
    **{name: one.function for name, one in av.analyses().items()},
    "attention_gradient": av.attention_gradient,
    "relevance": av.relevance,
    "head_importance": lambda trace: av.head_importance(trace, normalise=True),
    "sinks of what is not there": lambda trace: av.sinks(trace, position=9),
    "all discarded": lambda trace: av.rollout(trace, discard=1.0, residual=0.0),
    "alignment of both texts": lambda trace: av.alignment(trace, special=True, head="mean"),
    "scores against links": lambda trace: av.alignment_scores(trace, sure=[(0, 0)]),
    "compare": lambda trace: av.compare(trace, trace),
    "compare maps": lambda trace: av.compare(trace, trace, by="word"),
    "compare a word": lambda trace: av.compare(trace, trace, word="k1"),
    **{
        f"likeness by {method}": lambda trace, method=method: av.head_correlation(trace, method=method)
        for method in ("spearman", "cosine", "js", "js_clark", "hellinger", "jeffreys")
    },
}


@pytest.mark.parametrize("odd", ODD)
def test_every_nan_comes_with_its_reason(odd: str) -> None:
    """… or the analysis refuses in words of its own; and no note says "nan %"."""
    trace, answered = ODD[odd](), 0
    for name, analyse in ANALYSES.items():
        try:
            result = analyse(trace)
        except av.errors.AttnvizError:
            continue
        answered += 1
        en, zh = (" ".join(getattr(note, language) for note in result.notes) for language in ("en", "zh"))
        if bool(result.values.isnan().any()):
            assert re.search(r"NaN|[Uu]ndefined|not known", en), name
            assert re.search(r"NaN|未定义|未知", zh), name
        assert not re.search(r"\bnan\b", en + zh), name
        assert result.values.dtype in (torch.float32, torch.float64), name
    assert answered > 10


def sentences(result: av.Result) -> str:
    return " ".join(note.en for note in result.notes)


def test_what_special_tokens_and_the_first_one_take_stands_beside_entropy_distance_and_likeness() -> None:
    labels = av.Labels.of("Cabcs", range(5), range(5), ["special", "text", "text", "text", "special"])
    trace = trace_of(softmax(2, 3, 5, 5))
    trace = replace(trace, maps=tuple(replace(m, queries=labels, keys=labels) for m in trace.maps))
    weights = trace.encoder.stacked().double()
    first, special = float(weights[..., 0].mean()), float((weights[..., 0] + weights[..., 4]).mean())
    said = f"{first:.0%} of all weight lies on the first token and {special:.0%} on special tokens"
    for result in (av.head_statistics(trace), av.head_correlation(trace), av.head_map(trace)):
        assert said in sentences(result)
    said = said.replace("all weight", "all weight in the second text")
    assert said in sentences(av.compare(trace, trace))
    longer = trace_of(softmax(2, 3, 7, 7))
    rows = [*weights[..., 0].sum(-1).flatten().tolist(), *longer.encoder.stacked()[..., 0].sum(-1).flatten().tolist()]
    assert f"{sum(rows) / 6 / 12:.0%} of all weight lies on the first" in sentences(av.head_statistics([trace, longer]))


def test_what_is_left_out_is_said() -> None:
    window, rows = trace_of(softmax(2, 3, 8, 8, seen=WINDOW)), trace_of(softmax(2, 3, 2, 6), positions=(2, 5))
    plain = trace_of(softmax(2, 3, 8, 8, seen=torch.ones(8, 8).tril().bool()))
    for analyse in (av.head_statistics, av.head_roles, av.head_correlation, av.head_map, av.sinks):
        assert "beyond a window" in sentences(analyse(window))
        assert "2 of 6 rows were kept" in sentences(analyse(rows))
        assert "window" not in sentences(analyse(plain)) and "were kept" not in sentences(analyse(plain))
        assert "window" not in sentences(analyse([plain, trace_of(plain.encoder.stacked()[..., :5, :5])]))
    assert "Pairs behind the causal mask are left out" in sentences(av.head_correlation(plain))
    assert "causal mask" not in sentences(av.head_correlation(trace_of(softmax(2, 3, 4, 4))))


def test_heads_without_a_correlation_are_named() -> None:
    weights = softmax(2, 3, 4, 4)
    weights[1, 2] = 0.25
    assert "Undefined (NaN): L1H2." in sentences(av.head_correlation(trace_of(weights)))
    assert "Undefined" not in sentences(av.head_correlation(trace_of(weights), method="cosine"))
    weights[0, 0, 1] = math.nan
    said = sentences(av.head_correlation(trace_of(weights)))
    assert "Undefined (NaN): L1H2." in said and "Some weights are NaN" in said


def test_heads_that_are_all_alike_stand_on_one_spot_exactly() -> None:
    same = av.head_map(trace_of(torch.full((2, 2, 4, 4), 0.25)))
    assert same.parameters["stress"] == 0 and not same.values.any() and "by 0%" in sentences(same)


def test_what_cross_attention_cannot_have_is_named() -> None:
    said = sentences(av.head_statistics(trace_of(softmax(2, 3, 4, 6), kind="cross")))
    assert "distance, previous_token, next_token, self_token, previous_token_argmax." in said
    causal = sentences(av.head_statistics(trace_of(softmax(1, 2, 4, 4, seen=torch.ones(4, 4).tril().bool()))))
    assert "Undefined here" not in causal and "next_token is impossible" in causal


def test_a_path_through_a_row_that_is_nan_has_a_gap() -> None:
    model = tiny("llama")
    with av.capture(model) as recording:
        model.generate(ids(1, 4), max_new_tokens=3, do_sample=False)
    trace, maps = recording.trace, []
    for m in trace.maps:
        weights = m.weights.clone()
        weights[1, 4] = math.nan
        maps.append(replace(m, kept_weights=weights))
    plain, path = av.argmax_paths(trace), av.argmax_paths(replace(trace, maps=tuple(maps)))
    assert plain.values.dtype == torch.int64 and path.values[:, 1, 1].isnan().all()
    assert torch.equal(path.values[:, 0], plain.values[:, 0].double()) and "are NaN" in sentences(path)
    assert av.evolution_view(path).html and "are NaN" in sentences(av.evolution(replace(trace, maps=tuple(maps))))


def test_a_picture_tells_how_much_its_patches_give_to_what_is_no_patch() -> None:
    kinds = ["special", *["patch"] * 4]
    labels = av.Labels.of("Cabcd", range(5), [None] * 5, kinds)
    labels = replace(labels, cells=(None, (0, 0), (0, 1), (1, 0), (1, 1)))
    trace = trace_of(softmax(1, 2, 5, 5))
    trace = replace(trace, maps=tuple(replace(m, queries=labels, keys=labels) for m in trace.maps))
    share = float(trace.encoder.stacked()[..., 1:, 0].mean())
    assert f"{share:.0%} of the patches' weight lies on these other tokens" in sentences(av.image_distance(trace))


@pytest.mark.parametrize("name", sorted({*av.analyses(), "attention_gradient", "head_importance", "relevance"}))
def test_what_is_no_trace_is_refused_in_words(name: str) -> None:
    analyse, trace = getattr(av, name), trace_of(softmax(1, 1, 3, 3))
    for wrong in (None, trace.encoder, [None]):
        with pytest.raises(av.errors.ArgumentError, match=r"expected .*trace.*, got"):
            analyse(wrong)
    with pytest.raises(av.errors.ArgumentError, match="expected .*trace.*, got"):
        analyse([])
