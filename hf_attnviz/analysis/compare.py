"""What differs between two traces: head by head on one text, or around one word that two texts share."""

from typing import Any, Final

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.around import OTHERS, Around, Name, about_rows, about_statistics, about_words, shared_words
from hf_attnviz.analysis.caveats import nan_weights, parked_share
from hf_attnviz.analysis.compared import Side, refuse_other_heads
from hf_attnviz.axes import HEAD, KEY, LAYER, QUERY, STATISTIC
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.functional.checks import check_name
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

CHANGE_IN: Final = "change_in_"
_SOURCE: Final = "Clark et al. 2019, sections 4.1 (words) and 6 (Jensen–Shannon divergence of heads)"
_SECOND_MINUS_FIRST: Final = Text(
    "A change is the second trace's number minus the first's.", "“变化”为第二个 trace 的数值减去第一个的。"
)

_IN_FIRST: Final = Text("the first text", "第一侧")
_IN_SECOND: Final = Text("the second text", "第二侧")
_SIDES: Final = Axis(STATISTIC, ("first", "second", "change"))

Occurrence = int | tuple[int | None, int | None] | None


def compare(
    first: Trace,
    second: Trace,
    *,
    stack: str | None = None,
    by: str = "head",
    word: str | None = None,
    occurrence: Occurrence = None,
    direction: str = "from",
    without_special: bool = False,
    average: bool = False,
    others: str = "pooled",
) -> Result:
    """Two traces side by side: two checkpoints on one text, two prompts, or one word in two texts.

    ========= =========== ==========================================================================================
    ``by``    ``word``    what comes out
    ========= =========== ==========================================================================================
    "head"    None        ``[statistic, layer, head]``: on the same tokens ``js`` and ``pearson`` of the maps, and
                          on any the change of each head statistic
    "head"    a word      ``[statistic, layer, head]``: ``js`` of the word's rows over shared words and the rest, and
                          the change of the row's entropy, its share on the first word, on special tokens, on itself …
    "word"    a word      ``[statistic, layer, head, key]``: what the word looks at in the ``first`` and in the
                          ``second`` text, and the ``change``, over the words that both share and "(others)"
    "word"    None        ``[statistic, layer, head, query, key]``: the whole maps, word by word, of one text
    ========= =========== ==========================================================================================

    A change is second minus first. Words are counted as wholes: weight on a word is the sum over its pieces, weight
    from it the mean over them. A shared word is the same text, the n-th of its kind in both.

    Args:
        stack: which stack of both; default: the only one.
        by: ``"head"`` or ``"word"``.
        word: a word that both texts have; several in a row may be named as one (苹果).
        occurrence: which of several, from 0; a pair for the first and the second text.
        direction: ``"from"`` the word (what it looks at), or ``"to"`` it (who looks at it; the axis is then ``query``,
            "(others)" is a mean over words and not a sum, and by head there is only ``change_in_received``).
        without_special: leave special tokens out at both ends and make rows sum to one again.
        others: words that only one text has: ``"pooled"`` in one number, or ``"apart"``, undefined in the other text
            (only by word: rows that are compared by divergence must be over the same words).
        average: first take the mean of all heads of all layers; then traces of different models can be compared.

    Raises:
        ShapeError: different layers or heads, and no ``average``.
        UnknownNameError: the word is missing, or stands several times and no occurrence is named; the message lists.
        ArgumentError: whole maps of different texts.
    """
    check_name(by, "by", ("head", "word"))
    check_name(direction, "direction", ("from", "to"))
    check_name(others, "others", ("pooled", "apart"))
    if others == "apart" and (by != "word" or word is None):
        raise ArgumentError(
            Text(
                'expected others="apart" with by="word" and word=…: only there words have a column each',
                'others="apart" 须与 by="word" 和 word=… 同用：只有那时每个词才各占一列',
            )
        )
    if word is None and (occurrence is not None or direction == "to"):
        raise ArgumentError(
            Text(
                "expected word=… with occurrence and direction; name the word that they are about",
                "occurrence 和 direction 须与 word=… 同用；请给出它们所指的词",
            )
        )
    options = {"average": average, "without_special": without_special}
    sides = [
        Side.of(name, trace, stack, **options)
        for name, trace in (
            (Text("the first text", "第一段文本"), first),
            (Text("the second text", "第二段文本"), second),
        )
    ]
    refuse_other_heads(*sides)
    if word is None:
        found = _heads(*sides) if by == "head" else _maps(*sides)
    else:
        found = _word(sides, word, occurrence, direction=direction, by=by, others=others)
    told = {"stack": sides[0].stack, "by": by, "word": word, "occurrence": occurrence}
    told |= {"direction": direction, "others": others} if word else {}
    told = {name: value for name, value in told.items() if value is not None}
    texts = {"first": sides[0].sentence, "second": sides[1].sentence}
    values, axes, unit, notes = found
    return Result(
        values,
        (axes[0], Axis(LAYER, sides[0].layers), Axis(HEAD, sides[0].heads), *axes[1:]),
        f"comparison by {by}",
        {**told, **options, **texts},
        _SOURCE,
        unit,
        (_SECOND_MINUS_FIRST, *_left_out(sides, without_special), *notes, *_unknown(sides)),
    )


Found = tuple[torch.Tensor, tuple[Axis, ...], str, list[Text]]


def _heads(first: Side, second: Side) -> Found:
    """Same tokens: how far the maps are apart; any tokens: how far the statistics are."""
    numbers: dict[str, torch.Tensor] = {}
    notes = []
    if first.tokens == second.tokens:
        numbers |= _layer_by_layer(first, second)
        if bool(numbers["pearson"].isnan().any()):
            notes.append(
                Text(
                    "Pearson's r is undefined where a head gives every key the same weight.",
                    "若某头给所有键同样的权重，皮尔逊 r 未定义。",
                )
            )
    else:
        notes.append(
            Text(
                f"The tokens differ ({len(first.keys)} and {len(second.keys)} of them), so the maps have no cells in "
                "common and only statistics of heads are compared; entropy, span and distance grow with the text, "
                "normalised entropy does not. Name a shared word with word=… to compare contexts.",
                f"两侧词元不同（分别为 {len(first.keys)} 和 {len(second.keys)} 个），两张图没有共同的格子，"
                "因此只比较各头的统计量；熵、跨度和距离随文本变长而增大，归一化熵则不会。"
                "用 word=… 指定共有的词可比较语境。",
            )
        )
    before, after = (_statistics(side) for side in (first, second))
    numbers |= {CHANGE_IN + name: after[name] - before[name] for name in before}
    notes += [_parked(first, _IN_FIRST), _parked(second, _IN_SECOND)]
    gone = [name for name in before if bool((before[name] + after[name]).isnan().all()) and name != "next_token"]
    if gone:
        names = ", ".join(gone)
        notes.append(
            Text(
                f"Undefined here: {names}. No row of one text has what they are about: a place of its own among the "
                "keys (cross-attention has none), a neighbour, a row before it, a second key to choose from.",
                f"此处未定义：{names}。某一侧没有任何一行具备其所涉的对象：在键中有自己的位置（交叉注意力没有）、"
                "有相邻词元、前面还有行、有第二个键可选。",
            )
        )
    if first.causal or second.causal:
        notes.append(
            Text(
                "In a causal stack next_token is impossible, so its change is undefined.",
                "因果的栈中不可能注意后一词元，其变化未定义。",
            )
        )
    unit = "nats (js, entropy), tokens (span, distance), −1 to 1 (pearson), shares (all others)"
    return torch.stack(list(numbers.values())), (Axis(STATISTIC, tuple(numbers)),), unit, notes


def _layer_by_layer(first: Side, second: Side) -> dict[str, torch.Tensor]:
    """How far the maps are apart, ``[layer, head]`` each: layer after layer, for all at once take too much room."""
    masks = _masks(first) | {"causal": first.causal and second.causal}
    found = [
        functional.compare_maps(one[None, None], other[None, None], **masks)
        for one, other in zip(first.weights, second.weights, strict=True)
    ]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def _maps(first: Side, second: Side) -> Found:
    """Whole maps word by word, where both have the same words."""
    one, other = first.worded(), second.worded()
    if (one.rows.texts, one.keys.texts) != (other.rows.texts, other.keys.texts):
        shared = dict.fromkeys(text for text in one.keys.texts if text in other.keys.texts)
        raise ArgumentError(
            Text(
                f"expected the same words in both texts to compare whole maps, got {len(one.keys)} and "
                f"{len(other.keys)} that differ; compare around a word that both have, with word=…: {listed(shared)}",
                f"比较整张图时，两段文本的词应相同，得到的是 {len(one.keys)} 个与 {len(other.keys)} 个不同的词；"
                f"请用 word=… 围绕两者共有的词来比较：{listed(shared, '无')}",
            )
        )
    values = _three(one.weights, other.weights)
    axes = (_SIDES, Axis(QUERY, one.rows.texts), Axis(KEY, one.keys.texts))
    return values, axes, "share", []


def _word(sides: list[Side], word: str, occurrence: Occurrence, *, direction: str, by: str, others: str) -> Found:
    """Around one word."""
    which = occurrence if isinstance(occurrence, tuple) else (occurrence, occurrence)
    first, second = (Around.of(side.worded(), word, nth, direction) for side, nth in zip(sides, which, strict=True))
    shared = shared_words(first, second)
    lonely = [*first.lonely(shared), *second.lonely(shared)]
    columns: list[Name | None] = [*shared, *(lonely if others == "apart" else [None] if lonely else [])]
    rows = [one.over(columns) for one in (first, second)]
    if by == "word":
        labels = tuple(OTHERS if name is None else first.label(name) for name in columns)
        axes = (_SIDES, Axis(KEY if first.looks else QUERY, labels))
        return _three(*rows), axes, "share", [*about_words(first, second, columns), *about_rows(first, second)]
    before, after = first.statistics(), second.statistics()
    numbers = {"js": functional.jensen_shannon(*rows)} if first.looks else {}
    numbers |= {CHANGE_IN + name: after[name] - before[name] for name in before if name in after}
    notes = [*about_words(first, second, columns), *about_statistics(before, after)]
    unit = "nats (js, entropy), shares (all others)" if first.looks else "share"
    return torch.stack(list(numbers.values())), (Axis(STATISTIC, tuple(numbers)),), unit, notes


def _three(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.stack([first, second, second - first])


def _masks(side: Side) -> dict[str, Any]:
    queries, keys = side.weights.shape[-2:]
    return {
        "valid": torch.ones(1, keys, dtype=torch.bool),
        "valid_queries": torch.ones(1, queries, dtype=torch.bool),
        "positions": torch.tensor([-1] * queries if side.positions is None else side.positions),
    }


def _parked(side: Side, where: Text) -> Text:
    return parked_share(side.weights[:, None], torch.tensor([side.keys.special]), side.weights.shape[-2], where=where)


def _statistics(side: Side) -> dict[str, torch.Tensor]:
    masks = _masks(side) | {"causal": side.causal}
    found = [functional.head_statistics(one[None, None], **masks) for one in side.weights]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def _unknown(sides: list[Side]) -> list[Text]:
    return nan_weights(torch.cat([side.weights.flatten() for side in sides]))


def _left_out(sides: list[Side], asked: bool) -> list[Text]:
    if not asked:
        return []
    one, other = (side.left_out for side in sides)
    return [
        Text(
            f"Special tokens are left out and rows made to sum to one again: {one:.0%} of all weight in the first "
            f"text and {other:.0%} in the second lay on them.",
            f"已去除特殊词元并重新归一：第一侧有 {one:.0%}、第二侧有 {other:.0%} 的权重原本落在它们上面。",
        )
    ]
