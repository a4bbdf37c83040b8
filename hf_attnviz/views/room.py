"""How much a page may hold: layers, then heads, are left out until the numbers fit, and the page says which it has."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.views.encoding import megabytes
from hf_attnviz.views.groups import Group, bytes_taken, ranges

MOST_BYTES: Final = 12_000_000
"""What the numbers of one page may take: half of 12 × 12 heads at 512 tokens (measured on MiniLM: 24.5 MB), which a
browser still unpacks in a second and a notebook of several pictures can still be saved."""


def fitting(
    found: Sequence[Group],
    start: int,
    place: int,
    heads: Sequence[int],
    *,
    most: int,
    exact: bool = False,
    vectors: bool = False,
) -> tuple[list[Group], int, int, list[Text]]:
    """What fits of these groups, where the picture then starts, and what to say of it.

    Layers are left out evenly, from all groups alike; the one shown at first stays. Where not even that fits, it keeps
    as many heads as do, first those asked for.

    Args:
        start, place: the group shown at first, and which of its maps.
        heads: the heads to keep before others.
        most: bytes, as they lie in the page.

    Raises:
        ArgumentError: not even one head fits.
    """
    sizes = [
        bytes_taken(group.numbers(place if n == start else 0, exact=exact, vectors=vectors))
        for n, group in enumerate(found)
    ]
    total = sum(size * len(group.maps) for size, group in zip(sizes, found, strict=True))
    if total <= most:
        return list(found), start, place, []
    kept: list[Group] = []
    for n, group in enumerate(found):
        first = place if n == start else 0
        chosen = _evenly(len(group.maps), int(most / total * len(group.maps)), first)
        if n == start:
            chosen = chosen or [place]
            start_now, place_now = len(kept), chosen.index(place)
            group = _with_fewer_heads(group, heads, sizes[n], most)
        if chosen:
            kept.append(replace(group, maps=tuple(group.maps[layer] for layer in chosen)))
    return kept, start_now, place_now, [_said(kept, total)]


def _evenly(count: int, room: int, wanted: int) -> list[int]:
    """``room`` of ``count`` places, spread evenly, ``wanted`` among them.

    >>> _evenly(12, 4, 5)
    [0, 5, 7, 11]
    """
    if room < 2:
        return [wanted] * min(room, count)
    spread = [round(n * (count - 1) / (room - 1)) for n in range(min(room, count))]
    nearest = min(range(len(spread)), key=lambda n: abs(spread[n] - wanted))
    return sorted({*spread[:nearest], wanted, *spread[nearest + 1 :]})


def _with_fewer_heads(group: Group, heads: Sequence[int], size: int, most: int) -> Group:
    """The group with as many heads as fit where one layer alone takes too much."""
    if size <= most:
        return group
    room = int(most / size * len(group.heads))
    if room < 1:
        raise ArgumentError(
            Text(
                f"one head of {group.longest:,} tokens takes {megabytes(size / len(group.heads))} of a page, more than "
                f"max_bytes={most:,}: allow more, capture some queries alone, or draw long_view(trace)",
                f"{group.longest:,} 个词元的一个头就占一页的 {megabytes(size / len(group.heads))}，超过 "
                f"max_bytes={most:,}：请放宽它，只捕获部分查询，或绘制 long_view(trace)",
            )
        )
    first = sorted(group.heads, key=lambda head: head not in heads)
    return replace(group, heads=tuple(sorted(first[:room])))


def _said(kept: Sequence[Group], total: int) -> Text:
    english = "; ".join(f"{g.name.en}: {_parts(g)}" for g in kept)
    chinese = "；".join(f"{g.name.zh}：第 {ranges(g.layers)} 层、第 {ranges(g.heads)} 头" for g in kept)
    whole = megabytes(total)
    return Text(
        f"This page holds a part only ({english}): everything would take about {whole}. Choose others with stack=…, "
        "layers=… or heads=…, or allow more with max_bytes=….",
        f"本页只含一部分（{chinese}）：全部约需 {whole}。可用 stack=…、layers=… 或 heads=… 另选，"
        "或用 max_bytes=… 放宽上限。",
    )


def _parts(group: Group) -> str:
    layers, heads = ("s" if len(several) > 1 else "" for several in (group.layers, group.heads))
    return f"layer{layers} {ranges(group.layers)}, head{heads} {ranges(group.heads)}"
