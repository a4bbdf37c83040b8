"""Which tokens of a text may be ranked as evidence and taken away, and what was left out and why.

Special tokens carry no evidence of the text's own, and a model without them is no longer asked the same question; the
token at which the prediction is read cannot go, for there would be nothing to read; what stands behind it, where
nobody looks ahead, cannot matter.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hf_attnviz.capturing.text import tokenizer_of
from hf_attnviz.errors import ArgumentError
from hf_attnviz.explaining.prediction import Prediction
from hf_attnviz.explaining.target import whole_number
from hf_attnviz.language import Text

_ROLES: Final = ("pad", "bos", "eos", "cls", "sep")


@dataclass(frozen=True)
class Candidates:
    """The positions of a text that are ranked, in order, and in words what was left out."""

    positions: tuple[int, ...]
    notes: tuple[Text, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)


def candidates_of(prediction: Prediction, given: Sequence[int] | None = None) -> Candidates:
    """The tokens of the text that may be taken away.

    Args:
        given: the positions of the user's own choice instead.

    Raises:
        ArgumentError: positions that are not in the text, come twice, or at which the prediction is read.
    """
    if given is not None:
        return Candidates(_checked(prediction, given), (_CHOSEN,))
    ids, row = prediction.ids.tolist(), prediction.row
    special = special_ids(prediction)
    marks = [n for n, token in enumerate(ids) if token in special and n != row]
    later = [n for n in range(len(ids)) if prediction.causal and row is not None and n > row and n not in marks]
    out = {*marks, *later, row}
    kept = tuple(n for n in range(len(ids)) if n not in out)
    notes = [_specials(prediction, marks)] if marks else []
    if row is not None:
        notes.append(_reading(prediction, row))
    if later:
        notes.append(_unseen(len(later)))
    return Candidates(kept, tuple(notes))


def special_ids(prediction: Prediction) -> frozenset[int]:
    """The ids that are no word of the text: starts, ends, separators, masks, padding.

    An unknown word is a word, unless the same id also starts or ends texts.
    """
    tokenizer = tokenizer_of(prediction.processor)
    holder: Any = tokenizer if tokenizer is not None else getattr(prediction.model, "config", None)
    roles = {i for role in _ROLES for i in _several(getattr(holder, f"{role}_token_id", None))}
    known = set(getattr(tokenizer, "all_special_ids", ()))
    unknown = set(_several(getattr(tokenizer, "unk_token_id", None)))
    return frozenset((known - unknown) | roles)


def _several(value: Any) -> Iterable[int]:
    return value if isinstance(value, list | tuple) else () if value is None else (value,)


def _checked(prediction: Prediction, given: Sequence[int]) -> tuple[int, ...]:
    length = len(prediction.ids)
    found = [whole_number(n) for n in given] if isinstance(given, Iterable) else [None]
    positions = [n % length for n in found if n is not None and -length <= n < length]
    if len(positions) < len(found):
        raise ArgumentError(
            Text(
                f"candidates {given}: expected a list of the text's positions 0 to {length - 1}",
                f"candidates {given}：应为文本位置 0 到 {length - 1} 的列表",
            )
        )
    if len(set(positions)) != len(positions):
        raise ArgumentError(
            Text(f"candidates {positions}: some positions come twice", f"candidates {positions}：有些位置出现了两次")
        )
    if prediction.row in positions:
        raise ArgumentError(
            Text(
                f"position {prediction.row} cannot be a candidate: the prediction is read there, and without it there "
                "is nothing to read",
                f"位置 {prediction.row} 不能作为候选：预测就在那里读出，没有它便无从读取",
            )
        )
    return tuple(sorted(positions))


_CHOSEN: Final = Text("The tokens that are ranked were chosen by hand.", "参与排序的词元由用户指定。")


def _specials(prediction: Prediction, places: list[int]) -> Text:
    texts = prediction.labels().texts
    names = " ".join(dict.fromkeys(texts[n] for n in places))
    return Text(
        f"Not ranked and never removed: special tokens ({names}).", f"不参与排序、也从不移除：特殊词元（{names}）。"
    )


def _reading(prediction: Prediction, row: int) -> Text:
    text = prediction.labels().texts[row]
    return Text(
        f"Not ranked and never removed: “{text}” at position {row}, where the prediction is read.",
        f"不参与排序、也从不移除：位置 {row} 的“{text}”，预测就在那里读出。",
    )


def _unseen(count: int) -> Text:
    return Text(
        f"Not ranked: {count} tokens after that position, which the model does not see there.",
        f"不参与排序：该位置之后的 {count} 个词元，模型在那里看不到它们。",
    )
