"""The arguments of an analysis, from the words of a command line."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import hf_attnviz as av


def settings(analysis: Callable[..., av.Result], given: list[str], stack: str | None) -> dict[str, Any]:
    """The arguments of an analysis, from ``NAME=VALUE``."""
    known = {name: one.default for name, one in list(inspect.signature(analysis).parameters.items())[1:]}
    found: dict[str, Any] = {} if stack is None else {"stack": stack}
    for one in given:
        name, _, text = one.partition("=")
        if name not in known:
            raise av.errors.UnknownNameError(
                f"{analysis.__name__} has no argument {name!r}; --set NAME=VALUE takes: {', '.join(known) or 'none'}"
            )
        found[name] = _value(text, known[name], one)
    return found


def _value(text: str, default: Any, whole: str) -> Any:
    """A value as JSON, else as a word; of the kind that the argument has by default."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    kinds: tuple[type, ...] = (int, float) if type(default) is float else (type(default),)
    if default is not None and type(value) not in kinds:
        raise av.errors.ArgumentError(f"expected a {kinds[-1].__name__} in --set {whole}, such as {default!r}")
    return value
