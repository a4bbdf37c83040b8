"""What a model reads, made of what a user has: a text, a picture, a sound, a file of tensors, or nothing at all."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from hf_attnviz.capturing.harmless import RATE, SENTENCE, harmless, main_input, plain
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.reducers import Keep
from hf_attnviz.capturing.text import encode, on_device, read, tokenizer_of
from hf_attnviz.errors import ArgumentError, AttnvizError, ModelError, listed
from hf_attnviz.language import Text
from hf_attnviz.trace import Trace

Given = Mapping[str, Any] | str | Path | Sequence[str | Path] | None

PICTURES: Final = (".png", ".jpg", ".jpeg")
SOUNDS: Final = (".wav",)
TENSORS: Final = (".json", ".safetensors")
NEW_TOKENS: Final = 8
_KINDS: Final = {"text": "文本", "picture": "图片", "sound": "声音"}


def trace_input(
    target: Any,
    given: Given,
    *,
    processor: Any = None,
    generate: bool | None = None,
    max_new_tokens: int = 24,
    keep: Keep = "maps",
    layers: Sequence[int] | None = None,
    max_memory: int | str | None = None,
) -> Trace:
    """Read a picture, a sound, a text, or several of them together with a model and give the trace of it.

    Args:
        target: a model, a pipeline, or what :func:`hf_attnviz.load_model` gives.
        given: a text, the path of a picture (png, jpg), of a sound (wav) or of named tensors (json, safetensors: the
            arguments of one forward), a list of such, or a mapping of named tensors.
        processor: what makes the model's inputs of it; default: the one that ``target`` brings.
        generate, max_new_tokens, keep, layers, max_memory: as in :func:`hf_attnviz.trace_text`.

    Raises:
        ArgumentError: nothing that this model reads can be made of it, or it gives several traces, as a batch does.
        ModelError: its processor fails on it.
        CaptureError: attention could not be captured and proved.
    """
    recording = Recording(target, processor, keep=keep, layers=layers, max_memory=max_memory)
    run, _ = run_of(recording.model, given, recording.processor, generate=generate, max_new_tokens=max_new_tokens)
    with recording, torch.no_grad():
        run()
    return recording.trace


def run_of(
    model: Any, given: Given, processor: Any, *, generate: bool | None = None, max_new_tokens: int = NEW_TOKENS
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """The run of a model on what a user gave, and the inputs that it reads.

    Tensors are the arguments of one forward; all else is read as the model is used, with ``generate()`` where it can.

    Raises:
        ArgumentError: nothing that this model reads can be made of it.
        ModelError: its processor fails on it.
    """
    several = [given] if isinstance(given, (str, Path)) else given
    if isinstance(several, Sequence) and len(several) == 1 and _suffix(several[0]) in TENSORS:
        several = _tensors(Path(several[0]), model)
    if isinstance(several, Mapping):
        inputs = dict(several)
        return (lambda: model(**inputs)), inputs
    parts = _parts(several or (), processor)
    try:
        inputs = _prepared(model, processor, parts)
    except AttnvizError:
        raise
    except Exception as error:
        raise ModelError(
            Text(
                f"the {type(processor).__name__} of this model could not prepare its input; give the tensors of one "
                f"forward, in a file that ends in {listed(TENSORS)} ({type(error).__name__}: {error})",
                f"此模型的 {type(processor).__name__} 无法准备它的输入；请给出一次前向的张量，文件以 {listed(TENSORS)} "
                f"结尾（{type(error).__name__}: {error}）",
            )
        ) from error
    return (lambda: read(model, inputs, generate=generate, max_new_tokens=max_new_tokens)), inputs


# ---- files


def _suffix(one: str | Path) -> str:
    return one.suffix.lower() if isinstance(one, Path) else ""


def _parts(several: Sequence[str | Path], processor: Any) -> dict[str, Any]:
    """What each of the things given is: ``text``, ``picture`` or ``sound``."""
    found: dict[str, Any] = {}
    for one in several:
        kind, value = ("text", one) if isinstance(one, str) else _file(one, _rate(processor))
        if kind in found:
            raise ArgumentError(
                Text(
                    f"expected one {kind}, got two; give one text, one picture and one sound at most",
                    f"应为一份{_KINDS[kind]}，得到两份；文本、图片、声音请各给至多一份",
                )
            )
        found[kind] = value
    return found


def _file(path: Path, rate: int) -> tuple[str, Any]:
    suffix, known = _suffix(path), (*PICTURES, *SOUNDS, *TENSORS, ".txt")
    if not path.is_file():
        raise ArgumentError(
            Text(
                f"there is no file {str(path)!r}; give one that ends in {listed(known)}, or a text",
                f"没有文件 {str(path)!r}；请给出以 {listed(known)} 结尾的文件，或一段文本",
            )
        )
    try:
        if suffix in PICTURES:
            return "picture", _picture(path)
        if suffix in SOUNDS:
            return "sound", _sound(path, rate)
        if suffix == ".txt":
            return "text", path.read_text(encoding="utf-8")
    except Exception as error:  # a damaged file, or one made to do harm, raises whatever its reader thinks of
        raise ArgumentError(
            Text(f"{str(path)!r} could not be read: {error}", f"{str(path)!r} 无法读取：{error}")
        ) from error
    if suffix in TENSORS:
        raise ArgumentError(
            Text(
                f"{str(path)!r} holds every input of the model; give it alone",
                f"{str(path)!r} 含有模型的全部输入；请单独给它",
            )
        )
    raise ArgumentError(
        Text(
            f"{str(path)!r} is none of the files that can be read; they end in {listed(known)}",
            f"{str(path)!r} 不是可读的文件；可读文件以 {listed(known)} 结尾",
        )
    )


def _picture(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _sound(path: Path, rate: int) -> Any:
    """The samples of a wav file between -1 and 1, its channels mixed, at another rate where need be."""
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    own, samples = wavfile.read(path)
    if samples.dtype.kind in "iu":  # 8 bits are unsigned and lie around 128
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = (samples - (half if samples.dtype.kind == "u" else 0)) / half
    wave = samples.reshape(len(samples), -1).mean(axis=1)
    common = math.gcd(own, rate)
    return (wave if own == rate else resample_poly(wave, rate // common, own // common)).astype(np.float32)


def _tensors(path: Path, model: Any) -> dict[str, Any]:
    """The named tensors of a file; of JSON, each list of numbers is one, and all else stays what it is."""
    from safetensors.torch import load

    try:
        if _suffix(path) == ".safetensors":
            return {name: one.to(getattr(model, "device", "cpu")) for name, one in load(path.read_bytes()).items()}
        named = json.loads(path.read_text(encoding="utf-8"))
        tensors = {name: torch.tensor(one) if isinstance(one, list) else one for name, one in named.items()}
    except Exception as error:  # safetensors has an error of its own
        raise ArgumentError(
            Text(
                f"{str(path)!r} holds no named tensors; expected a list of numbers for each input of the model: "
                f"{error}",
                f"{str(path)!r} 中没有具名张量；应为模型的每个输入各有一个数字列表：{error}",
            )
        ) from error
    return on_device(tensors, model)


# ---- what the model's own processor makes of them


def _prepared(model: Any, processor: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """The inputs made of a text, a picture and a sound; of nothing, those of a harmless input."""
    readers = [_reader(processor, name) for name in ("image_processor", "feature_extractor")]
    parts = parts or harmless(model, processor, *readers)
    if not parts:
        return on_device(plain(model), model)
    if set(parts) == {"text"}:
        return encode(model, processor, parts["text"])
    image, sound = parts.get("picture"), parts.get("sound")
    missing = [kind for kind, reader in zip(("picture", "sound"), readers, strict=True) if kind in parts and not reader]
    if missing:
        raise ArgumentError(
            Text(
                f"this model came with nothing that reads a {missing[0]}; give it what it reads",
                f"此模型没有附带能读{_KINDS[missing[0]]}的东西；请给它能读的输入",
            )
        )
    if "text" in parts or main_input(model) == "input_ids":
        made = _together(processor, parts.get("text", SENTENCE), image, sound)
    elif image is not None:
        made = readers[0](images=image, return_tensors="pt")
    else:
        made = readers[1](sound, sampling_rate=_rate(processor), return_tensors="pt")
    return on_device(made, model)


def _together(processor: Any, text: str, image: Any, sound: Any) -> Any:
    """Words beside a picture or a sound, by the model's own chat template where it has one."""
    if tokenizer_of(processor) is None:
        raise ArgumentError(
            Text(
                "this model came without a tokenizer; give a picture or a sound without words",
                "此模型没有附带分词器；请给出图片或声音，不要文字",
            )
        )
    media = {name: value for name, value in (("image", image), ("audio", sound)) if value is not None}
    if getattr(processor, "chat_template", None):
        content = [*({"type": name, name: value} for name, value in media.items()), {"type": "text", "text": text}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
    places = "".join(str(getattr(processor, f"{name}_token", None) or "") for name in media)
    named = {"images" if name == "image" else name: value for name, value in media.items()}
    rate = {} if sound is None else {"sampling_rate": _rate(processor)}
    return processor(text=places + text, **named, **rate, return_tensors="pt")


def _reader(processor: Any, name: str) -> Any:
    """The image processor or the feature extractor: a part of the processor, or the processor itself; else None."""
    from transformers.feature_extraction_utils import FeatureExtractionMixin
    from transformers.image_processing_base import ImageProcessingMixin

    kind = {"image_processor": ImageProcessingMixin, "feature_extractor": FeatureExtractionMixin}[name]
    return processor if isinstance(processor, kind) else getattr(processor, name, None)


def _rate(processor: Any) -> int:
    return int(getattr(_reader(processor, "feature_extractor"), "sampling_rate", RATE))
