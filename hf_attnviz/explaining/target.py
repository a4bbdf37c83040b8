"""What is explained: one scalar of a model's outputs.

A classifier's logit of a class, a language model's logit of a token at one position, or whatever a function of the
user's own makes of the outputs. Gradients are taken of the logit; what is removed from the input is judged by its
probability.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch

from hf_attnviz.capturing.text import tokenizer_of
from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError, listed
from hf_attnviz.language import Text

Wanted = int | str | None
TargetLike = Wanted | tuple[int, Wanted] | Callable[[Any], torch.Tensor]


GIVEN: Final = Text("the given scalar", "给定的标量")


@dataclass(frozen=True, eq=False)
class Target:
    """One scalar of a model's outputs.

    Attributes:
        name: the scalar in words: ``"logit of 'duck' at position 5"``, ``"logit of class 1 (positive)"``.
        index: the class or the token id; None for a function.
        position: where logits ``[batch, position, token]`` are read, counted in the sequence that the logits belong
            to; negative counts from the end. None for logits ``[batch, class]`` and for a function.
        function: the user's own scalar of the outputs, or None.
        subject: what the logit or probability is of, for people: ``'duck' at position 5``.
    """

    name: str
    index: int | None = None
    position: int | None = None
    function: Callable[[Any], torch.Tensor] | None = None
    subject: Text = GIVEN

    @property
    def told(self) -> Text:
        """The scalar for people, in both languages."""
        return Text(self.name, self.subject.zh if self.function is not None else f"{self.subject.zh}的 logit")

    def score(self, outputs: Any, position: int | torch.Tensor | None = None) -> torch.Tensor:
        """The scalar of each row ``[batch]``: the logit, or what the function gives. It stays in the graph.

        Args:
            outputs: what the model gave.
            position: where to read instead, when the sequence has been changed before the target's position; a tensor
                ``[batch]`` where it differs from row to row.
        """
        if self.function is not None:
            return self._of_function(outputs)
        return self._logits(outputs, position)[:, self.index]

    def probability(self, outputs: Any, position: int | torch.Tensor | None = None) -> torch.Tensor:
        """The probability of the class or token ``[batch]`` in float32 or better; for a function, what it gives."""
        if self.function is not None:
            return self._of_function(outputs)
        logits = self._logits(outputs, position)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)[:, self.index]

    def _logits(self, outputs: Any, position: int | torch.Tensor | None) -> torch.Tensor:
        logits = logits_of(outputs)
        assert logits is not None
        if self.position is None:
            return logits
        if isinstance(position, torch.Tensor):
            return logits[torch.arange(len(logits), device=logits.device), position.to(logits.device)]
        return logits[:, self.position if position is None else position]

    def _of_function(self, outputs: Any) -> torch.Tensor:
        assert self.function is not None
        rows = _batch(outputs)
        if rows == 1:
            return _scalar(self.function(outputs), self.name)[None]
        return torch.stack([_scalar(self.function(_row(outputs, n, rows)), self.name) for n in range(rows)])


def resolved(
    target: TargetLike, outputs: Any, *, processor: Any = None, position: int | None = None, config: Any = None
) -> Target:
    """The target that a user means.

    Args:
        target: None: what the model itself predicts; a class or token id; a label or token by name; ``(position,
            id, name or None)``; or a function from the outputs of one example to a scalar tensor.
        outputs: what the model gave for the input that is explained.
        processor: the tokenizer, for names of tokens.
        position: where a language model's logits are read by default; None: at the end.
        config: the model's config, for names of classes.

    Raises:
        ArgumentError: outputs without logits and no function; a name or an id that does not exist.
        ShapeError: a function that gives no scalar.
    """
    if callable(target):
        name = getattr(target, "__name__", type(target).__name__)
        _scalar(target(outputs), name)
        if name == "<lambda>":
            return Target(GIVEN.en, function=target)
        return Target(name, function=target, subject=Text(name, name))
    logits = logits_of(outputs)
    if logits is None or logits.dim() not in (2, 3):
        raise ArgumentError(
            Text(
                f"{type(outputs).__name__} has no logits [batch, class] or [batch, position, token] to explain; give a "
                "function of the outputs: target=lambda outputs: outputs.last_hidden_state[0, 0, 0]",
                f"{type(outputs).__name__} 没有可解释的 logits [batch, class] 或 [batch, position, token]；"
                "请给出输出的函数：target=lambda outputs: outputs.last_hidden_state[0, 0, 0]",
            )
        )
    if logits.dim() == 2 and isinstance(target, tuple):
        raise ArgumentError(
            Text(
                "this model gives one answer for the whole input; give a class, not (position, class)",
                "此模型对整个输入只给一个答案；请给出类别，而不是 (position, class)",
            )
        )
    where, wanted = _placed(target) if isinstance(target, tuple) else (-1 if position is None else position, target)
    if logits.dim() == 3 and not -logits.shape[1] <= where < logits.shape[1]:
        raise ArgumentError(
            Text(
                f"target position {where}: the logits have positions 0 to {logits.shape[1] - 1}",
                f"目标位置 {where}：logits 的位置为 0 到 {logits.shape[1] - 1}",
            )
        )
    at = logits[0] if logits.dim() == 2 else logits[0, where]
    labels = labels_of(config, logits)
    index = _index(wanted, at, processor, labels)
    place = None if logits.dim() == 2 else where % logits.shape[1]
    subject = _subject(index, place, processor, labels)
    return Target(f"logit of {subject.en}", index, place, subject=subject)


def meant(
    target: TargetLike, outputs: Any, *, model: Any, processor: Any = None, ids: torch.Tensor | None = None
) -> Target:
    """The target that a user means of a model's outputs for one input: :func:`resolved`, and where it is read.

    A language model is read where the text has its only ``[MASK]``, else at the end.

    Args:
        target, outputs, processor: as there.
        model: the model that gave the outputs.
        ids: the token ids ``[position]`` that it read; None for a picture.

    Raises:
        ArgumentError: several masks, or a model that labels every token, and no position.
    """
    logits, config, position = logits_of(outputs), getattr(model, "config", None), None
    if logits is not None and logits.dim() == 3 and not callable(target) and not isinstance(target, tuple):
        if labels_of(config, logits):
            raise ArgumentError(
                Text(
                    "this model labels every token; say which: target=(position, label)",
                    "此模型为每个词元标类别；请指明哪一个：target=(position, label)",
                )
            )
        position = None if ids is None or is_two_sided(model) else _masked(processor, ids)
    return resolved(target, outputs, processor=processor, position=position, config=config)


def is_two_sided(model: Any) -> bool:
    """Whether a decoder predicts and an encoder reads."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def _masked(processor: Any, ids: torch.Tensor) -> int | None:
    """Where the only ``[MASK]`` stands."""
    mask = getattr(tokenizer_of(processor), "mask_token_id", None)
    places = [] if mask is None else (ids == mask).nonzero().flatten().tolist()
    if len(places) > 1:
        raise ArgumentError(
            Text(
                f"the text has {len(places)} masks; say which one is explained: target=({places[0]}, None)",
                f"文本有 {len(places)} 个掩码；请指明解释哪一个：target=({places[0]}, None)",
            )
        )
    return int(places[0]) if places else None


def _placed(target: tuple[Any, ...]) -> tuple[int, Wanted]:
    place = whole_number(target[0]) if len(target) == 2 else None
    if place is None:
        raise ArgumentError(
            Text(
                f"target={target!r}: expected (position, id, name or None)",
                f"target={target!r}：应为 (position, 编号、名字或 None)",
            )
        )
    return place, target[1]


def whole_number(value: Any) -> int | None:
    """A whole number, of numpy's and torch's kinds too; None where it is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def labels_of(config: Any, logits: torch.Tensor) -> dict[int, str]:
    """The names of the classes, where the last axis of the logits is classes; empty where it is tokens."""
    named = dict(getattr(config, "id2label", None) or {})
    size = logits.shape[-1]
    text = text_config(config)
    return {} if len(named) != size or size == getattr(text, "vocab_size", None) else named


def text_config(config: Any) -> Any:
    """The part of a model's config that speaks of its texts."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def logits_of(outputs: Any) -> torch.Tensor | None:
    """The logits among a model's outputs: by name, or the outputs themselves where they are one tensor."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    found = getattr(outputs, "logits", None)
    return found if isinstance(found, torch.Tensor) else None


def _index(wanted: Wanted, at: torch.Tensor, processor: Any, labels: dict[int, str]) -> int:
    if wanted is None:
        return int(at.argmax())
    if isinstance(wanted, str):
        wanted = _class(wanted, labels) if labels else _token(wanted, processor)
    index = whole_number(wanted)
    if index is None or not 0 <= index < len(at):
        raise ArgumentError(
            Text(
                f"target={wanted!r}: expected a class or token id from 0 to {len(at) - 1}, or its name: one scalar",
                f"target={wanted!r}：应为 0 到 {len(at) - 1} 的类别或词元编号，或其名字：一个标量",
            )
        )
    return index


def _class(name: str, labels: dict[int, str]) -> int:
    found = [index for index, label in labels.items() if label == name]
    found = found or [index for index, label in labels.items() if label.casefold() == name.casefold()]
    if len(found) != 1:
        raise UnknownNameError(
            Text(
                f"target={name!r} is no class of this model; its classes are: {listed(labels.values())}",
                f"target={name!r} 不是此模型的类别；它的类别为：{listed(labels.values(), '无')}",
            )
        )
    return found[0]


def _token(text: str, processor: Any) -> int:
    tokenizer = tokenizer_of(processor)
    if tokenizer is None:
        raise ArgumentError(
            Text(
                f"target={text!r} is a text, and there is no tokenizer to read it; pass processor=…, or an id",
                f"target={text!r} 是文本，却没有分词器来读它；请传入 processor=…，或给出编号",
            )
        )
    known = tokenizer.get_vocab()
    if text in known:
        return int(known[text])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ArgumentError(
            Text(
                f"target={text!r} is {len(ids)} tokens; expected one: give the first one's id",
                f"target={text!r} 是 {len(ids)} 个词元；应为一个：请给出第一个的编号",
            )
        )
    if ids[0] == getattr(tokenizer, "unk_token_id", None):
        raise UnknownNameError(
            Text(
                f"target={text!r} is no token of this model: its tokenizer reads it as {tokenizer.unk_token}; give a "
                "token that it knows (tokenizer.get_vocab()), or an id",
                f"target={text!r} 不是此模型的词元：它的分词器读作 {tokenizer.unk_token}；"
                "请给出它认识的词元（tokenizer.get_vocab()），或编号",
            )
        )
    return int(ids[0])


def _subject(index: int, place: int | None, processor: Any, labels: dict[int, str]) -> Text:
    what = _class_words(index, labels) if place is None or labels else _token_words(index, processor)
    return what if place is None else Text(f"{what.en} at position {place}", f"位置 {place} 处的{what.zh}")


def _class_words(index: int, labels: dict[int, str]) -> Text:
    label = labels.get(index, f"LABEL_{index}")
    if label == f"LABEL_{index}":  # what transformers calls a class that nobody has named
        return Text(f"class {index}", f"类别 {index}")
    return Text(f"class {index} ({label})", f"类别 {index}（{label}）")


def _token_words(index: int, processor: Any) -> Text:
    tokenizer = tokenizer_of(processor)
    if tokenizer is None:
        return Text(f"token {index}", f"词元 {index}")
    text = tokenizer.decode([index])
    return Text(repr(text), f"“{text}”")


def _scalar(value: Any, name: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.is_floating_point():
        came = Text(*[type(value).__name__] * 2)
        if isinstance(value, torch.Tensor):
            came = Text(f"a tensor of shape {tuple(value.shape)}", f"形状为 {tuple(value.shape)} 的张量")
        raise ShapeError(
            Text(
                f"the target {name} must be one number for one example (a floating-point tensor with one element), "
                f"got {came.en}; choose one: outputs.logits[0, -1, 42], or take .sum()",
                f"目标 {name} 对一个样本应给出一个数（只有一个元素的浮点张量），得到 {came.zh}；"
                "请选定一个：outputs.logits[0, -1, 42]，或用 .sum()",
            )
        )
    return value.reshape(())


def _batch(outputs: Any) -> int:
    parts = outputs.values() if hasattr(outputs, "values") and not torch.is_tensor(outputs) else outputs
    tensors = [outputs] if torch.is_tensor(outputs) else [part for part in parts if torch.is_tensor(part)]
    return next((len(t) for t in tensors if t.dim()), 1)


def _row(outputs: Any, row: int, rows: int) -> Any:
    """The outputs of one row of a batch."""
    if isinstance(outputs, torch.Tensor):
        return outputs[row : row + 1] if outputs.dim() and len(outputs) == rows else outputs
    if isinstance(outputs, (tuple, list)):
        return type(outputs)(_row(part, row, rows) for part in outputs)
    if hasattr(outputs, "items"):
        return type(outputs)(**{name: _row(part, row, rows) for name, part in outputs.items()})
    return outputs
