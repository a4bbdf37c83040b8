"""The maps of a trace sorted into groups that BertViz can draw: one shape, one pair of labels, a layer once each.

A stack is one group unless its layers differ (windows of several sizes, several maps in a module): BertViz reads the
number of heads and the tokens from the first layer and would be silently wrong about the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.stack_names import stack_name
from hf_attnviz.trace import Trace
from hf_attnviz.views.encoding import packed, scaled_integers, weight_numbers
from hf_attnviz.views.page import in_both


@dataclass(frozen=True, eq=False)
class Group:
    """Maps that are drawn together.

    Attributes:
        name: what the menu calls them.
        maps: one a layer, all of one shape and with the same labels.
        heads: which heads of the model are drawn.
    """

    name: Text
    maps: tuple[AttentionMap, ...]
    heads: tuple[int, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(m.layer for m in self.maps)

    @property
    def longest(self) -> int:
        """The number of tokens on the side that has more."""
        return max(len(self.maps[0].queries), len(self.maps[0].keys))

    @property
    def undefined_rows(self) -> int:
        """How many rows hold NaN (they see nothing)."""
        return sum(int(torch.isnan(self.weights(n)).any(-1).sum()) for n in range(len(self.maps)))

    @property
    def has_vectors(self) -> bool:
        return all(m.query_vectors is not None and m.key_vectors is not None for m in self.maps)

    @property
    def widths(self) -> list[int] | None:
        """How many keys from the first on each row may see, where no row of any map looks ahead: no more is stored."""
        places = {m.positions for m in self.maps}
        if len(places) > 1 or not all(m.causal for m in self.maps):
            return None
        return [place + 1 for place in self.maps[0].positions or ()]

    def weights(self, place: int) -> torch.Tensor:
        """``[head, query, key]`` of the heads that are drawn."""
        return self.maps[place].weights[list(self.heads)]

    def payload(self, *, exact: bool = False, vectors: bool = False) -> dict[str, Any]:
        """What the page's script gets: labels, layers, heads, and for each layer its numbers, packed, once."""
        first = self.maps[0]
        return {
            "name": in_both(self.name),
            "layers": list(self.layers),
            "heads": list(self.heads),
            "left": [visible(text) for text in first.row_texts],
            "right": [visible(text) for text in first.keys.texts],
            "filters": _pair_filters(first.queries, first.keys),
            "widths": self.widths,
            "bidirectional": not (self.widths and all(m.whole for m in self.maps)),
            "exact": exact,
            "numbers": [self.numbers(n, exact=exact, vectors=vectors) for n in range(len(self.maps))],
        }

    def numbers(self, place: int, *, exact: bool, vectors: bool) -> dict[str, Any]:
        """The numbers of one layer, packed: weights, of causal maps the triangle alone, and query and key vectors."""
        codes = weight_numbers(self.weights(place), exact=exact)
        if self.widths is not None:
            codes = codes[:, np.arange(codes.shape[-1]) < np.array(self.widths)[:, None]]
        found: dict[str, Any] = {"weights": packed(codes)}
        if vectors:
            found |= _vectors(self.maps[place], self.heads)
        return found


def bytes_taken(numbers: Any) -> int:
    """How many bytes of a page these numbers take."""
    if isinstance(numbers, str):
        return len(numbers)
    if isinstance(numbers, dict):
        return sum(map(bytes_taken, numbers.values()))
    return sum(map(bytes_taken, numbers)) if isinstance(numbers, list) else 8


def _vectors(m: AttentionMap, heads: Sequence[int]) -> dict[str, Any]:
    """Query vectors of these heads, and key vectors once for each group of heads."""
    assert m.query_vectors is not None
    assert m.key_vectors is not None
    served = [head * len(m.key_vectors) // m.heads for head in heads]
    own = sorted(set(served))
    found: dict[str, Any] = {"size": int(m.query_vectors.shape[-1]), "key_of": [own.index(key) for key in served]}
    for side, vectors in (("queries", m.query_vectors[list(heads)]), ("keys", m.key_vectors[own])):
        codes, units = scaled_integers(vectors)
        found[side] = {"codes": packed(codes), "units": units}
    return found


def groups(trace: Trace, stack: str | None) -> list[Group]:
    """The groups of one stack, or of all of them.

    Raises:
        UnknownStackError: no such stack.
        ArgumentError: the trace is empty.
    """
    names = list(trace.stacks) if stack is None else [stack]
    found: list[Group] = []
    for name in names:
        alike = _alike([m.plain() for m in trace.stack(name).maps])
        for maps in alike:
            found.append(Group(_group_name(name, maps, alone=len(alike) == 1), maps, tuple(range(maps[0].heads))))
    if not found:
        raise ArgumentError(
            Text("expected a trace with attention maps; this one is empty", "应为含有注意力图的 trace；这个是空的")
        )
    return found


def starting_place(found: Sequence[Group], layer: int | None) -> tuple[int, int]:
    """Which group is shown first, and which of its maps: cross-attention's before others, the first or ``layer``."""
    crossed_first = sorted(enumerate(found), key=lambda numbered: numbered[1].maps[0].kind != "cross")
    for number, group in crossed_first:
        if layer is None or layer in group.layers:
            return number, 0 if layer is None else group.layers.index(layer)
    known = sorted({known for group in found for known in group.layers})
    raise UnknownNameError(
        Text(
            f"no layer {layer} to show; there are: {listed(known)}",
            f"没有第 {layer} 层可显示；可用：{listed(known, '无')}",
        )
    )


def checked_heads(heads: Iterable[int] | int | None, group: Group) -> list[int] | None:
    """Heads to show at first, or None for all."""
    if heads is None:
        return None
    chosen = [heads] if isinstance(heads, int) else list(heads)
    wrong = [head for head in chosen if head not in group.heads]
    if wrong or not chosen:
        raise UnknownNameError(
            Text(
                f"expected heads of {ranges(group.heads)}, got {listed(wrong)}",
                f"头应为 {ranges(group.heads)} 之一，得到 {listed(wrong, '无')}",
            )
        )
    return chosen


def with_layers(trace: Trace, stack: str | None, layers: Iterable[int] | int | None) -> Trace:
    """The part of a trace that is to be drawn.

    Raises:
        UnknownStackError: no such stack.
        UnknownNameError: a layer that it has not.
    """
    maps = trace.maps if stack is None else trace.stack(stack).maps
    if layers is not None:
        wanted = {layers} if isinstance(layers, int) else set(layers)
        known = sorted({m.layer for m in maps})
        unknown = sorted(wanted - set(known))
        if unknown or not wanted:
            raise UnknownNameError(
                Text(
                    f"expected layers of {ranges(known)}, got {listed(unknown) or 'none'}",
                    f"层应为 {ranges(known)} 之一，得到 {listed(unknown, '无')}",
                )
            )
        maps = tuple(m for m in maps if m.layer in wanted)
    return trace if maps is trace.maps else replace(trace, maps=maps)


def with_heads(found: Sequence[Group], heads: Iterable[int] | int | None) -> list[Group]:
    """The groups with these heads alone; groups that have none of them are left out.

    Raises:
        UnknownNameError: a head that no group has.
    """
    if heads is None:
        return list(found)
    wanted = {heads} if isinstance(heads, int) else set(heads)
    checked_heads(sorted(wanted), max(found, key=lambda group: len(group.heads)))
    several = [replace(group, heads=tuple(head for head in group.heads if head in wanted)) for group in found]
    return [group for group in several if group.heads]


def _alike(maps: Sequence[AttentionMap]) -> list[tuple[AttentionMap, ...]]:
    sorted_out: dict[tuple[Any, ...], list[AttentionMap]] = {}
    for m in maps:
        size = None if m.query_vectors is None else m.query_vectors.shape[-1]
        alike = (tuple(m.shape), m.index, m.row_texts, m.keys.texts, size)
        nth = 0
        while any(m.layer == other.layer for other in sorted_out.get((*alike, nth), ())):
            nth += 1
        sorted_out.setdefault((*alike, nth), []).append(m)
    return [tuple(found) for found in sorted_out.values()]


def _group_name(name: str, maps: Sequence[AttentionMap], *, alone: bool) -> Text:
    title = stack_name(name)
    if alone:
        return title
    layers = ranges([m.layer for m in maps])
    word = "layer" if len(maps) == 1 else "layers"
    part = f" · {maps[0].index}" if maps[0].index else ""
    return Text(f"{title.en}, {word} {layers}{part}", f"{title.zh}，第 {layers} 层{part}")


def ranges(numbers: Sequence[int]) -> str:
    """
    >>> ranges([3]), ranges([0, 1, 2]), ranges([0, 4, 8])
    ('3', '0–2', '0, 4, 8')
    """
    first, last = numbers[0], numbers[-1]
    if list(numbers) == list(range(first, last + 1)):
        return str(first) if first == last else f"{first}–{last}"
    return ", ".join(map(str, numbers))


def _pair_filters(queries: Labels, keys: Labels) -> list[dict[str, Any]]:
    """For a text pair (two texts parted by special tokens): each text to each, as BertViz offers it."""
    starts = [segment.start for segment in queries.segments if segment.kind == "text"]
    only_text = {segment.kind for segment in queries.segments} <= {"text", "special"}
    if queries != keys or len(starts) != 2 or not only_text:
        return []
    parts = {"A": [0, starts[1]], "B": [starts[1], len(queries)]}
    return [
        {
            "name": in_both(Text(f"Text {a} → text {b}", f"文本 {a} → 文本 {b}")),
            "left": parts[a],
            "right": parts[b],
        }
        for a in parts
        for b in parts
    ]
