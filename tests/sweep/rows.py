"""Short ways to say in a row how a configuration is made and what a model reads."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig

Feed = Callable[[Any, dict[str, Any]], dict[str, Any]]


def of(key: str, **values: Any) -> Callable[[], PreTrainedConfig]:
    """A maker: the configuration of a type with some values given; what can be called is called then."""
    return lambda: CONFIG_MAPPING[key](**{name: one() if callable(one) else one for name, one in values.items()})


def normal(*shape: int) -> Callable[[Any], torch.Tensor]:
    """Random numbers, drawn when the inputs are made."""
    return lambda model: torch.randn(shape)


def tokens(*shape: int, below: int = 128) -> Callable[[Any], torch.Tensor]:
    """Random tokens, drawn when the inputs are made."""
    return lambda model: torch.randint(0, below, shape)


def ones(*shape: int, dtype: torch.dtype = torch.long) -> Callable[[Any], torch.Tensor]:
    """A mask that hides nothing."""
    return lambda model: torch.ones(shape, dtype=dtype)


def adding(**more: Any) -> Feed:
    """These inputs besides those that were made; what can be called is called with the model."""
    return lambda model, made: made | {name: one(model) if callable(one) else one for name, one in more.items()}


def only(**inputs: Any) -> Feed:
    """These inputs in place of those that were made."""
    return lambda model, made: adding(**inputs)(model, {})


def boxes(model: Any) -> torch.Tensor:
    """A box for each of the twelve words ``[1, 12, 4]``: left, top, right, bottom."""
    corner = torch.randint(0, 100, (1, 12, 2))
    return torch.cat([corner, corner + torch.randint(1, 100, (1, 12, 2))], dim=-1)


def mels(frames: int, bins: int, **more: Any) -> Feed:
    """A spectrogram ``[1, frame, mel]`` in place of ``[1, mel, frame]``, and what else."""
    return adding(input_features=normal(1, frames, bins), **more)


def wave(samples: int) -> Feed:
    """A sound ``[1, channel, sample]``."""
    return adding(input_values=normal(1, 1, samples))


def image(height: int, width: int, channels: int = 3, frames: int = 0) -> Feed:
    """An image ``[1, channel, height, width]``, or a video ``[1, frame, channel, height, width]``."""
    return adding(pixel_values=normal(1, *([frames] if frames else []), channels, height, width))
