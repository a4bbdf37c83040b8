"""One prediction of a model on one text: what was read, what is explained, and where in the text it is read off."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.text import can_generate, tokenizer_of
from hf_attnviz.errors import ArgumentError, CaptureError, listed
from hf_attnviz.explaining.given import one_example, opened, reads_alone
from hf_attnviz.explaining.target import Target, TargetLike, is_two_sided, meant
from hf_attnviz.labels import Labels, label_tokens
from hf_attnviz.language import Text, told
from hf_attnviz.trace import Trace


@dataclass(frozen=True, eq=False)
class Prediction:
    """One scalar that a model gave for one text.

    Attributes:
        model, processor: what ran, and the tokenizer or processor that reads for it (or None).
        inputs: what the model was given, batch of one, padding left out, on the model's device.
        target: the scalar.
        probability: its probability; for a function of the user's own, the scalar itself.
        trace: the attention of this very pass; None where it could not be captured.
        unseen: why it could not.
        rows: the rows of the last layer (of cross-attention, in an encoder-decoder) at which the prediction is read
            off; empty: all of them.
        causal: whether positions after ``row`` cannot matter.
    """

    model: Any
    processor: Any
    inputs: dict[str, Any]
    target: Target
    probability: float
    trace: Trace | None
    unseen: Text | None
    rows: tuple[int, ...]
    causal: bool

    @property
    def ids(self) -> torch.Tensor:
        """The token ids ``[position]`` of the text that is explained: the source, in an encoder-decoder."""
        found: torch.Tensor = self.inputs["input_ids"][0]
        return found

    @property
    def row(self) -> int | None:
        """The position of the text at which the prediction is read; None where it is read off several, or beyond it."""
        return self.rows[0] if len(self.rows) == 1 and not self.two_sided else None

    @property
    def two_sided(self) -> bool:
        """Whether the text is read by an encoder and the prediction made by a decoder."""
        return is_two_sided(self.model)

    @cached_property
    def alone(self) -> bool:
        """Whether the model reads one text at a time only."""
        return reads_alone(self.model, self.inputs, self.target)

    def labels(self) -> Labels:
        """What stands at each position of the text."""
        return label_tokens(self.ids.tolist(), tokenizer_of(self.processor))


def predicted(model: Any, inputs: str | Mapping[str, Any], *, target: TargetLike, processor: Any = None) -> Prediction:
    """Run a model once on one text, its attention captured, and find what is to be explained.

    Args:
        model: a model, a pipeline, or what :func:`hf_attnviz.load_model` gives.
        inputs: a text, or the model's inputs for one: a dict of tensors, batch of one.
        target: see :func:`hf_attnviz.explaining.target.resolved`; its positions count without padding. Where the
            text has a ``[MASK]``, that is read by default, else the last position.

    Raises:
        ArgumentError: a model in training mode, no text, more than one, or a target that is not there.
    """
    module, reads = opened(model, processor)
    given = _one_text(module, reads, inputs)
    outputs, trace, unseen = run_seen(module, reads, given, lambda recording: recording.trace)
    causal = _is_causal(module, trace)
    found = meant(target, outputs, model=module, processor=reads, ids=given["input_ids"][0])
    with torch.no_grad():
        probability = float(found.probability(outputs)[0])
    rows = _rows(found, module, reads, given["input_ids"][0], causal)
    return Prediction(module, reads, given, found, probability, trace, unseen, rows, causal)


def _one_text(model: Any, processor: Any, inputs: str | Mapping[str, Any]) -> dict[str, Any]:
    """The model's inputs for one text, of which tokens can be taken out."""
    given = one_example(model, processor, inputs)
    ids, mask = given.get("input_ids"), given.get("attention_mask")
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or not ids.shape[1]:
        raise ArgumentError(
            Text(
                "expected input_ids [1, position] among the inputs: tokens are taken out of a text, and of nothing "
                f"else; got {listed(given)}",
                f"输入中应有 input_ids [1, position]：只能从文本中移除词元；得到的是 {listed(given, '无')}",
            )
        )
    if "past_key_values" in given or "encoder_outputs" in given:
        raise ArgumentError(
            Text(
                "what was read before is in a cache, where nothing can be taken out; give the whole text",
                "先前读过的内容在缓存中，无法从中移除；请给出整段文本",
            )
        )
    if isinstance(mask, torch.Tensor) and mask.shape != ids.shape:
        raise ArgumentError(
            Text(
                f"expected an attention_mask {tuple(ids.shape)}, got {tuple(mask.shape)}: of a mask from each position "
                "to each, no token can be taken out",
                f"attention_mask 应为 {tuple(ids.shape)}，得到 {tuple(mask.shape)}："
                "从每个位置到每个位置的掩码无法移除词元",
            )
        )
    return given


def run_seen(
    model: Any, processor: Any, given: Mapping[str, Any], trace_of: Callable[[Recording], Trace]
) -> tuple[Any, Trace | None, Text | None]:
    """The outputs of one pass, with its attention where that can be had, else with the reason why not."""
    try:
        with Recording(model, processor) as recording, torch.no_grad():
            outputs = model(**given)
        return outputs, trace_of(recording), None
    except CaptureError as problem:
        with torch.no_grad():
            return model(**given), None, told(problem)


def _is_causal(model: Any, trace: Trace | None) -> bool:
    if trace is None:
        return can_generate(model) and not is_two_sided(model)
    return not is_two_sided(model) and all(m.causal for m in trace.maps if m.kind == "self")


def _rows(target: Target, model: Any, processor: Any, ids: torch.Tensor, causal: bool) -> tuple[int, ...]:
    """Where such models are read as a rule; they are measured in :mod:`~hf_attnviz.explaining.rankings`."""
    if target.position is not None:
        return (target.position,)
    if is_two_sided(model):
        return ()
    if causal:
        return (len(ids) - 1,)
    summary = getattr(tokenizer_of(processor), "cls_token_id", None)
    places = [] if summary is None else (ids == summary).nonzero().flatten().tolist()
    return tuple(places[:1])
