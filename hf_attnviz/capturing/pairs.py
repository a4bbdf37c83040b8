"""The two texts of a pair: which token belongs to which, by token types or the tokenizer's way to part them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hf_attnviz.labels import Labels


def parted(labels: Labels, types: Sequence[int] | None, tokenizer: Any) -> Labels:
    """The labels with the text that each token belongs to, where there are two; special tokens belong to none.

    Args:
        labels: of one sequence, padding dropped.
        types: its ``token_type_ids``, or None.
        tokenizer: whose special tokens part the two texts, where the types do not.
    """
    parts = _by_types(labels, types) or _by_special_tokens(labels, tokenizer)
    if parts is None:
        return labels
    marks = [
        replace(mark, part=part) if mark.kind == "text" else mark
        for mark, part in zip(labels.marks, parts, strict=True)
    ]
    return Labels.of(labels.texts, labels.ids, labels.words, marks, labels.cells or ())


def _by_types(labels: Labels, types: Sequence[int] | None) -> list[int] | None:
    """Zeros, then ones; anything else is no pair but a use of the model's own."""
    if types is None or len(types) != len(labels):
        return None
    told = [kind for kind, special in zip(types, labels.special, strict=True) if not special]
    return list(types) if set(told) == {0, 1} and told == sorted(told) else None


def _by_special_tokens(labels: Labels, tokenizer: Any) -> list[int] | None:
    """Where the tokens begin, go on in the middle and end as the tokenizer writes a pair, and nothing else does so."""
    pattern = _pattern(tokenizer)
    if pattern is None or any(number is None for number in labels.ids):
        return None
    begin, middle, end = pattern
    ids = list(labels.ids)
    last = len(ids) - len(end)
    if ids[: len(begin)] != begin or ids[last:] != end:
        return None
    spots = [n for n in range(len(begin) + 1, last - len(middle)) if ids[n : n + len(middle)] == middle]
    return [int(n >= spots[0]) for n in range(len(ids))] if len(spots) == 1 else None


def _pattern(tokenizer: Any) -> tuple[list[int], list[int], list[int]] | None:
    """The special tokens before, between and after the texts of a pair; None where nothing stands between."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    try:
        pair = tokenizer("a", "a")
        texts = [part is not None for part in pair.sequence_ids()]
    except (ValueError, TypeError, KeyError):  # a tokenizer that wants more than texts: boxes, tables
        return None
    ids = [number if not text else None for number, text in zip(pair["input_ids"], texts, strict=True)]
    runs: list[list[int]] = [[]]
    for before, number in zip([True, *(one is not None for one in ids)], ids, strict=False):
        if number is not None:
            runs[-1].append(number)
        elif before:
            runs.append([])
    return (runs[0], runs[1], runs[2]) if len(runs) == 3 and runs[1] else None
