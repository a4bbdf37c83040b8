"""Relevance and head importance of real traces: the right numbers under the right labels, or words about what lacks."""

from typing import Any

import pytest
import torch

import hf_attnviz as av
from tests.functional import reference_relevance as reference
from tests.models import ids, tiny


def captured(model: Any, scalar: Any, **inputs: Any) -> av.Trace:
    with av.capture(model, gradients=True) as recording:
        scalar(model(**inputs)).backward()
    model.zero_grad()
    return recording.trace


def last(out: Any) -> torch.Tensor:
    return out.logits[0, -1, 7]


@pytest.fixture(scope="module")
def encoder() -> av.Trace:
    return captured(tiny("bert"), lambda out: out.last_hidden_state[0, 0, 3], input_ids=ids(1, 6))


@pytest.fixture(scope="module")
def both() -> av.Trace:
    return captured(tiny("bart"), last, input_ids=ids(1, 6), decoder_input_ids=ids(1, 4, seed=1))


def arrays(trace: av.Trace, stack: str) -> tuple[Any, Any]:
    maps = trace.stacks[stack].maps
    return tuple(torch.stack([getattr(m, n) for m in maps]).double().numpy() for n in ("weights", "gradient"))


def test_relevance_of_self_attention(encoder: av.Trace) -> None:
    result = av.relevance(encoder, target="feature 3 at the first token")
    assert [a.name for a in result.axes] == ["query", "key"]
    assert result.axis("key").labels == encoder.encoder.keys.texts
    expected = torch.tensor(reference.relevance(*arrays(encoder, "encoder")), dtype=torch.float64)
    torch.testing.assert_close(result.values.double(), expected, atol=2e-5, rtol=2e-5)
    assert result.parameters["target"] == "feature 3 at the first token"
    assert "feature 3" in result.notes[0].en and "feature 3" in result.notes[0].zh
    assert (result.values[0] > 1e-4).any() and result.values[0, 0] >= 1


def test_relevance_of_the_source_for_the_target(both: av.Trace) -> None:
    result = av.relevance(both, stack="cross")
    slow = reference.encoder_decoder(*[arrays(both, name) for name in ("encoder", "decoder", "cross")])
    expected = {name: torch.tensor(values, dtype=torch.float64) for name, values in slow.items()}
    torch.testing.assert_close(result.values.double(), expected["cross"], atol=2e-5, rtol=2e-5)
    assert result.values.shape == (4, 6) and float(result.values.abs().max()) > 1e-3
    assert "target=" in result.notes[0].en
    own = av.relevance(both, stack="decoder")
    torch.testing.assert_close(own.values.double(), expected["decoder"], atol=2e-5, rtol=2e-5)


def test_attention_times_gradient_keeps_its_sign(both: av.Trace) -> None:
    result = av.attention_gradient(both, stack="cross")
    assert [a.name for a in result.axes] == ["layer", "head", "query", "key"]
    for layer, m in enumerate(both.cross):
        assert torch.equal(result.values[layer], m.weights * m.gradient)
    assert (result.values < 0).any() and (result.values > 0).any()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5"])
def test_head_importance_is_that_of_the_heads_outputs(name: str) -> None:
    """Against O·∇O, O read from what enters the output projection of each layer: Michel's own definition."""
    model, heads = tiny(name), 4
    projections = {"bert": "attention.output.dense", "gpt2": "attn.c_proj", "llama": "self_attn.o_proj"}
    ends = projections.get(name, "SelfAttention.o")
    found: list[torch.Tensor] = []
    inputs = [{"input_ids": ids(1, length, seed=length)} for length in (7, 4)]
    if name == "t5":
        inputs = [one | {"decoder_input_ids": ids(1, 3)} for one in inputs]
    traces, slow = [], torch.zeros(2, heads, dtype=torch.float64)

    def scalar(out: Any) -> torch.Tensor:
        return (out.logits if "logits" in out else out.last_hidden_state)[0, -1, :3].square().sum()

    for one in inputs:
        found.clear()
        hooks = [
            module.register_forward_pre_hook(lambda _, args: (args[0].retain_grad(), found.append(args[0]))[0])
            for path, module in model.named_modules()
            if path.endswith(ends) and "decoder" not in path.split(".")[:1]
        ]
        with av.capture(model, gradients=True) as recording:
            scalar(model(**one)).backward()
        traces.append(recording.trace)
        for hook in hooks:
            hook.remove()
        for layer, output in enumerate(found):
            products = (output.detach() * output.grad).double()
            slow[layer] += products.unflatten(-1, (heads, -1)).sum((0, 1, 3)).abs() / 2
        model.zero_grad()
    result = av.head_importance(traces, stack="encoder" if name == "t5" else None)
    assert [a.name for a in result.axes] == ["layer", "head"] and result.parameters["sequences"] == 2
    assert float(slow.max()) > 1e-2
    torch.testing.assert_close(result.values.double(), slow, atol=float(slow.max()) * 2e-5, rtol=2e-4)
    normed = av.head_importance(traces, stack="encoder" if name == "t5" else None, normalise=True)
    torch.testing.assert_close(normed.values.double().norm(dim=1), torch.ones(2).double(), atol=1e-6, rtol=0)


def test_a_trace_without_gradients_says_what_to_capture() -> None:
    model = tiny("bert")
    with av.capture(model) as recording, torch.no_grad():
        model(input_ids=ids(1, 5))
    for analysis in (av.relevance, av.attention_gradient, av.head_importance):
        with pytest.raises(av.errors.NotKeptError, match=r"gradients=True.*backward\(\) inside the block"):
            analysis(recording.trace)


def test_a_scalar_that_stops_half_way_names_the_layers_it_does_not_know() -> None:
    trace = captured(
        tiny("bert"),
        lambda out: out.hidden_states[1][0, 0, 3],
        input_ids=ids(1, 5),
        output_hidden_states=True,
    )
    with pytest.raises(av.errors.NotKeptError, match=r"no gradient of encoder\.layer\.1"):
        av.relevance(trace)


def test_chosen_rows_are_not_enough_for_relevance_nor_importance() -> None:
    model = tiny("gpt2")
    with av.capture(model, gradients=True, queries=[-1]) as recording:
        last(model(input_ids=ids(1, 5))).backward()
    for analysis in (av.relevance, av.head_importance):
        with pytest.raises(av.errors.NotKeptError, match="holds 1 of 5 rows"):
            analysis(recording.trace)


def test_the_report_shows_relevance_where_there_are_gradients(encoder: av.Trace, both: av.Trace) -> None:
    assert "Relevance (attention and its gradient)" in av.report(encoder).html
    page = av.report(both).html
    assert page.count("Head importance: ") >= 3
    model = tiny("bert")
    with av.capture(model) as recording, torch.no_grad():
        model(input_ids=ids(1, 5))
    assert "Relevance (attention" not in av.report(recording.trace).html
