"""How well each head aligns two texts: against known links, and by the order that it keeps; labelled."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.alignment import between
from hf_attnviz.analysis.pooling import listed_traces
from hf_attnviz.analysis.sides import READS
from hf_attnviz.axes import HEAD, LAYER, STATISTIC
from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.pharaoh import Link
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

_KINDS: Final = [f"{kind}_{read}" for kind in ("error_rate", "monotone", "kendall_tau") for read in READS]
_ORDER: Final = Text(
    "Monotone: the share of steps from a target to the next whose link does not go back. Kendall's τ: agreement of "
    "both orders over all pairs. A head that always looks at one place is fully monotone, with τ = 0: it aligns "
    "nothing.",
    "单调：相邻目标间链接不后退的比例。Kendall τ：所有词对上两种次序的一致程度。"
    "始终看同一处的头完全单调而 τ = 0：它什么也没有对齐。",
)

_NO_ORDER: Final = Text(
    "NaN: fewer than two targets, or a target without a link, have no order; without links there is no error rate.",
    "NaN：目标少于两个，或有目标没有链接，则没有次序；没有链接就没有错误率。",
)


def alignment_scores(
    traces: Trace | Sequence[Trace],
    *,
    sure: Collection[Link] | Sequence[Collection[Link]] | None = None,
    possible: Collection[Link] | Sequence[Collection[Link]] | None = None,
    stack: str = "cross",
    method: str = "argmax",
    words: bool = False,
    special: bool = False,
) -> Result:
    """How well each head aligns, by both rows: ``[statistic, layer, head]``.

    ``error_rate_output`` and ``error_rate_reading`` (only with ``sure``): the alignment error rate of the row that put
    out each target and of the row that read it, links of all traces pooled. ``monotone_…`` and ``kendall_tau_…``: how
    far the links keep the order of the source (:func:`hf_attnviz.functional.monotonicity`), the mean over traces.

    Args:
        traces: one trace or several.
        sure, possible: the right links, (source, target), places counted as :func:`alignment` counts them with the
            same ``words`` and ``special``; for several traces, one collection each. ``possible`` defaults to ``sure``.
        stack, method, words, special: as in :func:`alignment`.

    Raises:
        ArgumentError: no trace; not one collection of links a trace; a sure link that is not possible, or that leads
            beyond the texts.
        ShapeError: traces whose layers or heads differ.
    """
    alone = isinstance(traces, Trace)
    several = listed_traces(traces)
    layers = _same_layers(several, stack)
    certain = _each(sure, len(several), alone)
    allowed = _each(sure if possible is None else possible, len(several), alone)
    if certain is None and allowed is not None:
        raise ArgumentError(
            Text(
                "got possible links without sure ones; pass sure too (an empty collection for none)",
                "给了 possible 链接，却没有 sure 链接；请同时给出 sure（没有就给空集合）",
            )
        )
    numbers: dict[str, torch.Tensor] = {}
    chances = []
    for read in READS:
        found = [functional.linked(between(one, stack, read, words, special)[2], method=method) for one in several]
        if len({one.shape[1] for one in found}) > 1:
            raise ShapeError(
                Text(
                    "these traces differ in heads; analyse traces of one model together",
                    "这些 trace 的头数不同；请一起分析同一模型的 trace",
                )
            )
        if certain is not None and allowed is not None:
            if read == "output":  # the last token of a generation was put out and never read
                _check_places([right | fine for right, fine in zip(certain, allowed, strict=True)], found)
            numbers[f"error_rate_{read}"] = _error_rates(found, certain, allowed)
            chances.append(_chance(found, certain, allowed))
        order = [_monotonicity(one) for one in found]
        numbers[f"monotone_{read}"] = torch.stack([one["fraction"] for one in order]).nanmean(0)
        numbers[f"kendall_tau_{read}"] = torch.stack([one["kendall_tau"] for one in order]).nanmean(0)
    names = tuple(sorted(numbers, key=_KINDS.index))
    values = torch.stack([numbers[name] for name in names]).float()
    axes = Axis(LAYER, tuple(map(str, layers))), Axis(HEAD, tuple(map(str, range(values.shape[-1]))))
    return Result(
        values,
        (Axis(STATISTIC, names), *axes),
        "alignment scores",
        {"stack": stack, "sequences": len(several), "method": method, "words": words, "special": special}
        | ({"chance_error_rate": chances[0]} if chances else {}),
        "Och & Ney 2003; Kendall 1938",
        "shares (error rate, monotone), −1 to 1 (Kendall's τ)",
        (*_about_chance(chances), _ORDER, *([_NO_ORDER] if bool(values.isnan().any()) else [])),
    )


def _about_chance(chances: Sequence[float]) -> list[Text]:
    if not chances:
        return []
    return [
        Text(
            f"The error rate is 0 at best; a source drawn evenly at random for each target would get {chances[0]:.2f}. "
            "Both rows are shown: which of them aligns differs from model to model.",
            f"错误率最好为 0；为每个目标均匀随机选一个源会得到 {chances[0]:.2f}。两种行都列出：哪一种对齐因模型而异。",
        )
    ]


def _same_layers(traces: Sequence[Trace], stack: str) -> tuple[int, ...]:
    layers = {trace.stack(stack).layers for trace in traces}
    if len(layers) > 1:
        raise ShapeError(
            Text(
                "these traces differ in layers; analyse traces of one model together",
                "这些 trace 的层不同；请一起分析同一模型的 trace",
            )
        )
    return next(iter(layers))


def _each(given: Any, count: int, alone: bool) -> list[set[Link]] | None:
    """The links of each trace; of one trace given alone they stand alone too."""
    if given is None:
        return None
    each = [given] if alone else list(given)
    if len(each) != count:
        raise ArgumentError(
            Text(
                f"expected one collection of links for each of {count} traces, got {len(each)}",
                f"应为 {count} 个 trace 各给一组链接，得到 {len(each)} 组",
            )
        )
    return [{(int(source), int(target)) for source, target in one} for one in each]


def _check_places(references: Sequence[set[Link]], found: Sequence[torch.Tensor]) -> None:
    """Refuse links that lead beyond the texts: they count other tokens than we do."""
    for number, (pairs, one) in enumerate(zip(references, found, strict=True)):
        targets, sources = one.shape[-2:]
        outside = [(s, t) for s, t in pairs if not (0 <= s < sources and 0 <= t < targets)]
        if outside:
            raise ArgumentError(
                Text(
                    f"expected links within {sources} sources and {targets} targets of trace {number}, got "
                    f"{min(outside)}; places are counted without special tokens (special=False), in words with "
                    "words=True",
                    f"trace {number} 的链接应在 {sources} 个源与 {targets} 个目标之内，得到 {min(outside)}；"
                    "位置的计数不含特殊词元（special=False），words=True 时按词计",
                )
            )


def _error_rates(
    found: Sequence[torch.Tensor], certain: Sequence[set[Link]], allowed: Sequence[set[Link]]
) -> torch.Tensor:
    """``[layer, head]``, the links of all traces pooled, each with the number of its trace."""
    right, fine = ({(n, *pair) for n, pairs in enumerate(each) for pair in pairs} for each in (certain, allowed))
    shape = found[0].shape[:2]
    rates = torch.empty(shape, dtype=torch.float64)
    for place in ((layer, head) for layer in range(shape[0]) for head in range(shape[1])):
        ours = {(n, s, t) for n, one in enumerate(found) for t, s in one[place].nonzero().tolist()}
        rates[place] = functional.alignment_error_rate(ours, right, fine)
    return rates


def _chance(found: Sequence[torch.Tensor], certain: Sequence[set[Link]], allowed: Sequence[set[Link]]) -> float:
    """The error rate to be expected of one link a target, its source drawn evenly."""
    hits = total = 0.0
    for one, right, fine in zip(found, certain, allowed, strict=True):
        targets, sources = one.shape[-2:]
        hits += (len(right) + len(fine)) / sources
        total += targets + len(right)
    return 1 - hits / total


def _monotonicity(one: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of links ``[layer, head, target, source]``, ``[layer, head]`` each; NaN where a target has no link."""
    missing = ~one.any(-1).all(-1)
    order = functional.monotonicity(one.to(torch.uint8).argmax(-1))
    return {name: values.masked_fill(missing, torch.nan) for name, values in order.items()}
