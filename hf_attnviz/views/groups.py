"""The maps of a trace sorted into groups that BertViz can draw: one shape, one pair of labels, a layer once each.

A stack is one group unless its layers differ (windows of several sizes, several maps in a module): BertViz reads the
number of heads and the tokens from the first layer and would be silently wrong about the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.trace import Trace
from hf_attnviz.views.encoding import packed, weight_codes
from hf_attnviz.views.page import in_both

_STACK_NAMES: Final = {
    "encoder": Text("Encoder", "编码器"),
    "decoder": Text("Decoder", "解码器"),
    "cross": Text("Cross: decoder to encoder", "交叉：解码器到编码器"),
    "vision": Text("Vision", "视觉"),
    "text": Text("Text", "文本"),
    "audio": Text("Audio", "音频"),
}


@dataclass(frozen=True, eq=False)
class Group:
    """Maps that are drawn together.

    Attributes:
        name: what the menu calls them.
        maps: one a layer, all of one shape and with the same labels.
    """

    name: Text
    maps: tuple[AttentionMap, ...]

    @property
    def heads(self) -> int:
        return self.maps[0].heads

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(m.layer for m in self.maps)

    @property
    def undefined_rows(self) -> int:
        """How many rows hold NaN (they see nothing)."""
        return sum(int(torch.isnan(m.weights).any(-1).sum()) for m in self.maps)

    def payload(self) -> dict[str, Any]:
        """What the page's script gets: labels, layers, and the weights as bytes, once."""
        first = self.maps[0]
        codes = [weight_codes(m.weights) for m in self.maps]
        return {
            "name": in_both(self.name),
            "layers": list(self.layers),
            "heads": self.heads,
            "left": [visible(text) for text in first.row_texts],
            "right": [visible(text) for text in first.keys.texts],
            "filters": _pair_filters(first.queries, first.keys),
            "weights": packed(torch.stack([torch.from_numpy(layer) for layer in codes]).numpy()),
        }


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
            found.append(Group(_group_name(name, maps, alone=len(alike) == 1), maps))
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
    wrong = [head for head in chosen if not 0 <= head < group.heads]
    if wrong or not chosen:
        raise UnknownNameError(
            Text(
                f"expected heads from 0 to {group.heads - 1}, got {listed(wrong or chosen)}",
                f"头应为 0 到 {group.heads - 1}，得到 {listed(wrong or chosen, '无')}",
            )
        )
    return chosen


def stack_name(name: str) -> Text:
    """A stack's name for people."""
    tower, _, number = name.rpartition("_")  # vision_0: the first of several pictures
    if tower in _STACK_NAMES and number.isdigit():
        return Text(f"{_STACK_NAMES[tower].en} {number}", f"{_STACK_NAMES[tower].zh} {number}")
    return _STACK_NAMES.get(name, Text(name, name))


def _alike(maps: Sequence[AttentionMap]) -> list[tuple[AttentionMap, ...]]:
    sorted_out: dict[tuple[Any, ...], list[AttentionMap]] = {}
    for m in maps:
        alike = (tuple(m.shape), m.index, m.row_texts, m.keys.texts)
        nth = 0
        while any(m.layer == other.layer for other in sorted_out.get((*alike, nth), ())):
            nth += 1
        sorted_out.setdefault((*alike, nth), []).append(m)
    return [tuple(found) for found in sorted_out.values()]


def _group_name(name: str, maps: Sequence[AttentionMap], *, alone: bool) -> Text:
    title = stack_name(name)
    if alone:
        return title
    layers = _ranges([m.layer for m in maps])
    word = "layer" if len(maps) == 1 else "layers"
    part = f" · {maps[0].index}" if maps[0].index else ""
    return Text(f"{title.en}, {word} {layers}{part}", f"{title.zh}，第 {layers} 层{part}")


def _ranges(numbers: Sequence[int]) -> str:
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
