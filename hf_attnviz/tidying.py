"""A trace made easier to look at: words instead of pieces, and without the tokens on which attention is merely parked.

Steps, in this order: leave out rows and keys, make rows sum to one again, pool pieces into words.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.stack_names import stack_name
from hf_attnviz.trace import Trace
from hf_attnviz.words import END_MARKS, Words, piece, pooled, rescaled

HIDDEN: Final[Mapping[str, Text]] = {
    "special": Text("special tokens", "特殊词元"),
    "sink": Text("the first token", "首个词元"),
}
_WORDS: Final = Text(
    "Words instead of pieces: weight to a word is the sum over its pieces, weight from it the mean over them.",
    "以词代替子词：指向一个词的权重为指向其各子词之和，由它发出的权重为其各子词的平均。",
)
_TIDIED: Final = "it is of a tidied trace; take the trace as it was captured"


def tidied(trace: Trace, *, words: bool = False, hide: str | Iterable[str] = (), renormalise: bool = False) -> Trace:
    """The same trace, easier to look at; ``trace.notes`` says what was done. Without an option it is given back as is.

    What was kept beside weights and vectors (gradients, decompositions, what reducers made) is of the tokens as they
    ran, and is left out; so are vectors where pieces are pooled, for a score q·k belongs to two pieces.

    Args:
        words: pool pieces into words: weight to a word is the sum over its pieces, weight from it the mean over them
            (Clark et al. 2019, section 4.1). Rows of a generation's cross-attention are known by the tokens they put
            out, and pooled so.
        hide: leave out ``"special"`` tokens, the ``"sink"`` (the first key and the row that stands on it; Xiao et al.
            2024, https://arxiv.org/abs/2309.17453), or both. What is left of a row then sums to less than one.
        renormalise: make every row sum to one again; a row that has nothing left is undefined (NaN).

    Raises:
        UnknownNameError: something else to hide.
        ArgumentError: nothing would be left.
        NotKeptError, ShapeError: a map without weights ``[head, query, key]``.
    """
    chosen = (hide,) if isinstance(hide, str) else tuple(dict.fromkeys(hide))
    for name in chosen:
        if name not in HIDDEN:
            raise UnknownNameError(
                Text(
                    f"expected to hide any of {listed(HIDDEN)}, got {name!r}",
                    f"可隐藏的为 {listed(HIDDEN)}，得到 {name!r}",
                )
            )
    if not (words or chosen or renormalise):
        return trace
    specials = frozenset(text for m in trace.maps for ends in (m.queries, m.keys) for text in _specials(ends))
    maps, shares = [], dict[str, list[torch.Tensor]]()
    for m in map(_bare, trace.maps):
        rows = _row_labels(m, specials)
        if chosen:
            m, rows, share = _without(m, rows, chosen)
            shares.setdefault(m.group, []).append(share.flatten())
        if renormalise:
            m = replace(m, kept_weights=rescaled(m.weights, torch.zeros(len(m.keys), dtype=torch.bool))[0])
        maps.append(_worded(m, rows) if words else m)
    notes = [_sums(chosen, shares, renormalise)] if chosen or renormalise else []
    return replace(trace, maps=tuple(maps), notes=(*trace.notes, *notes, *([_WORDS] if words else [])))


def _bare(m: AttentionMap) -> AttentionMap:
    """The map with nothing but weights, at least in float32, and vectors."""
    weights = m.plain().weights.detach().cpu()
    weights = weights if weights.dtype == torch.float64 else weights.float()
    return replace(m, kept_weights=weights, gradient=None, decomposition=None, undecomposed=_TIDIED, reduced={})


def _row_labels(m: AttentionMap, specials: frozenset[str]) -> Labels:
    """What rows are known by: what they read, or wrote. What was written last was never read, its word is not known."""
    if m.written is None:
        return m.queries
    after = m.queries[1:]
    last = "special" if m.written[-1] in specials | END_MARKS else "text"
    return Labels.of(m.written, [*after.ids, None], [*after.words, None], [*after.kinds, last])


def _specials(labels: Labels) -> list[str]:
    return [text for text, special in zip(labels.texts, labels.special, strict=True) if special]


def _without(m: AttentionMap, rows: Labels, chosen: Sequence[str]) -> tuple[AttentionMap, Labels, torch.Tensor]:
    """The map and its rows' labels without what is hidden, and the share of each row left that lay there."""
    stands = m.positions or (None,) * len(rows)
    gone = [
        ("special" in chosen and special) or ("sink" in chosen and key == 0)
        for key, special in enumerate(m.keys.special)
    ]
    keys = [key for key, hidden in enumerate(gone) if not hidden]
    left = [
        row
        for row, (place, special) in enumerate(zip(stands, rows.special, strict=True))
        if not ("special" in chosen and special) and (place is None or not gone[place])
    ]
    if not keys or not left:
        en, zh = (
            mark.join(getattr(HIDDEN[name], one) for name in chosen) for mark, one in ((" and ", "en"), ("与", "zh"))
        )
        raise ArgumentError(
            Text(
                f"nothing of {m.module or m.group} would be left without {en}; hide less",
                f"去掉{zh}之后，{m.module or m.group} 什么也不剩；请少隐藏一些",
            )
        )
    number = {key: n for n, key in enumerate(keys)}
    cut = replace(
        m,
        kept_weights=m.weights[:, left][..., keys],
        queries=m.queries.at(left),
        keys=m.keys.at(keys),
        positions=None if m.positions is None else tuple(number[m.positions[row]] for row in left),
        query_vectors=None if m.query_vectors is None else m.query_vectors[:, left],
        key_vectors=None if m.key_vectors is None else m.key_vectors[:, keys],
        **_of_rows(m, left),
    )
    return cut, rows.at(left), m.weights[:, left][..., torch.tensor(gone)].sum(-1)


def _worded(m: AttentionMap, rows: Labels) -> AttentionMap:
    """The map with pieces pooled into words; a word's row came when its last piece did."""
    keys = Words.of(m.keys)
    several = Words.of(rows) if m.positions is None else keys.of_rows(m.positions)
    number = keys.numbers
    return replace(
        m,
        kept_weights=pooled(m.weights, several.groups, keys.groups),
        queries=_word_labels(m.queries, several.groups),
        keys=_word_labels(m.keys, keys.groups),
        positions=None if m.positions is None else tuple(number[m.positions[group[0]]] for group in several.groups),
        query_vectors=None,
        key_vectors=None,
        **_of_rows(m, [group[-1] for group in several.groups])
        | {"produced": None if m.written is None else several.texts},
    )


def _of_rows(m: AttentionMap, rows: Sequence[int]) -> dict[str, Any]:
    return {
        "steps": tuple(m.steps[row] for row in rows) if m.steps else (),
        "produced": None if m.produced is None else tuple(m.produced[row] for row in rows),
    }


def _word_labels(labels: Labels, groups: Sequence[Sequence[int]]) -> Labels:
    """Each word stands where its first piece stood; one of several pieces has no id."""
    firsts = labels.at([group[0] for group in groups])
    several = zip(groups, firsts.texts, firsts.ids, strict=True)
    named = [
        (text, number) if len(group) == 1 else ("".join(piece(labels.texts[n]) for n in group), None)
        for group, text, number in several
    ]
    return replace(firsts, texts=tuple(text for text, _ in named), ids=tuple(number for _, number in named))


def _sums(chosen: Sequence[str], shares: Mapping[str, Sequence[torch.Tensor]], renormalise: bool) -> Text:
    """What was hidden, how much of the weight that was, and what rows now sum to."""
    if not chosen:
        return Text("Every row was made to sum to one.", "每一行都已重新归一。")
    names = [HIDDEN[name] for name in chosen]
    mean = {stack: float(torch.cat(list(of_maps)).nanmean()) for stack, of_maps in shares.items()}
    several = len(mean) > 1
    english, chinese = (
        [f"{share:.1%}{f' ({stack_name(stack).en})' if several else ''}" for stack, share in mean.items()],
        [f"{share:.1%}{f'（{stack_name(stack).zh}）' if several else ''}" for stack, share in mean.items()],
    )
    rest = (
        Text("what is left was made to sum to one again", "其余部分已重新归一")
        if renormalise
        else Text("what is left of a row sums to so much less than one", "每行剩余部分之和相应地小于一")
    )
    return Text(
        f"Hidden: {' and '.join(name.en for name in names)}, on which {', '.join(english)} of a row's weight lay on "
        f"average; {rest.en}.",
        f"已隐藏：{'与'.join(name.zh for name in names)}，平均每行有 {'、'.join(chinese)} 的权重落在其上；{rest.zh}。",
    )
