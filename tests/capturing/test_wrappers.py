"""What people put around a model: the real library each time, the same bits, the right maps, nothing left behind."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import hf_attnviz as av
from tests.capturing.extra_models import ByHand, built
from tests.capturing.test_forward import pipe
from tests.capturing.wrapped import GREEDY, TOLERANCE, eager_maps, recorded, same
from tests.capturing.wrapped import nothing_is_left as nothing_is_left
from tests.models import ids, padded, tiny

accelerate = pytest.importorskip("accelerate")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks


# ---- peft


def lora(name: str, backend: str = "sdpa", **options: Any) -> Any:
    parts = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"], "t5": ["q", "v"], "bert": ["query", "value"]}[name]
    config = peft.LoraConfig(r=4, target_modules=parts, init_lora_weights=False, fan_in_fan_out=name == "gpt2")
    for key, value in options.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return peft.get_peft_model(tiny(name, backend), config).eval()


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_lora_forward_and_generate(name: str, task: str | None) -> None:
    model, reference = lora(name, task_type=task), lora(name, "eager", task_type=task)
    inputs = padded([6, 4], "right")
    _, recording = recorded(model, lambda: model(**inputs))
    for item, trace in enumerate(recording.traces):
        tokens = inputs["input_ids"][item][inputs["attention_mask"][item].bool()]
        assert trace.decoder.keys.ids == tuple(tokens.tolist())
        torch.testing.assert_close(trace.decoder.stacked(), eager_maps(reference, tokens[None])[:, 0], **TOLERANCE)
    without = eager_maps(tiny(name, "eager"), tokens[None])[:, 0]
    assert not torch.allclose(trace.decoder.stacked(), without, atol=1e-2)  # the adapter does something
    inputs = padded([6, 4], "left")
    out, recording = recorded(model, lambda: model.generate(**inputs, **GREEDY))
    assert len(recording.runs) == 1 and len(recording.traces) == 2
    for item, trace in enumerate(recording.traces):
        real = torch.cat([inputs["attention_mask"][item].bool(), torch.ones(out.shape[1] - 7, dtype=torch.bool)])
        tokens = out[item, :-1][real]
        torch.testing.assert_close(trace.decoder.stacked(), eager_maps(reference, tokens[None])[:, 0], **TOLERANCE)
        assert trace.decoder.keys.ids == tuple(tokens.tolist())


@pytest.mark.parametrize("how", ["base", "merged in place", "unloaded", "tuner", "adapter off"])
def test_lora_seen_from_every_side(how: str) -> None:
    model, reference = lora("llama"), lora("llama", "eager")
    target = model
    if how == "base":
        target = model.get_base_model()
    elif how == "tuner":
        target = model.base_model
    elif how == "merged in place":
        model.merge_adapter()
    elif how == "unloaded":
        target = model = model.merge_and_unload()
    else:
        reference = tiny("llama", "eager")
        model.base_model.disable_adapter_layers()
    out, recording = recorded(target, lambda: model.generate(input_ids=ids(1, 5), **GREEDY))
    expected = eager_maps(reference, out[:, :-1])[:, 0]
    torch.testing.assert_close(recording.trace.decoder.stacked(), expected, **TOLERANCE)
    assert len(recording.runs) == 1


def test_the_doctor_proves_an_adapted_model() -> None:
    diagnosis = av.doctor(lora("llama"), {"input_ids": ids(2, 5)})
    assert diagnosis.ok, diagnosis
    assert [finding.module for finding in diagnosis.findings] == [
        f"base_model.model.model.layers.{layer}.self_attn" for layer in (0, 1)
    ]


def test_lora_on_an_encoder_decoder_with_beams() -> None:
    model, reference = lora("t5", task_type="SEQ_2_SEQ_LM"), lora("t5", "eager", task_type="SEQ_2_SEQ_LM")
    inputs = padded([6, 4], "right")
    out, recording = recorded(model, lambda: model.generate(**inputs, **GREEDY, num_beams=3, num_return_sequences=2))
    assert [(t.item, t.candidate) for t in recording.traces] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for row, trace in enumerate(recording.traces):
        real = inputs["attention_mask"][row // 2].bool()
        with torch.no_grad():
            truth = reference(
                input_ids=inputs["input_ids"][row // 2][None, real],
                decoder_input_ids=out[row][None, : len(trace.decoder.queries)],
                output_attentions=True,
            )
        torch.testing.assert_close(trace.cross.stacked(), torch.cat(truth.cross_attentions), **TOLERANCE)
        torch.testing.assert_close(trace.encoder.stacked(), torch.cat(truth.encoder_attentions), **TOLERANCE)


def test_a_pipeline_around_an_adapter() -> None:
    plain = pipe("text-generation")
    options: dict[str, Any] = {"target_modules": ["c_attn"], "fan_in_fan_out": True, "init_lora_weights": False}
    model = peft.get_peft_model(plain.model, peft.LoraConfig(r=2, task_type="CAUSAL_LM", **options)).eval()
    target = transformers.pipeline("text-generation", model=model, tokenizer=plain.tokenizer, device="cpu")
    asked: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    said = target("the cat", **asked)
    with av.capture(target) as recording:
        assert target("the cat", **asked) == said
    assert len(recording.runs) == 1
    assert recording.trace.decoder.keys.texts[:2] == ("the", "cat")
    assert recording.calls[0].module.startswith("base_model.model.transformer.h.0")


@pytest.mark.parametrize("virtual", [1, 3])
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_virtual_tokens_are_no_tokens(kind: str, virtual: int) -> None:
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=virtual)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(tiny("llama", eos_token_id=None), config).eval()
    rows = 5 + (virtual if kind == "PromptTuningConfig" else 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # peft says that it makes the position ids itself
        _, plain = recorded(model, lambda: model(**padded([5, 3], "left")))
        out, decoded = recorded(model, lambda: model.generate(**padded([5, 3], "left"), **GREEDY))
    assert [t.decoder.maps[0].weights.shape for t in plain.traces] == [
        (4, rows, 5 + virtual),
        (4, rows - 2, 3 + virtual),
    ]
    for item, trace in enumerate(decoded.traces):
        tokens = out[item][2 * item :]
        found = trace.decoder.keys
        assert found.ids == (*[None] * virtual, *tokens[:-1].tolist())
        assert found.kinds[:virtual] == ("latent",) * virtual
        produced = [text for text in trace.decoder.maps[0].produced or () if text is not None]
        assert produced == [str(token) for token in tokens[-3:].tolist()]


# ---- accelerate, parallel wrappers, quantisation


@pytest.mark.parametrize("how", ["dispatch_model", "cpu_offload", "disk_offload"])
def test_accelerate_hooks(how: str, tmp_path: Path) -> None:
    model, reference = tiny("llama"), tiny("llama", "eager")
    if how == "dispatch_model":
        parts = ("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head")
        places = dict.fromkeys(parts, "cpu") | {"model.layers.1": "disk"}
        accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    elif how == "cpu_offload":
        accelerate.cpu_offload(model, execution_device="cpu")
    else:
        accelerate.disk_offload(model, str(tmp_path), execution_device="cpu")
    out, recording = recorded(model, lambda: model.generate(input_ids=ids(2, 5), **GREEDY))
    for item, trace in enumerate(recording.traces):
        tokens = out[item][None, : len(trace.decoder.keys)]
        torch.testing.assert_close(trace.decoder.stacked(), eager_maps(reference, tokens)[:, 0], **TOLERANCE)
    with torch.no_grad(), av.capture(model) as recording:
        accelerate.hooks.remove_hook_from_submodules(model)  # it puts its own forward back, over ours
    assert "generate" not in model.__dict__


def test_accelerate_prepares_for_bfloat16() -> None:
    model = tiny("gpt2")
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    ready = accelerator.prepare_model(model, evaluation_mode=True)
    _, recording = recorded(ready, lambda: ready(input_ids=ids(2, 5)))
    assert recording.calls[0].weights.dtype == torch.bfloat16
    with torch.no_grad():
        expected = eager_maps(tiny("gpt2", "eager"), ids(2, 5))[0]
    torch.testing.assert_close(recording.calls[0].weights.float(), expected, atol=0.03, rtol=0)


def test_data_parallel_on_cpu() -> None:
    model, reference = tiny("gpt2"), tiny("gpt2", "eager")
    wrapped = nn.DataParallel(model)
    _, recording = recorded(wrapped, lambda: wrapped(ids(2, 5)))
    assert recording.calls[0].module == "module.transformer.h.0.attn"
    assert recording.traces[1].decoder.keys.ids == tuple(ids(2, 5)[1].tolist())
    torch.testing.assert_close(
        recording.traces[1].decoder.stacked(), eager_maps(reference, ids(2, 5))[:, 1], **TOLERANCE
    )
    _, recording = recorded(wrapped, lambda: wrapped.module.generate(ids(2, 5), **GREEDY))
    assert len(recording.runs) == 1 and len(recording.traces) == 2


def test_data_parallel_on_several_devices_is_refused() -> None:
    wrapped = nn.DataParallel(tiny("gpt2"))
    wrapped.device_ids = [0, 1]
    with pytest.raises(av.errors.CaptureError, match=r"copies the model to 2 devices.*wrapped\.module"):
        av.capture(wrapped)


def test_distributed_data_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(tiny("gpt2"))
        _, recording = recorded(wrapped, lambda: wrapped(input_ids=ids(2, 5)))
        assert recording.traces[1].decoder.keys.ids == tuple(ids(2, 5)[1].tolist())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_dynamic_quantisation(name: str) -> None:
    models = [
        torch.ao.quantization.quantize_dynamic(tiny(name, backend), {nn.Linear}, dtype=torch.qint8)
        for backend in ("sdpa", "eager")
    ]
    assert "Quantized" in str(models[0])
    _, recording = recorded(models[0], lambda: models[0](input_ids=ids(2, 6)))
    expected = eager_maps(models[1], ids(2, 6))
    # The quantised layers round to 8 bits what the two backends differ in at the sixth decimal.
    torch.testing.assert_close(recording.calls[0].weights, expected[0], **TOLERANCE)
    assert len(recording.traces) == 2 and max(call.error for call in recording.calls) < 1e-4


# ---- copies, and models that change


def test_a_deep_copy_made_while_recording_is_a_model_of_its_own() -> None:
    model = tiny("gpt2")
    recording = av.attach(model, last=9)
    try:
        copied = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.mul_(1.5)
            seen = copied(ids(1, 4)).logits
            copied.generate(ids(1, 4), **GREEDY)
        assert len(recording.runs) == 0
    finally:
        recording.detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
        assert torch.equal(model(ids(1, 4)).logits, seen)
        with av.capture(copied) as again:
            copied(ids(1, 4))
    assert len(again.calls) == 2


def test_a_deep_copy_keeps_what_others_put_in_place_of_forward() -> None:
    model = tiny("gpt2")
    accelerate.cpu_offload(model, execution_device="cpu")
    before = model.forward
    with av.capture(model) as recording:
        copied = copy.deepcopy(model)
        model(ids(1, 4))
    assert type(copied.forward) is type(before) and len(recording.calls) == 2


@pytest.mark.parametrize("save", ["pickle", "torch.save"])
def test_pickling_while_recording_says_what_to_do(save: str, tmp_path: Path) -> None:
    model = tiny("gpt2")

    def write() -> Any:
        return pickle.dumps(model) if save == "pickle" else torch.save(model, io.BytesIO())

    recording = av.attach(model)
    try:
        with pytest.raises(av.errors.CaptureError, match=r"recording\.detach\(\)"):
            write()
        model.save_pretrained(tmp_path)
        assert model.state_dict()
    finally:
        recording.detach()
    write()
    assert torch.equal(
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path)(ids(1, 4)).logits, model(ids(1, 4)).logits
    )


@pytest.mark.parametrize("cached", [False, True])
def test_parametrized_weights(cached: bool) -> None:
    class Symmetric(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.triu() + x.triu(1).T

    models = [tiny("bert"), tiny("bert", "eager")]
    for model in models:
        nn.utils.parametrize.register_parametrization(model.encoder.layer[1].attention.self.key, "weight", Symmetric())
        nn.utils.parametrizations.weight_norm(model.encoder.layer[0].attention.self.query)
    expected = eager_maps(models[1], ids(2, 6))
    run: Callable[[], Any] = lambda: models[0](input_ids=ids(2, 6))  # noqa: E731
    if cached:
        with nn.utils.parametrize.cached():
            _, recording = recorded(models[0], run)
    else:
        _, recording = recorded(models[0], run)
    torch.testing.assert_close(recording.traces[1].encoder.stacked(), expected[:, 1], **TOLERANCE)


@pytest.mark.parametrize("grad", [False, True])
def test_functional_call(grad: bool) -> None:
    model, reference = tiny("gpt2"), tiny("gpt2", "eager")
    weights = {name: parameter.detach() * 1.2 for name, parameter in model.named_parameters()}

    def loss(weights: Any) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(model, weights, (ids(1, 5),)).logits.square().mean()
        return out

    run = (lambda: torch.func.grad(loss)(weights)) if grad else (lambda: loss(weights))
    plain = run()
    with av.capture(model) as recording:
        same(plain, run())
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.2)
    torch.testing.assert_close(recording.trace.decoder.stacked(), eager_maps(reference, ids(1, 5))[:, 0], **TOLERANCE)


def test_vmap_is_refused_and_not_disturbed() -> None:
    model = built(lambda: ByHand("F.softmax, @"))
    rows = ids(2, 4)[:, None]
    plain = torch.func.vmap(model)(rows)
    with pytest.raises(av.errors.CaptureError, match="vmap hides the batch"), av.capture(model):
        assert torch.equal(torch.func.vmap(model)(rows), plain)


def test_a_model_moved_and_cast_between_runs() -> None:
    model, reference = tiny("gpt2"), tiny("gpt2", "eager")
    with torch.no_grad(), av.capture(model) as recording:
        model(ids(1, 5))
        model.to(torch.float64)
        model(ids(1, 5))
        model.to("cpu", torch.bfloat16)
        model(ids(1, 5))
    assert [call.weights.dtype for call in recording.calls[::2]] == [torch.float32, torch.float64, torch.bfloat16]
    expected = eager_maps(reference.double(), ids(1, 5))[:, 0]
    torch.testing.assert_close(recording.traces[1].decoder.stacked(), expected, atol=1e-12, rtol=0)


def test_a_part_put_in_later_is_not_silently_missing() -> None:
    model = tiny("gpt2")
    plain = model(ids(1, 4)).logits
    with pytest.raises(av.errors.CaptureError, match=r"GPT2Attention attends.*no part of it"), av.capture(model):
        model.transformer.h[0].attn = copy.deepcopy(model.transformer.h[0].attn)
        assert torch.equal(model(ids(1, 4)).logits, plain)


def test_an_adapter_added_inside_the_block() -> None:
    """peft changes the layers inside the attention modules, which stay where they are."""
    model = tiny("llama")
    with torch.no_grad(), av.capture(model) as recording:
        model(ids(1, 5))
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
        ).eval()
        adapted(input_ids=ids(1, 5))
    first, second = recording.traces
    assert not torch.allclose(first.decoder.stacked(), second.decoder.stacked(), atol=1e-3)
