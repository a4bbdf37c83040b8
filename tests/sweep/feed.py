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
    main = main if isinstance(main, str) else main[0]
    wanted = dict.fromkeys([name for name in (main, *required) if name in names or name == main])
    for name in ("input_ids", "pixel_values", "input_features", "input_values"):
        if name in names and (
            name == main or name != "input_ids" or "decoder_input_ids" not in names or main == "input_ids"
        ):
            wanted[name] = None
    if "decoder_input_ids" in names and model.config.is_encoder_decoder:
        wanted["decoder_input_ids"] = None
    made = {name: _MAKERS[name](model) for name in wanted if name in _MAKERS}
    for prefix, suffix in (("", ""), ("image_", ""), ("video_", "_videos")):
        if f"{prefix}grid_thw" in names:
            read = [name for name in (f"pixel_values{suffix}", "hidden_states") if name in names]
            made |= patches(model, read[0], f"{prefix}grid_thw") if read else {}
    if "input_ids" in made and "attention_mask" in names:
        made["attention_mask"] = torch.ones_like(made["input_ids"])
    return made


def patches(model: Any, name: str, grid_name: str, grid: tuple[int, int, int] = (1, 4, 4)) -> dict[str, Any]:
    """An image or a video cut into patches ``[patch, value]``, and how many there are along time, height and width."""
    side = number(model.config, "patch_size", default=8)
    values = number(model.config, "in_channels", "num_channels", "in_chans", default=3)
    values *= number(model.config, "temporal_patch_size", "patch_temporal", default=1) * side * side
    return {name: torch.randn(grid[0] * grid[1] * grid[2], values), grid_name: torch.tensor([grid])}


_KINDS: Final = {
    "image": ("pixel_values", 1), "video": ("pixel_values_videos", 2), "audio": ("input_features|input_values", 3),
}  # fmt: skip


def complete(model: Any, made: dict[str, Any]) -> dict[str, Any]:
    """The same inputs with as many placeholders among the words as the model's towers make of what they read."""
    names = inspect.signature(model.forward).parameters
    ids = made.get("input_ids")
    if ids is None:
        return made
    spread = torch.zeros_like(ids)
    for kind, (sources, mark) in _KINDS.items():
        name = f"get_{kind}_features"
        tower = next((getattr(part, name) for part in model.modules() if hasattr(part, name)), None)
        token = number(model.config, f"{kind}_token_id", f"{kind}_token_index")
        if tower is None or token is None or not set(sources.split("|")) & set(made) or bool((ids == token).any()):
            continue
        count = features(tower, made)
        own = "audio" if kind == "audio" else "vision"
        ends = (number(model.config, f"{own}_{which}_token_id") for which in ("start", "end"))
        start, end = ([] if one is None else [one] for one in ends)
        ids = torch.cat([ids[:, :3], torch.tensor([start + [token] * count + end]), ids[:, 3:]], 1)
        marks = [0] * len(start) + [mark] * count + [0] * len(end)
        spread = torch.cat([spread[:, :3], torch.tensor([marks]), spread[:, 3:]], 1)
    made["input_ids"] = ids
    if "attention_mask" in made and made["attention_mask"].shape[-1] != ids.shape[-1]:
        made["attention_mask"] = torch.ones_like(ids)
    for name in ("mm_token_type_ids", "token_type_ids"):
        if (name in names or name in made) and bool(spread.any()) and made.get(name) is None:
            made[name] = spread if name[0] == "m" else spread.clamp(max=1)
    return made


def features(tower: Callable[..., Any], made: dict[str, Any]) -> int:
    """How many places among the words the features of one tower take."""
    wanted = inspect.signature(tower).parameters
    with torch.no_grad():
        found = tower(**{name: value for name, value in made.items() if name in wanted})
    if not isinstance(found, (torch.Tensor, list, tuple)):
        found = found.last_hidden_state if found.pooler_output is None else found.pooler_output
    return sum(one.numel() // one.shape[-1] for one in ([found] if isinstance(found, torch.Tensor) else found))


def words(model: Any, length: int = LENGTH) -> torch.Tensor:
    """Random tokens, none of them special."""
    return torch.randint(5, FIRST_SPECIAL, (1, length))


def number(config: Any, *names: str, default: Any = None) -> Any:
    """The first of the names that the configuration, or its vision or audio part, knows."""
    whole = getattr(config, "vlm_config", None) or config
    parts = [config, whole]
    parts += [
        getattr(whole, part, None) for part in ("vision_config", "audio_config", "backbone_config", "text_config")
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
