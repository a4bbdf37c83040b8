"""Doors: a method of one object, wrapped while somebody listens, and exactly as it was afterwards.

Several recordings may stand at one door and leave it in any order: the method is wrapped once, and the wrapper asks
whoever stands there. A wrapper runs under ``try``/``finally``, so that an interrupt, too, is noticed.
"""

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Runs a call: gets the next in line, the arguments by place and by name; gives the result."""

_MISSING = object()
_lock = threading.RLock()
_doors: "weakref.WeakKeyDictionary[Any, dict[str, _Door]]" = weakref.WeakKeyDictionary()


class _Door:
    def __init__(self, module: Any, name: str) -> None:
        self.own = module.__dict__.get(name, _MISSING)
        self.arounds: list[Around] = []
        method = getattr(module, name)

        @functools.wraps(method)
        def through(*args: Any, **kwargs: Any) -> Any:
            return self._call(method, tuple(self.arounds), args, kwargs)

        module.__dict__[name] = through

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
        doors = _doors.setdefault(module, {})
        if name not in doors:
            doors[name] = _Door(module, name)
        doors[name].arounds.append(around)

    def leave() -> None:
        with _lock:
            door = doors[name]
            door.arounds.remove(around)
            if door.arounds:
                return
            del doors[name]
            if door.own is _MISSING:
                del module.__dict__[name]
            else:
                module.__dict__[name] = door.own

    return leave
