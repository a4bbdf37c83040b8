"""Nothing is left behind: after success, after an error anywhere, after a half-way failure; threads never mix."""

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from transformers.modeling_utils import AttentionInterface

import hf_attnviz as av
from hf_attnviz.capturing import listener, scope
from hf_attnviz.capturing import recording as recording_module
from tests.models import ids, tiny

ORIGINAL = AttentionInterface.__dict__.get("get_interface"), AttentionInterface.get_interface


def marks(model: nn.Module) -> Any:
    """Everything of a model and of the library that a capture might change."""
    modules = {}
    for name, module in model.named_modules():
        own = dict(module.__dict__)
        parts = {key: (id(value), copy.copy(value) if isinstance(value, dict) else None) for key, value in own.items()}
        modules[name] = (list(own), parts)
    config = getattr(model, "config", None)
    return modules, None if config is None else (config.to_dict(), config._attn_implementation)


@pytest.fixture(autouse=True)
def library_is_as_it_was() -> Any:
    yield
    assert (AttentionInterface.__dict__.get("get_interface"), AttentionInterface.get_interface) == ORIGINAL
    assert _get_current_function_mode_stack() == []
    assert scope.all_sessions() == []


@pytest.fixture(params=["gpt2", "bart", "bert"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def test_after_success(model: Any) -> None:
    before = marks(model)
    with av.capture(model):
        assert marks(model) != before  # so that this test can fail
        model(ids(1, 4))
        if hasattr(model, "lm_head"):
            model.generate(ids(1, 4), max_new_tokens=2)
    assert marks(model) == before


def test_an_exception_in_the_body_comes_out_as_it_is(model: Any) -> None:
    before, problem = marks(model), ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, av.capture(model) as recording:
        model(ids(1, 4))
        raise problem
    assert caught.value is problem
    assert marks(model) == before
    assert len(recording.calls) >= 2  # what was recorded before is not lost
    assert recording.trace is not None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_inside_the_models_forward(model: Any, error: type[BaseException]) -> None:
    layer = next(m for name, m in model.named_modules() if name.endswith("1"))
    before = marks(model)

    def fail(*_: Any) -> None:
        raise error("inside")

    handle = layer.register_forward_pre_hook(fail)
    with pytest.raises(error, match="inside"), av.capture(model):
        model(ids(1, 4))
    handle.remove()
    after = marks(model)
    assert after == before
    with av.capture(model) as recording:
        model(ids(1, 4))
    assert len(recording.runs) == 1
    assert recording.trace is not None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_attached_recording_goes_on_after_an_interrupt(error: type[BaseException]) -> None:
    model = tiny("gpt2")
    recording = av.attach(model, last=5)
    try:

        def fail(*_: Any) -> None:
            raise error("inside")

        handle = model.transformer.h[1].register_forward_pre_hook(fail)
        with pytest.raises(error):
            model(ids(1, 4))
        handle.remove()
        assert _get_current_function_mode_stack() == []
        assert scope.all_sessions() == []
        model(ids(1, 5))
        model(ids(1, 6))
        assert [(run.failed, len(run.calls)) for run in recording.runs] == [(True, 1), (False, 2), (False, 2)]
        assert [run.calls[0].weights.shape[-1] for run in recording.runs] == [4, 5, 6]
        assert [len(trace.decoder.keys) for trace in recording.traces] == [5, 6]
    finally:
        recording.detach()


def test_a_run_that_failed_half_way_is_never_a_trace_with_fewer_layers() -> None:
    model = tiny("gpt2")
    fail_now = [True]

    def fail(*_: Any) -> None:
        if fail_now[0]:
            raise RuntimeError("inside")

    handle = model.transformer.h[1].register_forward_pre_hook(fail)
    with av.capture(model) as recording:
        with pytest.raises(RuntimeError, match="inside"):
            model(ids(1, 4))
        fail_now[0] = False
        model(ids(1, 5))
    handle.remove()
    assert [(run.failed, len(run.calls)) for run in recording.runs] == [(True, 1), (False, 2)]
    assert [trace.decoder.layers for trace in recording.traces] == [(0, 1)]
    assert [len(trace.decoder.keys) for trace in recording.traces] == [5]


def test_a_failed_run_does_not_hide_the_good_ones() -> None:
    """A wrong input, caught by the caller; then a good one."""
    model = tiny("gpt2")
    with av.capture(model) as recording:
        with pytest.raises(IndexError):
            model(torch.tensor([[5000]]))
        model(ids(1, 5))
    assert [trace.decoder.layers for trace in recording.traces] == [(0, 1)]


@pytest.mark.parametrize("which", ["register_forward_pre_hook", "register_forward_hook"])
def test_a_failure_half_way_through_attaching(which: str) -> None:
    class Stubborn(nn.Linear):
        pass

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no hooks here")

    model = tiny("gpt2")
    stubborn = Stubborn(2, 2)
    model.transformer.h[1].extra = stubborn
    object.__setattr__(stubborn, which, refuse)
    before = marks(model)
    with pytest.raises(RuntimeError, match="no hooks here"), av.capture(model):
        raise AssertionError("the body must not run")
    assert marks(model) == before
    with pytest.raises(RuntimeError, match="no hooks here"):
        av.attach(model)
    assert marks(model) == before


def test_two_threads_with_two_models_never_mix() -> None:
    models, barrier = [tiny("gpt2"), tiny("bert"), tiny("llama", seed=1)], threading.Barrier(3)
    found: dict[int, av.Recording] = {}
    errors: list[BaseException] = []

    def work(n: int) -> None:
        try:
            torch.set_num_threads(1)
            with av.capture(models[n]) as recording, torch.no_grad():
                barrier.wait(30)
                for step in range(15):
                    models[n](ids(1, 4 + n, seed=step))
            found[n] = recording
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    for n, recording in found.items():
        assert len(recording.runs) == 15
        assert [len(run.calls) for run in recording.runs] == [2] * 15
        names = {name for name, _ in models[n].named_modules()}
        assert {call.module for call in recording.calls} <= names
        assert {call.weights.shape for call in recording.calls} == {(1, 4, 4 + n, 4 + n)}


def test_one_thread_records_while_another_only_runs() -> None:
    watched, other = tiny("gpt2"), tiny("gpt2", seed=1)
    plain = other(ids(1, 4)).logits
    with av.capture(watched) as recording:
        out: list[torch.Tensor] = []
        thread = threading.Thread(target=lambda: out.append(other(ids(1, 4)).logits))
        thread.start()
        thread.join(30)
        other(ids(1, 4))
        watched(ids(1, 5))
    assert torch.equal(out[0], plain)
    assert len(recording.calls) == 2 and len(recording.runs) == 1


def test_nested_captures_of_the_same_model() -> None:
    model = tiny("gpt2")
    before = marks(model)
    with av.capture(model) as outer:
        model(ids(1, 4))
        with av.capture(model, layers=[1]) as inner:
            model(ids(1, 5))
            model.generate(ids(1, 3), max_new_tokens=3, num_beams=2)
        model(ids(1, 6))
    assert marks(model) == before
    assert [len(run.calls) for run in outer.runs] == [2, 2, 6, 2]
    assert [len(run.calls) for run in inner.runs] == [1, 3]
    assert inner.traces[0].decoder.layers == (1,)
    assert torch.equal(inner.traces[0].decoder.maps[0].weights, outer.traces[1].decoder.layer(1).weights)
    assert torch.equal(inner.traces[1].decoder.maps[0].weights, outer.traces[2].decoder.layer(1).weights)


@pytest.mark.parametrize("first", [0, 1])
def test_two_attached_recordings_come_off_in_any_order(first: int) -> None:
    model = tiny("gpt2")
    before = marks(model)
    recordings = [av.attach(model), av.attach(model)]
    left = recordings[1 - first]
    try:
        recordings[first].detach()
        model.generate(ids(1, 4), max_new_tokens=3, do_sample=False)
    finally:
        left.detach()
    assert len(left.runs) == 1
    assert left.runs[0].generated is not None
    assert marks(model) == before


def test_capture_of_a_part() -> None:
    model, reference = tiny("bert"), tiny("bert", "eager")
    before = marks(model)
    with torch.no_grad():
        expected = reference(ids(2, 5), output_attentions=True).attentions
        with av.capture(model.encoder.layer[1]) as part:
            model(ids(2, 5))
        with av.capture(model.encoder) as whole:
            model(ids(2, 5))
    assert marks(model) == before
    assert len(part.calls) == 1 and len(whole.calls) == 2
    torch.testing.assert_close(part.calls[0].weights, expected[1], atol=2e-5, rtol=0)
    assert len(part.traces) == 2
    assert whole.traces[0].encoder.layers == (0, 1)


def test_detach_twice_and_open_again() -> None:
    model = tiny("gpt2")
    before = marks(model)
    recording = av.attach(model, last=2)
    model(ids(1, 4))
    recording.detach()
    recording.detach()
    assert marks(model) == before
    model(ids(1, 4))
    assert len(recording.runs) == 1
    with recording.open():
        model(ids(1, 5))
    assert len(recording.runs) == 2
    assert marks(model) == before


def test_attached_keeps_the_last_runs_only() -> None:
    model = tiny("gpt2")
    recording = av.attach(model, last=2)
    try:
        kept: list[weakref.ref[torch.Tensor]] = []
        for n in range(5):
            model(ids(1, 4 + n))
            kept.append(weakref.ref(recording.runs[-1].calls[0].weights))
        gc.collect()
        assert [ref() is not None for ref in kept] == [False, False, False, True, True]
        assert [len(t.decoder.keys) for t in recording.traces] == [7, 8]
    finally:
        recording.detach()


def test_the_model_is_freed_when_the_recording_is() -> None:
    model = tiny("gpt2")
    with av.capture(model) as recording:
        model(ids(1, 4))
    trace = recording.trace
    ref = weakref.ref(model)
    del model, recording
    gc.collect()
    assert ref() is None
    assert trace.decoder.layers == (0, 1)


def test_problems_are_raised_at_the_end_never_in_the_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    import hf_attnviz.capturing.interface as interface

    def broken(*_: Any, **__: Any) -> Callable[..., Any]:
        raise ZeroDivisionError("our own bug")

    monkeypatch.setattr(interface, "prove", broken)
    model = tiny("gpt2")
    plain = model(ids(1, 4)).logits
    recording = av.capture(model)
    with pytest.raises(av.errors.CaptureError, match=r"transformer\.h\.0\.attn.*our own bug"), recording:
        assert torch.equal(model(ids(1, 4)).logits, plain)


def test_a_hand_written_model_is_not_disturbed_by_odd_views() -> None:
    """A view that fits the softmax only after dropout must not raise inside the model's own forward."""

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = nn.functional.dropout((x @ x.mT).transpose(1, 2).softmax(-1).transpose(1, 3), 0.5, True)
            return weights.reshape(-1, *weights.shape[2:]) @ torch.ones(weights.shape[-1], 2)

    model, x = Odd(), torch.randn(2, 3, 5, 8)
    torch.manual_seed(0)
    plain = model(x)
    torch.manual_seed(0)
    recording = av.attach(model)
    try:
        assert torch.equal(model(x), plain)
    finally:
        recording.detach()


def test_a_block_is_its_own_before_the_first_hook_is_on_and_deaf_once_the_last_is_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls of other threads may be under way between its hooks; who hears all is only what was attached by hand."""
    model, seen = tiny("gpt2"), list[bool]()

    class Watched(listener.Listener):
        def __init__(self, opened: av.Recording) -> None:
            seen.append(opened.in_block)
            super().__init__(opened)

    monkeypatch.setattr(recording_module, "Listener", Watched)
    with av.capture(model) as block:
        assert scope.hears(block)
    assert not scope.hears(block)
    attached = av.attach(model)
    assert scope.hears(attached)
    attached.detach()
    assert not scope.hears(attached)
    with block:
        pass
    assert seen == [True, False, True]
