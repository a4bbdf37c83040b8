"""Which word of one text each word of another looks at, labelled; and its links as text."""

import os
from collections.abc import Iterable
from typing import Final, Literal

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.pooling import stack_of
from hf_attnviz.analysis.sides import Side, source_side, target_side
from hf_attnviz.axes import HEAD, KEY, LAYER, QUERY, STATISTIC
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.functional.checks import upcast
from hf_attnviz.functional.pharaoh import Link
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.storage import write_atomically
from hf_attnviz.trace import Trace

_METHOD: Final = "alignment"
_TARGET: Final = Text("target", "目标")
_SOURCE: Final = Text("source", "源")
_PLACES: Final = {HEAD: "头", LAYER: "层"}
_SOURCES: Final = {
    "argmax": "Och & Ney 2003 (error rate); Kobayashi et al. 2020 (rows)",
    "dtw": "Sakoe & Chiba 1978, ties as in Whisper (Radford et al. 2022)",
}
_ROWS: Final = {
    "output": Text(
        "A row is the one that put out the word (read='output'). The row that reads it is another one, and which of "
        "them aligns differs from model to model: see alignment_scores.",
        "每行取产出该词的那一行（read='output'）。读入该词的是另一行；哪一行对齐因模型而异：参见 alignment_scores。",
    ),
    "reading": Text(
        "A row is the one that read the word (read='reading'). The row that put it out is another one, and which of "
        "them aligns differs from model to model: see alignment_scores.",
        "每行取读入该词的那一行（read='reading'）。产出该词的是另一行；哪一行对齐因模型而异：参见 alignment_scores。",
    ),
}
_LINKS: Final = {
    "argmax": Text(
        "“link” is 1 where the row has its largest weight, however small that is: see “weight”.",
        "“链接”为 1 处即该行权重最大之处，无论它多小：参见“权重”。",
    ),
    "dtw": Text(
        "“link” is 1 on the path of largest total weight that never goes back: what re-orders words cannot show there.",
        "“链接”为 1 处构成总权重最大且从不后退的路径：词序调整在此无法体现。",
    ),
}
_WORDS: Final = Text(
    "Words: the weight on a word is the sum over its tokens, the weight of a word the mean over its tokens.",
    "词：落在一个词上的权重是其各词元之和；一个词发出的权重是其各词元的平均。",
)
_SPECIAL: Final = Text(
    "{share:.0%} of the weight lies on special tokens of the source (mean over heads), which are left out: rows sum to "
    "less than one.",
    "权重的 {share:.0%} 落在源的特殊词元上（各头平均），它们已略去：各行之和小于一。",
)
_OTHERS: Final = Text(
    "{share:.0%} of the weight lies on keys that are no text of the prompt (mean over heads), which are left out: rows "
    "sum to less than one.",
    "权重的 {share:.0%} 落在不属于提示文本的键上（各头平均），它们已略去：各行之和小于一。",
)
_NO_LINK: Final = Text(
    "A row whose weights are undefined (NaN), or all zero, has no link.", "权重未定义（NaN）或全为零的行没有链接。"
)
_LUCK: Final = Text(
    "That a head aligns is no condition of translating well: models without such a head translate too.",
    "有对齐的头并非译得好的前提：没有这种头的模型同样能翻译。",
)


def alignment(
    trace: Trace,
    *,
    stack: str = "cross",
    layer: int | None = None,
    head: int | Literal["mean"] | None = None,
    read: str = "output",
    method: str = "argmax",
    words: bool = False,
    special: bool = False,
) -> Result:
    """Which source each target is linked to: ``[statistic, layer, head, query, key]``, statistics "link" and "weight".

    Args:
        trace: of a translation or a transcript; generated, or a plain pass over both texts.
        stack: cross-attention; or the self-attention of a generation, whose prompt is then the source.
        layer, head: choose one, and the axis is gone; None keeps all. ``head="mean"``: the mean over heads.
        read: the row that stands for a target: "output", the one that put it out, or "reading", the one that read it.
        method: "argmax", each target's largest weight; "dtw", the monotonic path (:func:`hf_attnviz.functional.dtw`).
        words: link words in place of tokens.
        special: keep special tokens (``</s>`` …); else both texts are without, and places are counted without.

    :func:`links` gives the pairs of one head, :func:`pharaoh` their text.

    Raises:
        UnknownStackError, UnknownNameError: no such stack, layer, head, row or method; the message lists them.
        NotKeptError: rows that ``keep`` left out.
        ArgumentError: no token is left on one side, or words of what has none (frames, patches).
    """
    targets, sources, every, left_out = between(trace, stack, read, words, special)
    layers = stack_of(trace, stack).layers
    weights, axes = every, [Axis(QUERY, targets), Axis(KEY, sources)]
    if head == "mean":
        weights = weights.mean(1)
    else:
        heads = tuple(map(str, range(every.shape[1])))
        weights, axes = _narrowed(weights, 1, HEAD, heads, head, axes)
    weights, axes = _narrowed(weights, 0, LAYER, tuple(map(str, layers)), layer, axes)
    found = functional.linked(weights, method=method)
    unlinked = not bool(found.any(-1).all())
    notes = (_ROWS[read], _LINKS[method], *([_WORDS] if words else []), *left_out, *([_NO_LINK] * unlinked), _LUCK)
    return Result(
        torch.stack([found.to(weights.dtype), weights]),
        (Axis(STATISTIC, ("link", "weight")), *axes),
        _METHOD,
        {
            "stack": stack, "layer": layer, "head": head, "read": read, "method": method, "words": words,
            "special": special,
        },
        _SOURCES[method],
        "1 or 0 (link), share (weight)",
        notes,
    )  # fmt: skip


def links(result: Result) -> tuple[Link, ...]:
    """The pairs (source, target) of one alignment, sorted; places are those on the result's axes.

    Args:
        result: of :func:`alignment`, for one head: ``result.select(layer="1", head="1")`` where it holds several.
    """
    if result.method != _METHOD or [axis.name for axis in result.axes] != [STATISTIC, QUERY, KEY]:
        raise ArgumentError(
            Text(
                "expected the alignment of one head, av.alignment(trace, layer=1, head=1) or "
                f'result.select(layer="1", head="1"); got {result.method!r} with axes '
                f"{listed(a.name for a in result.axes)}",
                "应为一个头的对齐，如 av.alignment(trace, layer=1, head=1) 或 "
                f'result.select(layer="1", head="1")；得到 {result.method!r}，轴为 '
                f"{listed((a.name for a in result.axes), '无')}",
            )
        )
    place = result.axis(STATISTIC).labels.index("link")
    return tuple(sorted((s, t) for t, s in result.values[place].nonzero().tolist()))


def pharaoh(results: Result | Iterable[Result], *, path: str | os.PathLike[str] | None = None) -> str:
    """Alignments as text, ``0-0 1-2``, source first, a line each; an alignment without links is an empty line.

    Args:
        results: of :func:`alignment`, one head each.
        path: also write the text there, in one atomic step, UTF-8.

    Raises:
        ArgumentError: no alignment at all, or something else.
        SaveError: the file could not be written.
    """
    several = [results] if isinstance(results, Result) else list(results)
    if not several:
        raise ArgumentError(
            Text(
                "expected an alignment or several, got none; nothing was written",
                "应给出一个或多个对齐，得到零个；没有写入任何内容",
            )
        )
    text = "".join(f"{functional.to_pharaoh(links(one))}\n" for one in several)
    if path is not None:
        write_atomically(path, text.encode("ascii"))
    return text


def between(
    trace: Trace, stack: str, read: str, words: bool, special: bool
) -> tuple[tuple[str, ...], tuple[str, ...], torch.Tensor, list[Text]]:
    """Texts of targets and of sources, weights ``[layer, head, target, source]`` between them, and what was left out.

    Arguments as in :func:`alignment`.
    """
    chosen = stack_of(trace, stack)
    one = chosen.maps[0].plain()
    sides = target_side(trace, one, read), source_side(one)
    rows, columns = sides if special else (_text(sides[0], _TARGET), _text(sides[1], _SOURCE))
    whole = upcast(chosen.stacked())[:, :, list(rows.places)]
    weights, notes = whole[..., list(columns.places)], []
    if len(columns.places) < len(one.keys):
        share = float((whole.sum(-1) - weights.sum(-1)).nanmean())
        told = _SPECIAL if one.kind == "cross" else _OTHERS
        notes.append(Text(told.en.format(share=share), told.zh.format(share=share)))
    if not words:
        return rows.texts, columns.texts, weights, notes
    for side, what in ((rows, _TARGET), (columns, _SOURCE)):
        if all(word is None for word in side.words) and len(side.words) > 1:
            raise ArgumentError(
                Text(
                    f"expected words, got {what.en}s without any (frames, patches, bare ids); use words=False",
                    f"应有词，而{what.zh}中没有（帧、图块或仅有编号）；请用 words=False",
                )
            )
    pooled = functional.joined(weights, rows.word_numbers, columns.word_numbers)
    return rows.word_texts, columns.word_texts, pooled, notes


def _text(side: Side, what: Text) -> Side:
    found = side.text_only()
    if not found.places:
        raise ArgumentError(
            Text(
                f"expected at least one {what.en} that is text, got special tokens only; pass special=True",
                f"应至少有一个{what.zh}是文本，得到的全是特殊词元；请用 special=True",
            )
        )
    return found


def _narrowed(
    weights: torch.Tensor, place: int, name: str, known: tuple[str, ...], chosen: int | None, axes: list[Axis]
) -> tuple[torch.Tensor, list[Axis]]:
    """Weights and axes with the axis at ``place`` cut down to the one that was chosen, else with it."""
    if chosen is None:
        return weights, [Axis(name, known), *axes]
    if str(chosen) not in known:
        raise UnknownNameError(
            Text(
                f"there is no {name} {chosen!r}; there are: {listed(known)}",
                f"没有{_PLACES[name]} {chosen!r}；可用：{listed(known, '无')}",
            )
        )
    return weights.select(place, known.index(str(chosen))), axes
