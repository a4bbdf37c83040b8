"""The proof: what is handed out is what the kernel computed, not what its eager twin would have given."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import hf_attnviz as av
from hf_attnviz.capturing import interface, proof
from hf_attnviz.errors import NotUnderstoodError
from hf_attnviz.reducing.ran import Places, Ran
from tests.models import ids, padded, tiny

NAME = "hf_attnviz_test_kernel"
Register = Callable[[Callable[..., Any]], None]


@pytest.fixture
def register() -> Iterator[Register]:
    def add(kernel: Callable[..., Any]) -> None:
        AttentionInterface.register(NAME, kernel)
        AttentionMaskInterface.register(NAME, sdpa_mask)

    yield add
    for table in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
        table._global_mapping.pop(NAME, None)


def reference(name: str, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        found: tuple[torch.Tensor, ...] = tiny(name, "eager")(**inputs, output_attentions=True).attentions
    return found


def scaled(module: Any, *args: Any, **kwargs: Any) -> Any:
    return sdpa_attention_forward(module, *args, **kwargs)[0] * 0.5, None


def causal(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
    return sdpa_attention_forward(module, query, key, value, None, **kwargs | {"is_causal": True})


def shifted(module: Any, *args: Any, **kwargs: Any) -> Any:
    return sdpa_attention_forward(module, *args, **kwargs)[0] + 1, None


@pytest.mark.parametrize("exact", [False, True], ids=["consistent", "exact"])
def test_a_kernel_that_scales_its_output(register: Register, exact: bool) -> None:
    register(scaled)
    model, inputs = tiny("bert", NAME), padded([6, 4], "right")
    with torch.no_grad():
        plain = model(**inputs).last_hidden_state
        recording = av.Recording(model, exact=exact).open()
        try:
            assert torch.equal(model(**inputs).last_hidden_state, plain)
        finally:
            recording.detach()
    first = recording.calls[0]
    assert first.way == "kernel on identity"
    assert first.grade == ("exact" if exact else "consistent")
    torch.testing.assert_close(first.weights[0], reference("bert", inputs)[0][0] * 0.5, atol=2e-5, rtol=0)


def test_a_kernel_that_is_causal_where_its_twin_is_not(register: Register) -> None:
    register(causal)
    model, inputs = tiny("bert", NAME), {"input_ids": ids(2, 11)}
    with torch.no_grad():
        plain = model(**inputs).last_hidden_state
        with av.capture(model) as recording:
            assert torch.equal(model(**inputs).last_hidden_state, plain)
    twin = reference("bert", inputs)[0]
    found = recording.calls[0].weights
    assert recording.calls[0].way == "kernel on identity"
    assert not found.triu(1).any()
    expected = twin.tril() / twin.tril().sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert recording.traces[0].encoder.maps[0].causal


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_kernel_that_is_no_attention_is_refused_by_name(register: Register, name: str) -> None:
    register(shifted)
    model = tiny(name, NAME)
    with torch.no_grad():
        plain = model(ids(1, 5))[0]
        recording = av.capture(model)
        seen: list[torch.Tensor] = []
        with pytest.raises(av.errors.ProofError) as caught, recording:
            seen.append(model(ids(1, 5))[0])
    assert torch.equal(seen[0], plain)  # the model's own output is delivered all the same
    module = {
        "bert": "encoder.layer.0.attention.self",
        "gpt2": "transformer.h.0.attn",
        "llama": "model.layers.0.self_attn",
    }
    assert module[name] in str(caught.value)
    assert "off by" in str(caught.value) and "layers=" in str(caught.value)
    with pytest.raises(av.errors.ProofError):
        recording.traces  # noqa: B018
    diagnosis = av.doctor(model, {"input_ids": ids(1, 5)})
    assert not diagnosis.ok and diagnosis.identical and diagnosis.unchanged
    assert {finding.grade for finding in diagnosis.findings} == {"refused"}


def test_one_bad_layer_spoils_not_the_layers_chosen(register: Register) -> None:
    def sometimes(module: Any, *args: Any, **kwargs: Any) -> Any:
        return (shifted if module.layer_idx == 1 else scaled)(module, *args, **kwargs)

    register(sometimes)
    model = tiny("llama", NAME)
    with pytest.raises(av.errors.ProofError, match=r"layers\.1\.self_attn"), av.capture(model):
        model(ids(1, 5))
    with av.capture(model, layers=[0]) as recording:
        model(ids(1, 5))
    assert recording.trace.decoder.layers == (0,)


def test_a_deviation_in_the_null_space_of_v(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """More keys than head_dim: a twin altered so that weights · V stays; only the exact grade sees it."""
    model = tiny("bert")
    inputs = {"input_ids": ids(1, 20)}
    honest = interface._Call._eager_weights

    def altered(self: Any, eager: Any) -> torch.Tensor:
        weights = honest(self, eager)
        null = torch.linalg.svd(self.value.mT.double()).Vh[..., -1:, :].float()  # V^T · null = 0
        return weights + 0.01 * null / null.abs().amax()

    monkeypatch.setattr(interface._Call, "_eager_weights", altered)
    true = reference("bert", inputs)[0]
    with torch.no_grad(), av.capture(model) as recording:
        model(**inputs)
    passed = recording.calls[0]
    assert passed.grade == "consistent" and passed.way == "the model's own eager function"
    assert (passed.weights - true).abs().max() > 0.005  # the cheap grade is blind to it, as its docstring says
    diagnosis = av.doctor(model, inputs)
    assert diagnosis.ok
    assert {finding.way for finding in diagnosis.findings} == {"kernel on identity"}


def test_fully_masked_rows_are_counted() -> None:
    model, inputs = tiny("llama"), padded([7, 4], "left")
    with torch.no_grad(), av.capture(model) as recording:
        model(**inputs)
    assert recording.calls[0].masked_rows == 3  # the three rows of padding before the second sequence
    torch.testing.assert_close(recording.traces[1].decoder.maps[0].weights.sum(-1), torch.ones(4, 4))
    unpadded = padded([7, 7], "left")
    with torch.no_grad(), av.capture(model) as recording:
        model(**unpadded)
    assert recording.calls[0].masked_rows == 0
    diagnosis = av.doctor(model, inputs)
    assert diagnosis.ok and diagnosis.findings[0].masked_rows == 3


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "bart", "distilbert", "roberta"])
def test_the_doctor_finds_every_family_exact(name: str, backend: str) -> None:
    inputs = padded([7, 4], "right")
    if name in ("t5", "bart"):
        inputs["decoder_input_ids"] = ids(2, 5, 3)
    diagnosis = av.doctor(tiny(name, backend), inputs)
    assert diagnosis.ok, diagnosis
    assert len(diagnosis.findings) == {"t5": 6, "bart": 7}.get(name, 2)
    assert all(f.error is not None and f.bound is not None and f.error <= f.bound for f in diagnosis.findings)
    assert {f.backend for f in diagnosis.findings} == {backend}
    assert diagnosis.to_dict()["ok"] is True


def test_the_doctor_sees_a_model_that_changes() -> None:
    class Restless(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny("bert")
            self.count = 0

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            self.count += 1
            out: torch.Tensor = self.inner(input_ids).last_hidden_state + self.count
            return out

    diagnosis = av.doctor(Restless(), {"input_ids": ids(1, 4)})
    assert not diagnosis.identical and not diagnosis.ok


@pytest.mark.parametrize("what", ["config", "backend", "weights", "attribute", "hook", "mode"])
def test_the_doctor_sees_a_model_that_does_not_stay_as_it_was(what: str) -> None:
    model = tiny("bert")
    unused = torch.nn.Parameter(torch.zeros(1))
    model.register_parameter("unused", unused)

    def change(*_: Any) -> None:
        if what == "config":
            model.config.how_often = getattr(model.config, "how_often", 0) + 1
        elif what == "backend":
            model.config._attn_implementation = "eager"
        elif what == "weights":
            unused.data = unused.data + 1
        elif what == "attribute":
            model.encoder.memory = "something"
        elif what == "hook":
            model.encoder.register_forward_pre_hook(lambda *_: None)
        else:
            model.pooler.train()

    inputs = {"input_ids": ids(1, 4)}
    calm = av.doctor(model, inputs)
    assert calm.unchanged and calm.ok
    model.register_forward_hook(change)
    diagnosis = av.doctor(model, inputs)
    assert not diagnosis.unchanged and not diagnosis.ok
    assert diagnosis.to_dict()["unchanged"] is False


def test_the_doctor_of_a_model_without_attention_gives_the_reason() -> None:
    diagnosis = av.doctor(torch.nn.Sequential(torch.nn.Linear(3, 3)), {"input": torch.ones(1, 3)})
    assert not diagnosis.ok and "no attention" in diagnosis.reason


# ---- the pure functions

SHAPES = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 23), st.integers(1, 9)
)


def sample(shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, proof.Kernel]:
    batch, groups, repeat, queries, keys, size = shape
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, groups * repeat, queries, size, generator=generator)
    key, value = torch.randn(2, batch, groups, keys, size, generator=generator)

    def kernel(v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, v, enable_gqa=True).transpose(1, 2)

    weights = (query @ key.repeat_interleave(repeat, 1).mT * size**-0.5).softmax(-1)
    return weights, value, kernel(value), kernel


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 1000))
def test_identity_weights_are_the_weights(shape: tuple[int, ...], seed: int) -> None:
    weights, value, output, kernel = sample(shape, seed)
    found = proof.identity_weights(kernel, value)
    assert found.shape == weights.shape
    torch.testing.assert_close(found, weights, atol=2e-6, rtol=0)
    assert float(proof.consistency(weights, value, output)) <= proof.tolerance(value)


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 1000), st.floats(0.01, 0.5))
def test_exact_refuses_any_altered_candidate(shape: tuple[int, ...], seed: int, by: float) -> None:
    weights, value, output, kernel = sample(shape, seed)
    altered = weights.clone()
    altered[-1, -1, -1, -1] += by
    proved = proof.prove([("altered", lambda: altered)], kernel, value, output, None, exact=True)
    assert proved.grade == "exact" and proved.way == "kernel on identity"
    torch.testing.assert_close(proved.weights, weights, atol=2e-6, rtol=0)


def test_not_a_number_is_never_proved() -> None:
    weights, value, output, _ = sample((1, 1, 1, 2, 3, 4), 0)
    broken = weights.clone()
    broken[0, 0, 0, 0] = float("nan")
    assert proof.consistency(broken, value, output) == float("inf")
    with pytest.raises(av.errors.ProofError, match=r"first way.*second way"):
        nans = torch.full_like(output, float("nan"))
        ways = [("first way", lambda: broken), ("second way", lambda: weights)]
        proof.prove(ways, lambda v: nans, value, nans, None)


def test_rows_without_keys_are_left_out_of_the_proof() -> None:
    weights, value, output, _ = sample((1, 2, 1, 4, 5, 3), 0)
    attends = torch.tensor([True, False, True, True])[None, None]
    output = output.clone()
    output[:, 1] = 77
    assert float(proof.consistency(weights, value, output)) > 1
    assert float(proof.consistency(weights, value, output, attends)) < 1e-5
    mask = torch.zeros(1, 1, 4, 5)
    mask[:, :, 1] = torch.finfo(torch.float32).min
    assert torch.equal(proof.attending_rows(mask), attends)  # type: ignore[arg-type]
    assert torch.equal(proof.attending_rows(mask == 0), attends)  # type: ignore[arg-type]
    assert proof.attending_rows(None) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("largest", [0.0, 1e-3, 1.0, 50.0])
def test_full_precision_is_bound_from_both_sides(dtype: torch.dtype, largest: float) -> None:
    """Above what a sum of float32 may lose by its order, below a weight that is wrong in the fifth decimal."""
    value = torch.full((1, 1, 3, 2), -largest, dtype=dtype)
    assert 4e-6 * max(1.0, largest) <= proof.tolerance(value) <= 2e-5 * max(1.0, largest)


@pytest.mark.parametrize(("keys", "allowed"), [(1, 1e-5), (2_000, 1e-5), (16_384, 6.2e-5), (131_072, 4.9e-4)])
def test_one_row_of_thousands_of_keys_may_lose_what_a_sum_of_so_many_loses(keys: int, allowed: float) -> None:
    assert proof.tolerance(torch.ones(1, 1, 3, 2), keys=keys) == pytest.approx(allowed, rel=0.02)


@pytest.mark.parametrize("altered", [0.0, 1e-3])
def test_a_step_of_decoding_after_sixteen_thousand_alike_keys_is_proved(altered: float) -> None:
    """The kernel's own float32 is off by more than short rows may be; a weight that is wrong by 0.001 is still seen."""
    make, keys = torch.Generator().manual_seed(0), 16_384
    few = torch.randn(2, 1, 1, 7, 16, generator=make)
    key, value = (few[n].repeat(1, 1, keys // 7 + 1, 1)[:, :, :keys] + n for n in (0, 1))
    query = torch.randn(1, 1, 1, 16, generator=make)
    output = F.scaled_dot_product_attention(query, key, value)
    output = output + altered * (value[:, :, :1] - value[:, :, 1:2])
    ran = Ran(query, key, value, output.transpose(1, 2), 0.25)
    every = torch.arange(keys)[None]
    places = Places(every[:, -1:], torch.tensor([keys]), every, torch.ones(1, 1, dtype=torch.bool), True)
    if altered:
        with pytest.raises(NotUnderstoodError, match="off by"):
            proof.prove_rows(ran, places)
        return
    assert float(proof.prove_rows(ran, places).error) <= proof.tolerance(value, keys=keys)


@pytest.mark.parametrize(("by", "passes"), [(2e-6, True), (5e-5, False), (5e-4, False)])
@pytest.mark.parametrize("exact", [False, True])
def test_a_weight_that_is_off_by_little_is_refused(by: float, passes: bool, exact: bool) -> None:
    weights, value, _, kernel = sample((1, 1, 1, 2, 3, 4), 0)
    value = value / value.abs().amax()
    value[..., 0, 0] = 1.0
    altered = weights.clone()
    altered[..., 0, 0] += by
    proved = proof.prove([("altered", lambda: altered)], kernel, value, kernel(value), None, exact=exact)
    assert (proved.way == "altered") == passes


def test_half_precision_has_a_wider_bound_and_still_a_bound() -> None:
    weights, value, output, _ = sample((1, 2, 2, 4, 9, 8), 0)
    value, half = value.bfloat16(), weights.bfloat16()
    output = (half.float() @ value.float().repeat_interleave(2, 1)).transpose(1, 2).bfloat16()
    assert float(proof.consistency(half, value, output)) <= proof.tolerance(value)
    assert float(proof.consistency(half * 1.2, value, output)) > proof.tolerance(value)


def test_thousands_of_alike_keys_are_no_doubt() -> None:
    """Equal summands round in one direction: in float32 our own sum would be off by more than is allowed."""
    model = tiny("gpt2", n_positions=2048)
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight.zero_()
            block.attn.c_attn.bias.fill_(1.9)
    with torch.no_grad(), av.capture(model) as recording:
        model(ids(1, 1500))
    assert recording.calls[0].error <= recording.calls[0].bound
