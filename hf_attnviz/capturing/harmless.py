"""A harmless input for a model that is given none: a sentence, a picture of a gradient, a short tone."""

import inspect
from typing import Any, Final

import numpy as np
import torch

from hf_attnviz.capturing.text import tokenizer_of
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text

SENTENCE: Final = "The cat sat on the mat because it was tired."
RATE: Final = 16_000  # samples a second, where no feature extractor says another rate

_KINDS: Final = {"pixel_values": "picture", "input_features": "sound", "input_values": "sound"}
_TENSORS: Final = Text(
    "give the tensors of one forward, in a file that ends in .json or .safetensors",
    "请给出一次前向的张量，文件以 .json 或 .safetensors 结尾",
)


def main_input(model: Any) -> str:
    """The name of what the model reads first."""
    main = getattr(model, "main_input_name", "input_ids")
    return str(main if isinstance(main, str) else main[0])


def harmless(model: Any, processor: Any, image_processor: Any, feature_extractor: Any) -> dict[str, Any]:
    """A text, a picture and a sound, of each as much as the model and its processor read; not what it cannot do."""
    made: dict[str, Any] = {}
    reads = {_KINDS.get(name) for name in inspect.signature(model.forward).parameters}
    if main_input(model) == "input_ids" and tokenizer_of(processor) is not None:
        made["text"] = SENTENCE
    if image_processor is not None and "picture" in reads and _setting(model, "num_frames") is None:  # no video
        made["picture"] = gradient()
    if feature_extractor is not None and "sound" in reads:
        made["sound"] = tone(int(feature_extractor.sampling_rate))
    return made


def gradient() -> Any:
    """A picture 64 wide and 48 high: red grows to the right, green downwards, and both make blue."""
    from PIL import Image

    down, right = np.mgrid[0:48, 0:64]
    colours = np.stack([right * 255 / 63, down * 255 / 47, (right + down) * 255 / 110], axis=-1)
    return Image.fromarray(colours.astype(np.uint8))


def tone(rate: int) -> Any:
    """One second of the concert pitch, 440 Hz."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)


def plain(model: Any) -> dict[str, torch.Tensor]:
    """Inputs of a model that came without tokenizer and processor, sized by its configuration.

    Raises:
        ArgumentError: the configuration does not tell what the input looks like.
    """
    main, setting = main_input(model), _setting
    if main == "input_ids":
        return {main: torch.arange(5, 15)[None] % setting(model, "vocab_size", default=100)}
    if main == "pixel_values":
        return {main: _pixels(model)}
    mels, half = setting(model, "num_mel_bins"), setting(model, "max_source_positions")
    if main == "input_features" and mels and half:
        return {main: torch.linspace(-1, 1, mels)[None, :, None].repeat(1, 1, 2 * half)}
    if main == "input_values" and not mels:
        return {main: torch.from_numpy(tone(RATE))[None]}
    raise ArgumentError(
        Text(
            f"this model reads {main!r}, for which nothing can be made up without a processor of its own; "
            f"{_TENSORS.en}",
            f"此模型读取 {main!r}，没有它自己的 processor 就无法编造输入；{_TENSORS.zh}",
        )
    )


def _pixels(model: Any) -> torch.Tensor:
    """A gradient ``[1, channel, height, width]``, for a video ``[1, frame, channel, height, width]``."""
    size = _setting(model, "image_size", default=224)
    size = (size["height"], size["width"]) if isinstance(size, dict) else size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    frames = _setting(model, "num_frames")
    before = [1] if frames is None else [1, frames]
    one = (torch.linspace(-1, 1, height)[:, None] + torch.linspace(-1, 1, width)) / 2
    return one.repeat(*before, _setting(model, "num_channels", "in_channels", "in_chans", default=3), 1, 1)


def _setting(model: Any, *names: str, default: Any = None) -> Any:
    """The first of the settings that the configuration knows, or a part of it."""
    config = getattr(model, "config", None)
    parts = [config, *(getattr(config, f"{part}_config", None) for part in ("encoder", "text", "vision", "audio"))]
    found = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in found if value is not None), default)
