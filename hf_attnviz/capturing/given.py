"""What a call was given: what it reads, by its arguments, and what ``generate()`` will do with them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing.positions import media_of
from hf_attnviz.capturing.runs import Side
from hf_attnviz.capturing.scope import Session


def spread(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments, and what stands in those that are dictionaries: a model may read a whole batch as one."""
    inside = {name: part for value in given.values() if isinstance(value, Mapping) for name, part in value.items()}
    return {str(name): part for name, part in inside.items()} | given


def side_of(given: dict[str, Any]) -> Side:
    """What a call reads, by its arguments."""
    ids, embedded, cache = matrix(given.get("input_ids")), given.get("inputs_embeds"), given.get("past_key_values")
    new = None if ids is None else ids.shape[1]
    if ids is None and isinstance(embedded, torch.Tensor) and embedded.dim() == 3:
        new = embedded.shape[1]
    length = getattr(cache, "get_seq_length", None)
    past = int(length()) if length is not None else 0
    types = given.get("token_type_ids")
    if isinstance(types, torch.Tensor) and types.dim() == 3:
        types = types[..., 0]  # TAPAS: segment, column, row …
    return Side(ids, matrix(given.get("attention_mask")), past, new, cache is not None, matrix(types))


def note_media(session: Session, given: dict[str, Any]) -> None:
    """Pictures and sound that a forward is given; ``generate()`` has told already what its forwards get."""
    media = media_of(given)
    if media and session.depth == 1:
        session.run.media.append(media)


def note_prompt(model: nn.Module, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Pictures and sound that ``generate()`` is given, and how many beams it follows."""
    session.run.beams = int(settings(model, args, kwargs)("num_beams") or 1)
    main = getattr(model, "main_input_name", "inputs")
    prompt = args[0] if args else kwargs.get("inputs")
    media = media_of(({main: prompt} if isinstance(main, str) else {}) | kwargs)
    session.run.media += [media] if media else []


def settings(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[str], Any]:
    """What ``generate()`` will use: its arguments, then the configuration given, then the model's own."""
    given = kwargs.get("generation_config") or (args[1] if len(args) > 1 else None)
    configs = [config for config in (given, getattr(model, "generation_config", None)) if config is not None]

    def setting(name: str) -> Any:
        found = [kwargs.get(name), *(getattr(config, name, None) for config in configs)]
        return next((value for value in found if value is not None), None)

    return setting


def matrix(value: Any) -> torch.Tensor | None:
    """A tensor of two axes; None for all else."""
    return value.detach() if isinstance(value, torch.Tensor) and value.dim() == 2 else None


def first_number(value: Any) -> int | None:
    """The number, or the first of several; None where there is none."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return None if value is None else int(value)
