"""What ``generate()`` was asked for, and what it gave back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Planned:
    """What ``generate()`` was asked for.

    Attributes:
        new: how many tokens at most, or None.
        longest: how many with the prompt, or None.
        copies: how many sequences are made of each input.
        cached: whether a pass reads new tokens only.
    """

    new: int | None
    longest: int | None
    copies: int
    cached: bool

    def passes(self, prompt: int, default: int) -> int:
        """How many forwards there will be at most."""
        if self.new is not None:
            return self.new
        return default if self.longest is None else max(1, self.longest - prompt)


@dataclass(frozen=True, eq=False)
class Generated:
    """What ``generate()`` gave back.

    Attributes:
        sequences: ``[returned, length]``, prompt included for decoder-only models.
        each: how many sequences were returned for each input.
        ends, pad: ids that end a sequence, and the id that fills it up afterwards.
    """

    sequences: torch.Tensor
    each: int
    ends: tuple[int, ...]
    pad: int | None


def planned(setting: Callable[[str], Any]) -> Planned | None:
    """How much ``generate()`` is going to read, by its settings; None where they make no sense, as it will say."""
    try:
        new, longest = (_number(setting(name)) for name in ("max_new_tokens", "max_length"))
        copies = max(_number(setting(name)) or 1 for name in ("num_beams", "num_return_sequences"))
    except (TypeError, ValueError):
        return None
    return Planned(new, longest, copies, setting("use_cache") is not False)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
