"""Norms and ALTI of real layers: what capture finds out by running blocks again, against weights read by name."""

from typing import Any

import numpy as np
import pytest
import torch

import hf_attnviz as av
from hf_attnviz.analysis.norms import layer_norms
from tests import layers
from tests.functional import reference_norms
from tests.layers import FAMILIES, FORMS, built, inputs
from tests.models import ids, padded, tiny

KEEP = ["maps", "contributions"]
every = pytest.mark.parametrize("family", FAMILIES)


def captured(model: Any, given: dict[str, Any], keep: Any = KEEP, **options: Any) -> av.Trace:
    with torch.no_grad(), av.capture(model, keep=keep, **options) as recording:
        model(**given)
    return recording.trace


def expected(m: av.AttentionMap, parts: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The reference: the loops, on the layer's own weights and the attention that the trace shows."""
    plain = {name: listed(value) for name, value in parts.items() if name != "truth"}
    hidden, residual = plain.pop("hidden")[0], plain.pop("residual")[0]
    given = [plain.pop(name) for name in ("w_v", "b_v", "w_o")]
    return reference_norms.layer(m.weights.double().tolist(), hidden, *given, residual=residual, **plain)


def listed(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(listed, value))
    return value.detach().double().tolist() if isinstance(value, torch.Tensor) else value


def far(one: torch.Tensor, other: Any) -> float:
    """The largest difference, over the size of the largest number; NaN only where the other has it."""
    truth = torch.tensor(other, dtype=torch.float64)
    assert one.shape == truth.shape
    assert torch.equal(one.isnan(), truth.isnan())
    return float((one.double() - truth).abs().nan_to_num().max() / max(1.0, float(truth.abs().nan_to_num().max())))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-8), (torch.float32, 2e-5)], ids=str)
@every
def test_the_norms_are_those_of_the_weights_read_by_name(family: str, dtype: torch.dtype, bound: float) -> None:
    model = built(family).to(dtype)
    given = {name: one.to(dtype) if one.is_floating_point() else one for name, one in inputs(family).items()}
    # Whatever the model's type is, these norms work in float32, and llama's eager softmax does.
    numbers = max(bound, 1e-6) if family in ("gemma2", "olmo2") else bound
    whole = max(bound, 1e-5) if family in ("llama", "gemma2", "olmo2") else bound
    trace, flow = captured(model, given), layers.seen(model, given)
    by_module = {m.module: m for m in trace.maps}
    rows = [row for layer in range(2) for row in FAMILIES[family](model, flow, layer).items()]
    assert {name for name, _ in rows} <= set(by_module)
    for name, parts in rows:
        m = by_module[name]
        wanted, shares = expected(m, parts)
        found = layer_norms(m)
        assert m.taken_apart().form == FORMS[family]
        assert set(found) == set(wanted)
        assert {key: one for key in found if (one := far(found[key], wanted[key])) > numbers} == {}
        assert far(found["output"], parts["truth"][0].tolist()) < whole
        stack = av.alti(trace, stack=m.group, rolled=False)
        assert far(stack.values[trace.stacks[m.group].layers.index(m.layer)], shares) < numbers


@every
def test_the_output_keeps_every_bit_and_nothing_is_left_behind(family: str) -> None:
    model, given = built(family), inputs(family)
    with torch.no_grad():
        plain = model(**given)[0]
        hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
        with av.capture(model, keep=KEEP):
            seen = model(**given)[0]
    assert torch.equal(plain, seen)
    assert hooks == [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    assert not any("forward" in vars(part) for part in model.modules())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_padding_and_company_change_nothing(family: str, side: str) -> None:
    model, lengths = built(family), [7, 4, 9]
    batch = padded(lengths, side)
    if side == "left" and family != "bert":
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    if family == "bert" and side == "left":
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), av.capture(model, keep=KEEP) as recording:
        model(**batch)
    for row, (length, trace) in enumerate(zip(lengths, recording.traces, strict=True)):
        alone = captured(model, {"input_ids": ids(1, length, row)})
        for one, other in zip(trace.maps, alone.maps, strict=True):
            together, single = layer_norms(one), layer_norms(other)
            for name, values in together.items():
                torch.testing.assert_close(values, single[name], atol=1e-4, rtol=1e-4, equal_nan=True)


def test_a_second_call_reads_nothing_again_unless_the_weights_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_attnviz.capturing import blocks

    runs: list[Any] = []
    run = blocks.Block.run

    def counted(self: Any, edits: Any, until: Any = None) -> Any:
        runs.append(until)
        return run(self, edits, until)

    monkeypatch.setattr(blocks.Block, "run", counted)
    model = built("bert")
    with torch.no_grad(), av.capture(model, keep=KEEP) as recording:
        model(ids(1, 5))
        first = len(runs)
        model(ids(1, 8, seed=4))
        assert len(runs) == first + 2  # one a layer, to see what went by
        model.encoder.layer[0].attention.output.dense.weight.mul_(1.5)
        model(ids(1, 5))
    assert len(runs) > 2 * first - 20
    one, other = (layer_norms(recording.traces[n].encoder.layer(0)) for n in (0, 2))
    torch.testing.assert_close(other["value"], one["value"] * 1.5, atol=1e-5, rtol=1e-5)


def test_results_are_labelled_and_say_what_they_leave_out() -> None:
    model = built("bert")
    trace = captured(model, inputs("bert"))
    norms = av.norms(trace)
    assert [axis.name for axis in norms.axes] == ["statistic", "layer", "query", "key"]
    assert norms.axis("statistic").labels == ("mean_weight", "summed", "with_residual", "normalised")
    torch.testing.assert_close(norms.values.sum(-1), torch.ones(4, 2, 6))
    assert norms.parameters["blocks"] == "post-norm" and norms.parameters["largest_deviation"] < 1e-5
    weights = trace.encoder.stacked().double().mean(1).float()
    torch.testing.assert_close(norms.select(statistic="mean_weight").values, weights)
    for name in ("summed", "with_residual", "normalised"):
        found = torch.stack([layer_norms(m)[name] for m in trace.maps])
        torch.testing.assert_close(norms.select(statistic=name).values, found / found.sum(-1, keepdim=True))
    lengths = av.norms(trace, shares=False)
    torch.testing.assert_close(lengths.select(statistic="summed").values[0], layer_norms(trace.maps[0])["summed"])
    heads = av.norms(trace, heads=True)
    assert [axis.name for axis in heads.axes] == ["statistic", "layer", "head", "query", "key"]
    torch.testing.assert_close(heads.select(statistic="weight").values, trace.encoder.stacked())
    mixing = av.mixing_ratio(trace)
    assert mixing.axis("statistic").labels == ("mixing", "mixing_with_residual", "mixing_normalised")
    assert all(0 <= float(one) <= 1 for one in mixing.values.flatten())
    assert all(str(note) for note in (*norms.notes, *mixing.notes))


def test_alti_is_rolled_out_without_adding_the_identity() -> None:
    trace = captured(built("gpt2"), inputs("gpt2"))
    each, rolled = av.alti(trace, rolled=False).values.double(), av.alti(trace)
    product = np.eye(6)
    for layer in range(2):
        product = each[layer].numpy() @ product
        assert far(rolled.values[layer], product.tolist()) < 2e-5
    assert bool((rolled.values.triu(1) == 0).all())
    even = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    assert rolled.parameters["uniform_first_token"] == pytest.approx((even @ even)[-1, 0], abs=1e-6)
    assert rolled.baseline is not None and far(rolled.baseline[1], (even @ even).tolist()) < 1e-6


def test_cross_attention_leaves_the_residual_its_share_and_is_not_rolled_out() -> None:
    trace = captured(built("bart"), inputs("bart"))
    found = av.alti(trace, stack="cross", rolled=False)
    sums = found.values.sum(-1)
    assert bool((sums <= 1 + 1e-6).all()) and float(sums.min()) < 0.95
    assert any("residual" in note.en for note in found.notes)
    with pytest.raises(av.errors.NotKeptError, match="rolled=False"):
        av.alti(trace, stack="cross")
    assert av.mixing_ratio(trace, stack="cross").select(statistic="mixing").values.isnan().all()
    assert not av.mixing_ratio(trace, stack="cross").select(statistic="mixing_with_residual").values.isnan().any()


def test_the_report_shows_them_when_the_trace_holds_them() -> None:
    model, given = built("bert"), inputs("bert")
    assert "ALTI: contributions" in av.report(captured(model, given)).html
    bare = av.report(captured(model, given, keep="maps")).html
    assert "ALTI: contributions" not in bare
    assert "Left out: norms and ALTI" in bare
    assert "gradients=True" in bare


def test_a_file_gives_back_what_is_needed(tmp_path: Any) -> None:
    for family in ("bert", "gemma2", "gptj"):
        trace = captured(built(family), inputs(family))
        again = av.load(trace.save(tmp_path / family))
        for one, other in ((av.norms(trace), av.norms(again)), (av.alti(trace), av.alti(again))):
            assert torch.equal(one.values.nan_to_num(-1), other.values.nan_to_num(-1))
            assert dict(one.parameters) == dict(other.parameters)


# ---- refusals


def test_a_trace_without_contributions_says_what_to_capture() -> None:
    trace = captured(tiny("bert"), inputs("bert"), keep="maps")
    for analysis in (av.norms, av.mixing_ratio, av.alti):
        with pytest.raises(av.errors.NotKeptError, match=r'keep=\["maps", "contributions"\]'):
            analysis(trace)
    with pytest.raises(av.errors.ArgumentError, match="whole maps"):
        av.capture(tiny("bert"), keep="contributions")


def test_a_generation_is_refused_in_words() -> None:
    model = tiny("llama")
    with av.capture(model, keep=KEEP) as recording:
        model.generate(ids(1, 5), max_new_tokens=3, do_sample=False)
    with pytest.raises(av.errors.NotKeptError, match=r"model\.layers\.0.*step of a generation; run the model once"):
        av.norms(recording.trace)


def test_dropout_is_refused_in_words() -> None:
    model = tiny("bert").train()
    with torch.no_grad(), av.capture(model, keep=KEEP) as recording:
        model(ids(1, 5))
    with pytest.raises(av.errors.NotKeptError, match=r"BertLayer.*model\.eval\(\)"):
        av.norms(recording.trace)


def test_one_position_is_refused_in_words() -> None:
    with pytest.raises(av.errors.NotKeptError, match="fewer than two"):
        av.norms(captured(tiny("bert"), {"input_ids": ids(1, 1)}))


def test_a_gate_behind_the_mixing_is_refused_for_its_parts_do_not_add_up() -> None:
    """The projection then differs from row to row, which no matrix can say."""
    model = built("llama")
    for layer in model.model.layers:
        gate = torch.nn.Linear(32, 32)
        own = layer.self_attn.o_proj

        class Gated(torch.nn.Module):
            def __init__(self, projection: Any, gate: Any, norm: Any) -> None:
                super().__init__()
                self.projection, self.gate, self.read = projection, gate, None
                norm.register_forward_hook(lambda _, __, output: setattr(self, "read", output))

            def forward(self, mixed: torch.Tensor) -> torch.Tensor:
                return self.projection(mixed) * self.gate(self.read).sigmoid()

        layer.self_attn.o_proj = Gated(own, gate, layer.input_layernorm)
    trace = captured(model.eval(), inputs("llama"))
    with pytest.raises(av.errors.NotKeptError, match=r"model\.layers\.0\.self_attn.*do not add up.*off by.*gate"):
        av.norms(trace)


def test_an_intervention_is_refused_in_words() -> None:
    model = built("bert")
    with torch.no_grad(), av.ablate(model, heads=[(0, 1)]), av.capture(model, keep=KEEP) as recording:
        model(ids(1, 5))
    with pytest.raises(av.errors.NotKeptError, match="does not repeat itself"):
        av.norms(recording.trace)
