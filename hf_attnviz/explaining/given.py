"""What a model is given, made fit to be explained: one example, no padding, tokens or a picture."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.pipeline import model_of, processor_of
from hf_attnviz.capturing.text import can_generate, decoder_start, encode, on_device
from hf_attnviz.capturing.wrappers import refuse_compiled, unwrapped
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.explaining.target import Target, text_config
from hf_attnviz.language import Text

_READ: Final = ("input_ids", "pixel_values")

F = TypeVar("F", bound=Callable[..., Any])


def with_gradients(function: F) -> F:
    """A function that takes gradients, whatever its caller stands in: ``no_grad``, ``inference_mode``, a recording."""
    inside: F = scope.alone()(torch.inference_mode(False)(torch.enable_grad()(function)))
    return inside


def opened(model: Any, processor: Any) -> tuple[nn.Module, Any]:
    """The model inside a pipeline or a wrapper, fit to be explained, and the tokenizer or processor that reads for it.

    Raises:
        ArgumentError: it is in training mode.
        CaptureError: it is compiled.
    """
    module = unwrapped(model_of(model))
    refuse_compiled(module)
    _refuse_training(module)
    return module, processor if processor is not None else processor_of(model)


def _refuse_training(model: nn.Module) -> None:
    if any(part.training for part in model.modules()):
        raise ArgumentError(
            Text(
                f"{type(model).__name__} is in training mode, where dropout makes every answer another; call "
                "model.eval()",
                f"{type(model).__name__} 处于训练模式，dropout 使每次结果不同；请调用 model.eval()",
            )
        )


def explained(inputs: Mapping[str, Any]) -> str:
    found = [name for name in _READ if isinstance(inputs.get(name), Tensor)]
    if len(found) == 1:
        return found[0]
    came = Text("both; a picture inside a text is explained by one tower at a time", "两者；文本中的图片请逐个塔地解释")
    came = came if found else Text(listed(inputs), listed(inputs, "无"))
    raise ArgumentError(
        Text(
            f"expected token ids (input_ids) or a picture (pixel_values) among the inputs; got {came.en}",
            f"输入中应有词元编号（input_ids）或图片（pixel_values）；得到的是{came.zh}",
        )
    )


def one_example(model: Any, processor: Any, inputs: str | Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of one example, fit to be explained."""
    if isinstance(inputs, str):
        given = encode(model, processor, inputs)
    elif isinstance(inputs, Mapping):
        given = on_device({name: value for name, value in inputs.items() if value is not None}, model)
    else:
        raise ArgumentError(
            Text(
                f"expected a text or the model's inputs (a dict of tensors), got {type(inputs).__name__}",
                f"应为文本或模型的输入（张量的字典），得到的是 {type(inputs).__name__}",
            )
        )
    given.pop("labels", None)
    sizes = {name: _size(name, given[name]) for name in _READ if name in given}
    if any(size != 1 for size in sizes.values()):
        raise ArgumentError(
            Text(
                f"expected one example, got batches of {sizes}; explain one at a time",
                f"应为一个样本，得到的 batch 为 {sizes}；请逐个解释",
            )
        )
    given = {name: value.clone() if isinstance(value, Tensor) else value for name, value in given.items()}
    if "input_ids" in given and can_generate(model) and not {"decoder_input_ids", "decoder_inputs_embeds"} & set(given):
        given |= decoder_start(model)  # a classifier with a decoder makes what that reads of the text itself
    given = _without_padding(given)
    if isinstance(given.get("input_ids"), Tensor) and not given["input_ids"].numel():
        raise ArgumentError(
            Text(
                "the text is empty, or padding from end to end; expected at least one token",
                "文本是空的，或从头到尾都是填充；应至少有一个词元",
            )
        )
    return given


def _size(name: str, value: Any) -> int:
    """How many examples there are."""
    axes, kinds = ("[1, position]", (torch.long, torch.int)) if name == "input_ids" else ("[1, …]", None)
    fits = isinstance(value, Tensor) and value.dim() >= 2 and (kinds is None or value.dtype in kinds)
    if not fits:
        came = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise ArgumentError(
            Text(
                f"expected {name} {axes}, a tensor{' of ids' if kinds else ''}; got {came}",
                f"{name} 应为 {axes} 的张量{'，内容为编号' if kinds else ''}；得到 {came}",
            )
        )
    return len(value)


def _without_padding(given: dict[str, Any]) -> dict[str, Any]:
    ids, mask = given.get("input_ids"), given.get("attention_mask")
    if ids is None or not isinstance(mask, Tensor) or mask.shape != ids.shape or bool(mask.all()):
        return given
    return shortened(given, mask[0].bool().nonzero().flatten())


def shortened(given: Mapping[str, Any], kept: Tensor) -> dict[str, Any]:
    """The inputs of a text of which only the positions ``kept`` are left; what counts positions counts them anew."""
    kept = kept.to(given["input_ids"].device)
    count = torch.arange(len(kept), device=kept.device)
    follow = of_positions(given)
    return {**given} | {name: given[name][:, count if name == "position_ids" else kept] for name in follow}


def of_positions(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The inputs that have an entry for each position of the text: those that follow when a token goes."""
    shape = given["input_ids"].shape
    return tuple(
        name
        for name, value in given.items()
        if isinstance(value, Tensor)
        and value.shape[:2] == shape
        and not name.startswith("decoder_")
        and (not value.is_floating_point() or name == "attention_mask")  # a picture may have as many channels
    )


def reads_alone(model: nn.Module, inputs: Mapping[str, Any], target: Target) -> bool:
    """Whether the model reads one text at a time only: its inputs say so, or it looks for the end of each text by a
    padding token that it does not have, and refuses a batch of two."""
    if any(len(value) != 1 for value in inputs.values() if isinstance(value, Tensor) and value.dim()):
        return True
    text = text_config(getattr(model, "config", None))
    if target.position is not None or getattr(text, "pad_token_id", None) is not None:
        return False
    try:
        with torch.no_grad():
            model(**copies(inputs, 2))
    except ValueError:
        return True
    return False


def copies(inputs: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Every tensor of one example, ``rows`` times."""
    return {
        name: value.repeat(rows, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) and value.dim() else value
        for name, value in inputs.items()
    }
