"""What is captured of a pipeline, and what its other parts tell about the keys.

A transformers pipeline has one model. A pipeline of diffusers has parts, and the one that paints attends to what the
text encoders have read: a row of hidden states that comes out of one of them is known again by its bits, whatever
the pipeline has stacked in between (the empty prompt of guidance, copies for several images).
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing.address import named_arguments
from hf_attnviz.capturing.families import PAINTERS, READERS
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text

_REMEMBERED = 8  # calls of text encoders; one generation makes two or four


def model_of(target: Any) -> nn.Module:
    """The module to capture: the target itself, a pipeline's model, or the part of a pipeline that paints.

    Raises:
        ArgumentError: there is none; the message names the parts that could be captured.
    """
    if isinstance(target, nn.Module):
        return target
    for name in ("model", *PAINTERS):
        part = getattr(target, name, None)
        if isinstance(part, nn.Module):
            return part
    parts = [name for name, part in vars(target).items() if isinstance(part, nn.Module)] if _has_parts(target) else []
    raise ArgumentError(
        Text(
            f"expected a torch module, a transformers model or a pipeline with a model; got {type(target).__name__}"
            + (
                f", which has the parts {listed(parts)}: capture one of them, av.capture(pipe.{parts[0]})"
                if parts
                else ""
            ),
            f"应为 torch 模块、transformers 模型或带有模型的 pipeline；得到的是 {type(target).__name__}"
            + (f"，它有这些部分：{listed(parts)}：请捕获其一，如 av.capture(pipe.{parts[0]})" if parts else ""),
        )
    )


def processor_of(target: Any) -> Any:
    """What a pipeline, or a module with a tokenizer of its own, brings to make labels of; else None."""
    if isinstance(target, nn.Module):
        own = getattr(target, "tokenizer", None)
        return own if hasattr(own, "convert_ids_to_tokens") else None
    processor, parts = getattr(target, "processor", None), ("tokenizer", "feature_extractor", "image_processor")
    given = {name: getattr(target, name, None) for name in parts}
    if processor is not None or (given["feature_extractor"] is None and given["image_processor"] is None):
        return processor or given["tokenizer"]
    return SimpleNamespace(**given)  # a pipeline may hold them apart


def readers_of(target: Any) -> Sequence[nn.Module]:
    """The text encoders of a pipeline that paints."""
    if isinstance(target, nn.Module):
        return ()
    parts = [getattr(target, name, None) for name in READERS]
    return [part for part in parts if isinstance(part, nn.Module)]


class TextsRead:
    """The token ids that text encoders have read lately, and the hidden states that they made of them."""

    def __init__(self) -> None:
        self._calls: list[tuple[torch.Tensor, list[torch.Tensor]]] = []

    def note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A forward hook on a text encoder."""
        ids = named_arguments(module, args, kwargs).get("input_ids")
        if isinstance(ids, torch.Tensor) and ids.dim() == 2:
            states = [state.detach() for state in _states(output) if state.shape[:2] == ids.shape]
            self._calls = [*self._calls, (ids.detach().cpu(), states)][-_REMEMBERED:]

    def ids_of(self, hidden: Any) -> torch.Tensor | None:
        """The ids ``[batch, position]`` behind hidden states ``[batch, position, size]``; -1 where a row is unknown (an
        empty prompt may be all zeros), None where all are."""
        if not isinstance(hidden, torch.Tensor) or hidden.dim() != 3:
            return None
        rows = [self._row(row) for row in hidden.detach()]
        unknown = torch.full(hidden.shape[1:2], -1)
        return (
            torch.stack([unknown if row is None else row for row in rows]) if any(r is not None for r in rows) else None
        )

    def _row(self, row: torch.Tensor) -> torch.Tensor | None:
        for ids, states in reversed(self._calls):
            for state in states:
                if state.shape[1] != row.shape[0] or state.shape[2] > row.shape[1]:
                    continue
                for own, known in zip(ids, state, strict=True):
                    if torch.equal(known.to(row), row[:, : known.shape[1]]):
                        found: torch.Tensor = own
                        return found
        return None


def _has_parts(target: Any) -> bool:
    return hasattr(target, "__dict__") and not isinstance(target, type)


def _states(value: Any) -> list[torch.Tensor]:
    """Every tensor ``[batch, position, size]`` in an output."""
    if isinstance(value, torch.Tensor):
        return [value] if value.dim() == 3 else []
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [state for part in parts for state in _states(part)]
