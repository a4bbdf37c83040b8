"""What people put around a model: the real library each time, the same bits, the right maps, nothing left behind."""

import asyncio
import copy
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.overrides import _get_current_function_mode_stack

import hf_attnviz as av
from hf_attnviz.capturing import scope
from tests.capturing.extra_models import ByHand, built
from tests.capturing.test_forward import TOLERANCE, same
from tests.capturing.test_undo import ORIGINAL, marks
from tests.models import ids, padded, tiny

accelerate = pytest.importorskip("accelerate")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks

GREEDY: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
DOORS = ("forward", "generate", "prepare_inputs_for_generation")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert transformers.modeling_utils.AttentionInterface.get_interface == ORIGINAL[1]
    assert _get_current_function_mode_stack() == []
    assert scope.all_sessions() == []
    assert torch._dynamo.eval_frame._stance.stance == "default"


def ours(model: nn.Module) -> Any:
    """Where we stand on a model; wrappers change the rest of it as they run."""
    return {
        name: (dict(m._forward_hooks), dict(m._forward_pre_hooks), [m.__dict__.get(door) for door in DOORS])
        for name, m in model.named_modules()
    }


def recorded(target: Any, run: Callable[[], Any]) -> tuple[Any, av.Recording]:
    """What ``run`` gives, the same with and without a capture of ``target``, and the recording."""
    with torch.no_grad():
        plain = run()
        before = ours(target)
        with av.capture(target) as recording:
            assert ours(target) != before
            seen = run()
    same(plain, seen)
    assert ours(target) == before
    names = {name for name, _ in target.named_modules()}
    assert recording.calls and {call.module for call in recording.calls} <= names
    return seen, recording


def eager_maps(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """``[layer, batch, head, query, key]`` of a model that runs eager."""
    with torch.no_grad():
        return torch.stack(model(input_ids=tokens, output_attentions=True).attentions)


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


def test_distributed_data_parallel(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
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


# ---- compilers


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["whole", "whole, before", "in place", "forward", "function", "part", "child"])
def test_compiled_inside_the_block(how: str) -> None:
    """It runs uncompiled: the bits are those of the model as it was when the block was opened."""
    torch._dynamo.reset()
    model, reference, tokens = tiny("gpt2"), tiny("gpt2", "eager"), ids(2, 5)
    with torch.no_grad():
        plain = model(tokens).logits
        before = torch.compile(model, backend=_other_bits)
        compiled_bits = before(tokens).logits
        assert not torch.equal(plain, compiled_bits)  # so that the test can tell which of the two ran
        with av.capture(model) as recording:
            run: Any = model
            if how == "whole":
                run = torch.compile(model, backend=_other_bits)
            elif how == "whole, before":
                run = before
            elif how == "in place":
                model.compile(backend=_other_bits)
            elif how == "forward":
                model.forward = torch.compile(model.forward, backend=_other_bits)
            elif how == "function":
                run = torch.compile(lambda tokens: model(tokens), backend=_other_bits)
            elif how == "part":
                model.transformer.h[1].compile(backend=_other_bits)
            else:
                model.transformer.h[0] = torch.compile(model.transformer.h[0], backend=_other_bits)
            for _ in range(2):
                assert torch.equal(run(tokens).logits, plain)
        assert not torch.equal(run(tokens).logits, plain)  # compiled again, once nobody looks
    assert [len(r.calls) for r in recording.runs] == [2, 2]
    torch.testing.assert_close(recording.traces[3].decoder.stacked(), eager_maps(reference, tokens)[:, 1], **TOLERANCE)
    torch._dynamo.reset()


def _other_bits(graph: Any, _: Any) -> Callable[..., Any]:
    """A compiler whose code rounds in another way, as the real one's does, without the minute that it takes."""

    def run(*args: Any) -> Any:
        return tuple(t * (1 + 1e-6) if _is_float(t) else t for t in graph.forward(*args))

    return run


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def test_two_threads_leave_the_compiler_as_it_was() -> None:
    models = [tiny("gpt2", num_hidden_layers=1), tiny("bert")]
    barrier = threading.Barrier(2)

    def work(model: Any) -> int:
        torch.set_num_threads(1)
        with av.capture(model) as recording, torch.no_grad():
            next(iter(model.children())).compile(backend="eager")
            for seed in range(5):
                barrier.wait(30)
                model(ids(1, 5, seed))
        return len(recording.runs)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, models)) == [5, 5]
    torch._dynamo.reset()


def test_a_full_graph_is_refused_by_the_compiler_in_our_words() -> None:
    model = tiny("gpt2")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad(), pytest.raises(RuntimeError, match="hf_attnviz records this model"), av.capture(model):
        compiled(ids(1, 4))
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_attention_function_is_not_silently_empty() -> None:
    @torch.jit.script
    def attend(x: torch.Tensor) -> torch.Tensor:
        return (x @ x.transpose(-1, -2)).softmax(-1) @ x

    class Scripted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = attend(x)
            return out

    model, x = Scripted(), torch.randn(2, 5, 8)
    plain = model(x)
    with pytest.raises(av.errors.NothingCapturedError, match="scripted"), av.capture(model):
        assert torch.equal(model(x), plain)


# ---- threads, tasks, nesting


def test_two_blocks_on_one_model_in_two_threads_hear_their_own_runs() -> None:
    model, barrier = tiny("gpt2"), threading.Barrier(2)

    def work(length: int) -> list[int]:
        torch.set_num_threads(1)
        with av.capture(model) as recording, torch.no_grad():
            for seed in range(8):
                barrier.wait(30)
                model(ids(1, length, seed))
            barrier.wait(30)
        return [len(trace.decoder.keys) for trace in recording.traces]

    before = marks(model)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, [4, 6])) == [[4] * 8, [6] * 8]
    assert marks(model) == before


def test_worker_threads_inside_a_block_are_heard() -> None:
    model, reference = tiny("gpt2"), tiny("gpt2", "eager")
    lengths = [3, 4, 5, 6, 7, 8, 9, 10]

    def work(length: int) -> None:
        torch.set_num_threads(1)
        with torch.no_grad():
            model(ids(1, length))

    with av.capture(model) as recording, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, lengths))
    assert sorted(run.number for run in recording.runs) == list(range(8))
    assert sorted(len(trace.decoder.keys) for trace in recording.traces) == lengths
    for trace in recording.traces:
        expected = eager_maps(reference, ids(1, len(trace.decoder.keys)))[:, 0]
        torch.testing.assert_close(trace.decoder.stacked(), expected, **TOLERANCE)


def test_an_attached_recording_hears_every_thread_also_those_in_blocks_of_their_own() -> None:
    model = tiny("gpt2")
    attached = av.attach(model, last=9)
    try:

        def work() -> int:
            with torch.no_grad(), av.capture(model) as recording:
                model(ids(1, 5))
            return len(recording.runs)

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(work).result() == 1
            pool.submit(model, ids(1, 6)).result()
    finally:
        attached.detach()
    assert [len(trace.decoder.keys) for trace in attached.traces] == [5, 6]


def test_tasks_that_interleave_on_one_model() -> None:
    model = tiny("gpt2")

    async def ask(length: int, others: asyncio.Barrier) -> list[int]:
        with av.capture(model) as recording:
            for way in ("here", "thread", "executor"):
                await others.wait()  # both blocks are open now
                if way == "here":
                    model(ids(1, length))
                elif way == "thread":
                    await asyncio.to_thread(model, ids(1, length + 10))
            await others.wait()
        return [len(trace.decoder.keys) for trace in recording.traces]

    async def main() -> list[list[int]]:
        others = asyncio.Barrier(2)
        return await asyncio.gather(ask(4, others), ask(6, others))

    before = marks(model)
    assert asyncio.run(main()) == [[4, 14], [6, 16]]
    assert marks(model) == before


def test_an_executor_inside_a_task_is_heard() -> None:
    model = tiny("gpt2")

    async def main() -> int:
        with av.capture(model) as recording:
            await asyncio.get_running_loop().run_in_executor(None, model, ids(1, 5))
        return len(recording.trace.decoder.keys)

    assert asyncio.run(main()) == 5


def test_a_block_inside_a_generator() -> None:
    model = tiny("gpt2")
    before = marks(model)

    def answers() -> Iterator[av.Trace]:
        with av.capture(model) as recording:
            for length in (3, 4):
                model.generate(ids(1, length), **GREEDY)
                yield recording.traces[-1]

    assert [len(trace.decoder.keys) for trace in answers()] == [5, 6]
    assert marks(model) == before
    left = answers()
    next(left)
    with ThreadPoolExecutor(1) as pool:  # left in another thread than the one that entered
        pool.submit(left.close).result()
    assert marks(model) == before
    with av.capture(model) as recording:
        model(ids(1, 5))
    assert len(recording.runs) == 1


@pytest.mark.parametrize("part_first", [False, True])
def test_a_model_and_a_part_of_it_at_once(part_first: bool) -> None:
    model, reference = tiny("bert"), tiny("bert", "eager")
    before, expected = marks(model), eager_maps(reference, ids(2, 5))
    parts = [model.encoder.layer[1], model] if part_first else [model, model.encoder.layer[1]]
    with torch.no_grad(), av.capture(parts[0]) as outer, av.capture(parts[1]) as inner:
        model(ids(2, 5))
    assert marks(model) == before
    part, whole = (outer, inner) if part_first else (inner, outer)
    assert [call.module for call in part.calls] == ["attention.self"] and len(whole.calls) == 2
    assert torch.equal(part.calls[0].weights, whole.calls[1].weights)
    torch.testing.assert_close(part.calls[0].weights, expected[1], **TOLERANCE)


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
