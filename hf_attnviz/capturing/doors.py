"""Doors: a method of one object, wrapped while somebody listens, and exactly as it was afterwards.

Several recordings may stand at one door and leave it in any order: the method is wrapped once, and the wrapper asks
whoever stands there. A wrapper runs under ``try``/``finally``, so that an interrupt, too, is noticed.

A deep copy of a model has doors and hooks to nowhere; a model is not pickled with ours on it.
"""

import copy
import functools
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import nn

from hf_attnviz.capturing import scope
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Runs a call: gets the next in line, the arguments by place and by name; gives the result."""

_MISSING = object()
_lock = threading.RLock()


class Ours:
    """A callable of ours that stands on a model while a recording is open."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        return _nothing

    def __reduce__(self) -> NoReturn:
        raise CaptureError(
            Text(
                "a recording of hf_attnviz is open on this model, and a model is not pickled with our hooks on it. "
                "Close the block or call recording.detach() first; save_pretrained() and state_dict() work at any "
                "time",
                "此模型上有打开的 hf_attnviz 录制，带着我们钩子的模型不能 pickle。请先结束代码块或调用 "
                "recording.detach()；save_pretrained() 与 state_dict() 随时可用",
            )
        )


class _Door(Ours):
    def __init__(self, module: Any, name: str) -> None:
        self.own = module.__dict__.get(name, _MISSING)
        self.module, self.name = weakref.ref(module), name
        self.arounds: list[Around] = []
        self.method = getattr(module, name)
        functools.update_wrapper(self, self.method, updated=())  # the model's own code reads its signature
        module.__dict__[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self.method, tuple(self.arounds), args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        """What the copy of the model would have there without us: its own method."""
        if self.own is not _MISSING:
            own: Callable[..., Any] = copy.deepcopy(self.own, memo)
            return own
        module = self.module()
        return types.MethodType(getattr(type(module), self.name), copy.deepcopy(module, memo))

    def leave(self) -> None:
        """Put back what was there, unless somebody has put something else there in the meantime."""
        module = self.module()
        if module is None or module.__dict__.get(self.name) is not self:
            return
        if self.own is _MISSING:
            del module.__dict__[self.name]
        else:
            module.__dict__[self.name] = self.own

    def _call(
        self, method: Callable[..., Any], arounds: tuple[Around, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not arounds:
            return method(*args, **kwargs)

        def following(*args: Any, **kwargs: Any) -> Any:
            return self._call(method, arounds[1:], args, kwargs)

        return arounds[0](following, args, kwargs)


def stand_at(module: Any, name: str, around: Around) -> Callable[[], None]:
    """Let ``around`` run every call of ``module.name`` from now on; gives the function that ends it."""
    with _lock:
        door = module.__dict__.get(name)
        if not isinstance(door, _Door):
            door = _Door(module, name)
        door.arounds.append(around)

    def leave() -> None:
        with _lock:
            door.arounds.remove(around)
            if not door.arounds:
                door.leave()

    return leave


@contextmanager
def replayed(module: nn.Module) -> Iterator[None]:
    """Inside, ``module`` runs once more for us alone: hooks that others have put on it do not hear of it here."""
    of_all = torch.nn.modules.module
    each = [hooks for part in module.modules() for hooks in (part._forward_pre_hooks, part._forward_hooks)]
    with _lock, scope.replaying():  # one at a time: each puts back what it found
        quiet: list[tuple[dict[int, Any], int, _Quiet]] = []
        for hooks in (*each, of_all._global_forward_pre_hooks, of_all._global_forward_hooks):
            for key, hook in hooks.items():
                if not isinstance(hook, Ours):
                    hooks[key] = one = _Quiet(hook)
                    quiet.append((hooks, key, one))
        try:
            yield
        finally:
            for hooks, key, one in quiet:
                if hooks.get(key) is one:  # it may have been taken off meanwhile
                    hooks[key] = one.hook


class _Quiet:
    """A hook of somebody else, while we run its module once more: other threads are served as ever."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return None if scope.is_replaying() else self.hook(*args, **kwargs)


def _nothing(*_: Any, **__: Any) -> None:
    """What stands in place of our hooks on a copy of a model."""
