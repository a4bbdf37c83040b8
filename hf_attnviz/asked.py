"""The arguments of an analysis, from the words of a command line."""

import json
from typing import Any

import hf_attnviz as av


def settings(analysis: Any, name: str, given: list[str], stack: str | None) -> dict[str, Any]:
    """The arguments of one of ``av.analyses()``, from ``NAME=VALUE``."""
    known = analysis.arguments
    found: dict[str, Any] = {}
    for one in [*given, *([] if stack is None else [f"stack={stack}"])]:
        argument, _, text = one.partition("=")
        if argument not in known:
            raise av.errors.UnknownNameError(
                f"{name} has no argument {argument!r}; --set NAME=VALUE takes: {', '.join(known) or 'none'}"
            )
        found[argument] = _value(text, known[argument], one)
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
