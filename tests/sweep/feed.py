"""Inputs for any model, by the names of what its forward reads, filled from its configuration."""

import inspect
from collections.abc import Callable
from typing import Any, Final

import torch

from tests.sweep.shrink import FIRST_SPECIAL

LENGTH: Final = 12


def feed(model: Any) -> dict[str, Any]:
    """The keyword arguments of one forward pass."""
    names = list(inspect.signature(model.forward).parameters)
    required = [
        name for name, one in inspect.signature(model.forward).parameters.items()
        if one.default is inspect.Parameter.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]  # fmt: skip
    main = getattr(model, "main_input_name", "input_ids")
    wanted = dict.fromkeys([name for name in (main, *required) if name in names or name == main])
    for name in ("input_ids", "pixel_values", "input_features", "input_values"):
        if name in names and (
            name == main or name != "input_ids" or "decoder_input_ids" not in names or main == "input_ids"
        ):
            wanted[name] = None
    if "decoder_input_ids" in names and model.config.is_encoder_decoder:
        wanted["decoder_input_ids"] = None
    made = {name: _MAKERS[name](model) for name in wanted if name in _MAKERS}
    if "input_ids" in made and "attention_mask" in names:
        made["attention_mask"] = torch.ones_like(made["input_ids"])
    return made


def words(model: Any, length: int = LENGTH) -> torch.Tensor:
    """Random tokens, none of them special."""
    return torch.randint(5, FIRST_SPECIAL, (1, length))


def number(config: Any, *names: str, default: Any = None) -> Any:
    """The first of the names that the configuration, or its vision or audio part, knows."""
    parts = [
        config,
        *(getattr(config, part, None) for part in ("vision_config", "audio_config", "backbone_config", "text_config")),
    ]
    for part in parts:
        for name in names:
            value = getattr(part, name, None)
            if value is not None and not isinstance(value, str):
                return value
    return default


def pixels(model: Any) -> torch.Tensor:
    """One random image ``[1, channel, height, width]``."""
    size = number(model.config, "image_size", default=32)
    size = size.get("height", 32) if isinstance(size, dict) else size
    height, width = (size if isinstance(size, (list, tuple)) else (size, size))[-2:]
    return torch.randn(1, number(model.config, "num_channels", "in_channels", "in_chans", default=3), height, width)


def video(model: Any) -> torch.Tensor:
    """One random video ``[1, frame, channel, height, width]``."""
    frames = number(model.config, "num_frames", "frames", default=4)
    image = pixels(model)
    return torch.randn(1, frames, *image.shape[1:])


def mels(model: Any) -> torch.Tensor:
    """One random spectrogram ``[1, mel, frame]``."""
    bins = number(model.config, "num_mel_bins", "feature_size", "input_feat_per_channel", default=80)
    positions = number(model.config, "max_source_positions", default=32)
    return torch.randn(1, bins, 2 * positions if positions <= 256 else 64)


def sound(model: Any) -> torch.Tensor:
    """A short random wave ``[1, sample]``."""
    return torch.randn(1, 4000)


_MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "input_ids": words,
    "decoder_input_ids": lambda model: words(model, 7),
    "pixel_values": pixels,
    "pixel_values_videos": video,
    "input_features": mels,
    "input_values": sound,
    "grid_thw": lambda model: torch.tensor([[1, 4, 4]]),
    "hidden_states": lambda model: torch.randn(1, LENGTH, number(model.config, "hidden_size", "d_model", default=64)),
    "inputs_embeds": lambda model: torch.randn(1, LENGTH, number(model.config, "hidden_size", "d_model", default=64)),
}
