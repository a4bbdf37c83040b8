"""How much attention each head gives to a system prompt, a document, a picture: labelled."""

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import pad

from hf_attnviz import functional
from hf_attnviz.analysis.beside import interval_note
from hf_attnviz.analysis.caveats import left_out
from hf_attnviz.analysis.pooling import Pooled, listed_traces, pooled
from hf_attnviz.axes import HEAD, LAYER, SEGMENT
from hf_attnviz.errors import ArgumentError, NotKeptError, ShapeError, listed
from hf_attnviz.functional import Tally
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace

REST = "other"
_KEPT = "segments"
_ROWS = Text(
    "Means over rows. A row that stands before a segment of a causal model cannot see it: its 0 counts.",
    "对各行取平均。因果模型中位于某片段之前的行看不到它：其 0 计入。",
)
_BASELINE = Text(
    "The baseline is a head that is even over all keys that causality leaves a row, windows not counted.",
    "基线是在因果性所允许的全部键上均匀的头，不计窗口。",
)
_LACKING = Text(
    "Undefined (NaN): no row looks at anything, or the token ids by which a segment is told are not known.",
    "未定义（NaN）：没有任何行看任何键，或用于判定片段的词元 id 未知。",
)


def segment_mass(
    traces: Trace | Sequence[Trace],
    *,
    segments: Mapping[str, tuple[int, int]] | None = None,
    stack: str | None = None,
) -> Result:
    """The mean weight of all rows on each segment of the keys: ``[segment, layer, head]``; over segments it adds up to
    one.

    Of traces captured with ``keep=av.Segments(…)``: what was kept. Of traces that keep their weights: by ``segments``,
    or else by the kinds of the keys (``text``, ``special``, ``patch`` …). Beside it the share of an even head, and from
    five traces on the interval over traces. Row by row it stands in ``trace.maps[0].reduced["segments"].mass``.

    Args:
        segments: (start, stop) by name, places of the keys ``start <= place < stop``; all others are ``"other"``.

    Raises:
        NotKeptError: the traces keep neither the weights nor, where none are named here, segments.
    """
    several = listed_traces(traces)
    stacks = [trace.stack(stack) for trace in several]
    kept = all(_KEPT in m.reduced for one in stacks for m in one)
    if kept and segments is None:
        return _of_kept(stacks)
    if segments is None and not all(m.has_weights for one in stacks for m in one):
        raise NotKeptError(
            Text(
                "no mass by segment was kept: capture with keep=av.Segments({name: (start, stop)}), or with "
                'keep="maps"',
                '没有保留各片段的权重：请以 keep=av.Segments({name: (start, stop)}) 或 keep="maps" 捕获',
            )
        )
    data = pooled(several, stack)
    names, members = _members(data, segments)
    mass = functional.segment_mass(data.attention, members)
    even = functional.segment_mass(functional.uniform_like(data.attention, valid=data.valid), members)
    rows = data.valid_queries & _known(mass)
    tallies = (functional.mass_by_example(one, rows) for one in (mass, even))
    return _told(data.stacks, names, *tallies, causal=data.causal, notes=left_out(data))


def _of_kept(stacks: Sequence[AttentionStack]) -> Result:
    first = stacks[0].maps[0].reduced[_KEPT]
    alike = {(tuple(m.reduced[_KEPT].about[SEGMENT]), m.heads, n) for one in stacks for n, m in enumerate(one)}
    if len(alike) != len(stacks[0]) or len({one.layers for one in stacks}) > 1:
        raise ShapeError(
            Text(
                "these traces differ in layers, heads or segments; capture them with the same keep",
                "这些 trace 的层、头或片段不同；请以相同的 keep 捕获",
            )
        )
    causal = all(m.causal for one in stacks for m in one)
    longest = max(m.shape[1] for one in stacks for m in one)

    def rows(table: torch.Tensor) -> torch.Tensor:
        return pad(table, (0, 0, 0, longest - table.shape[-2]), value=torch.nan)

    mass = torch.stack([torch.stack([rows(m.reduced[_KEPT].mass) for m in one]) for one in stacks], 1)
    counts = [one.maps[0].reduced[_KEPT]["keys_causal" if causal else "keys"] for one in stacks]
    even = torch.stack([rows(one / one.sum(-1, keepdim=True)) for one in counts])[None, :, None]
    tallies = (functional.mass_by_example(one, _known(mass)) for one in (mass, even))
    return _told(stacks, tuple(first.about[SEGMENT]), *tallies, causal=causal, notes=[_BASELINE])


def _members(data: Pooled, segments: Mapping[str, tuple[int, int]] | None) -> tuple[tuple[str, ...], torch.Tensor]:
    """The names of the segments, and which key is of which ``[batch, key, segment]``."""
    keys = [one.keys for one in data.stacks]
    if segments is None:
        names = tuple(dict.fromkeys(kind for labels in keys for kind in labels.kinds))
        marks = [[names.index(kind) for kind in labels.kinds] for labels in keys]
    else:
        names = (*segments, REST)
        for name, (start, stop) in segments.items():
            if name == REST or not 0 <= start < stop:
                raise ArgumentError(
                    Text(
                        f"expected places 0 <= start < stop and no {REST!r}, got {name}: {(start, stop)}",
                        f"位置应满足 0 <= start < stop，且名字不能为 {REST!r}，得到 {name}：{(start, stop)}",
                    )
                )
        marks = [[_which(place, segments) for place in range(len(labels))] for labels in keys]
    found = torch.zeros(*data.valid.shape, len(names), dtype=torch.bool)
    for row, mark in zip(found, marks, strict=True):
        row[torch.arange(len(mark)), torch.tensor(mark)] = True
    return names, found


def _known(mass: torch.Tensor) -> torch.Tensor:
    """The rows of which any head tells something ``[batch, query]``: a baseline counts the same rows."""
    return ~mass.isnan().any(-1).all(2).all(0)


def _which(place: int, segments: Mapping[str, tuple[int, int]]) -> int:
    return next((n for n, (start, stop) in enumerate(segments.values()) if start <= place < stop), len(segments))


def _told(
    stacks: Sequence[AttentionStack],
    names: Sequence[str],
    found: Tally,
    even: Tally,
    *,
    causal: bool,
    notes: Sequence[Text],
) -> Result:
    values, (low, high) = found.mean(), found.interval()
    return Result(
        values,
        (
            Axis(SEGMENT, tuple(names)),
            Axis(LAYER, tuple(map(str, stacks[0].layers))),
            Axis(HEAD, tuple(map(str, range(stacks[0].maps[0].heads)))),
        ),
        "mass by segment",
        {"stack": stacks[0].name, "sequences": len(stacks), "causal": causal, "segments": listed(names)},
        "",
        "share",
        (_ROWS, *notes, *([_LACKING] if bool(values.isnan().any()) else []), interval_note(len(stacks))),
        low,
        high,
        even.mean().to(values.dtype).expand_as(values).contiguous(),
    )
