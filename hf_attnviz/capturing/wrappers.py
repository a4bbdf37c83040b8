"""What people put around a model: wrappers that pass calls on to it, and compilers that hide what runs in it.

A recording stands at the doors of the model inside the wrappers, so that it sees the very arguments that the model
sees, whichever wrapper they came through. Compiled code passes by every observer. What was compiled before is refused;
a module that is compiled while a recording is open runs uncompiled until it is closed: with the bits of the model as
it was when the recording was opened, which differ by rounding from those of the compiled one.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from hf_attnviz.capturing.families import WRAPPERS
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text

_lock = threading.Lock()
_eager: list[object] = []
_before: list[Any] = []

F = TypeVar("F", bound=Callable[..., Any])


def untraced(function: F) -> F:
    """A function of ours that a compiler calls as it is; what it runs, it runs uncompiled."""
    why = "hf_attnviz records this model, and what is recorded runs uncompiled: close the recording, or leave fullgraph"
    plain: F = torch.compiler.disable(function, reason=why)  # type: ignore[no-untyped-call]
    return plain


def unwrapped(target: nn.Module) -> nn.Module:
    """The model inside peft's adapters and torch's parallel wrappers.

    Raises:
        CaptureError: it is copied to several devices for each call; no copy is the model that we stand on.
    """
    while (name := _wrapper(target)) is not None:
        devices: Any = getattr(target, "device_ids", None) or ()
        if len(devices) > 1:
            raise CaptureError(
                Text(
                    f"{type(target).__name__} copies the model to {len(devices)} devices for every call, and a "
                    "recording stands on one model only; capture and call the model inside: wrapped.module",
                    f"{type(target).__name__} 每次调用都把模型复制到 {len(devices)} 个设备，"
                    "而一个录制只能针对一个模型；请捕获并调用其中的模型：wrapped.module",
                )
            )
        target = getattr(target, WRAPPERS[name])
    return target


def _wrapper(module: nn.Module) -> str | None:
    return next((parent.__name__ for parent in type(module).__mro__ if parent.__name__ in WRAPPERS), None)


def compiled_part(model: nn.Module) -> str | None:
    """The name of a module in ``model`` that is compiled or scripted (the class for the model itself), or None."""
    for name, module in model.named_modules():
        if (
            type(module).__name__ == "OptimizedModule"
            or getattr(module, "_compiled_call_impl", None) is not None
            or hasattr(module.forward, "_torchdynamo_orig_callable")
            or isinstance(module, torch.jit.ScriptModule)
        ):
            return name or type(model).__name__
    return None


def refuse_compiled(model: nn.Module) -> None:
    """Raise a CaptureError when any part of ``model`` is compiled."""
    name = compiled_part(model)
    if name is not None:
        raise CaptureError(
            Text(
                f"{name} was compiled before the capture, and compiled code passes by every "
                "observer in silence. Capture the model before torch.compile (or compiled._orig_mod), or load it again",
                f"{name} 在捕获之前就已编译，而编译后的代码会悄悄绕过所有观察者。"
                "请在 torch.compile 之前捕获模型（或捕获 compiled._orig_mod），或重新加载它",
            )
        )


@contextmanager
def uncompiled(model: nn.Module, compiles: bool) -> Iterator[None]:
    """Inside, what was compiled of ``model`` since the recording was opened, or will be now, runs as it was before.

    torch knows only one stance for all threads: other compiled code runs uncompiled, too, as long as this lasts.
    """
    if not compiles and compiled_part(model) is None:
        yield
        return
    me = object()
    with _lock:
        _eager.append(me)
        if len(_eager) == 1:
            _before.append(torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            _eager.remove(me)
            if not _eager:
                _before.pop().__exit__(None, None, None)
