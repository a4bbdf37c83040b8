"""Attention in leaves that a page's two menus choose from, and as many of them as a page may hold.

A leaf is one head of one layer, the mean over a layer's heads, or the mean over all: ``[query, key]``. Where all of
them would be too much, the heads of one layer and means are kept, then means alone, then fewer rows; the page says so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.views.encoding import packed, weight_numbers
from hf_attnviz.views.page import in_both

ROOM: Final = 6_500_000  # weights that a page holds: beside the picture some 2 to 8 MB
_STRETCHED: Final = 2.5  # times as much, before the heads of the last layer left are given up
_UNDEFINED: Final = 65_535
ALL_LAYERS: Final = Text("mean of all", "各层平均")
ALL_HEADS: Final = Text("mean of all", "各头平均")


@dataclass(frozen=True, eq=False)
class Leaf:
    """One choice of both menus.

    Attributes:
        outer, inner: what the first menu and the second say: a layer and a head.
        weights: gives ``[query, key]``.
    """

    outer: Text
    inner: Text
    weights: Callable[[], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Held:
    """What of some leaves a page holds.

    Attributes:
        leaves: those that it holds.
        rows: the rows that it holds of each.
        note: what was left out; None for nothing.
    """

    leaves: tuple[Leaf, ...]
    rows: tuple[int, ...]
    note: Text | None = None


def leaf_of(maps: Sequence[AttentionMap], layer: int | None, head: int | None) -> Leaf:
    """The leaf of a layer (None: the mean of all) and a head (None: the mean of all)."""
    chosen = [m for m in maps if layer is None or m.layer == layer]
    outer, inner = _said(layer, ALL_LAYERS), _said(head, ALL_HEADS)

    def weights() -> torch.Tensor:
        total = torch.zeros(chosen[0].shape[-2:])
        for m in chosen:
            found = m.weights.detach()
            total += (found.float().mean(0) if head is None else found[head].float()).cpu()
        return total / len(chosen)

    return Leaf(outer, inner, weights)


def held(
    maps: Sequence[AttentionMap], layer: int | None, rows: Sequence[int], keys: int, first: Sequence[int] = ()
) -> Held:
    """The leaves of some maps, one a layer, as many as there is room for.

    Args:
        maps: a layer each.
        layer: the one that matters most; None for the last.
        rows: the rows that are wanted.
        keys: how many keys of each row are held.
        first: the rows that matter most.
    """
    special = maps[-1] if layer is None else next(m for m in maps if m.layer == layer)
    means = [leaf_of(maps, None, None)] if len(maps) > 1 else []
    means_by_layer = [*means, *(leaf_of(maps, m.layer, None) for m in maps)]
    heads = {m.layer: [leaf_of(maps, m.layer, head) for head in range(m.heads)] for m in maps}
    own = leaf_of(maps, special.layer, None)
    plans: list[tuple[list[Leaf], Text | None]] = [
        ([*means_by_layer, *(leaf for m in maps for leaf in heads[m.layer])], None),
        ([*means_by_layer, *heads[special.layer]], _one_layer(special.layer)),
        ([*means, own, *heads[special.layer]], _only_layer(special.layer)),
        ([*means, own], _only_means(special.layer)),
    ]
    for (leaves, note), stretched in zip(plans, (1, 1, _STRETCHED, _STRETCHED), strict=True):
        if len(leaves) * len(rows) * keys <= ROOM * stretched:
            return Held(tuple(leaves), tuple(rows), note)
    leaves = plans[-1][0]
    most = max(1, int(ROOM * _STRETCHED) // (len(leaves) * keys))
    important = [row for row in rows if row in set(first)]
    kept = sorted([*important, *(row for row in rows if row not in set(first))][:most])
    return Held(tuple(leaves), tuple(kept), _fewer_rows(special.layer, len(kept), len(rows)))


def checked_place(maps: Sequence[AttentionMap], layer: int | None, head: int | None) -> None:
    """Raise unless there is such a layer, and such a head in it (in every layer, for the mean of all)."""
    layers = [m.layer for m in maps]
    if layer is not None and layer not in layers:
        raise UnknownNameError(
            Text(
                f"no layer {layer} to show; there are: {listed(layers)}",
                f"没有第 {layer} 层可显示；可用：{listed(layers, '无')}",
            )
        )
    fewest = min(m.heads for m in maps if layer is None or m.layer == layer)
    if head is not None and not 0 <= head < fewest:
        raise UnknownNameError(
            Text(f"expected a head from 0 to {fewest - 1}, got {head}", f"头应为 0 到 {fewest - 1}，得到 {head}")
        )


def found_leaf(leaves: Sequence[Leaf], layer: int | None, head: int | None) -> int:
    """The number of the leaf that a layer and a head name; the first of the layer where the page lacks it."""
    of_layer = [n for n, leaf in enumerate(leaves) if leaf.outer == _said(layer, ALL_LAYERS)]
    exact = [n for n in of_layer if leaves[n].inner == _said(head, ALL_HEADS)]
    return (exact or of_layer or [0])[0]


def encoded(
    leaves: Sequence[Leaf], rows: Sequence[int], keys: Sequence[int], averages: Sequence[Sequence[int]], *, exact: bool
) -> Mapping[str, Any]:
    """What a page's script reads of leaves: weights of rows over keys, the mean over some rows, the share of a row.

    Args:
        leaves: those that the page holds.
        rows, keys: the places that it holds of each.
        averages: for each average the rows that it is taken over; rows that are undefined do not count.
        exact: half precision in place of a byte a weight.
    """
    values, means, shares = [], [], []
    for leaf in leaves:
        whole = leaf.weights()
        chosen = whole[:, list(keys)]
        over = [chosen[list(several)].nanmean(0) for several in averages]
        means.append(torch.stack(over) if over else chosen[:0])
        kept = chosen[list(rows)]
        shares.append(_shares(kept))
        values.append(weight_numbers(kept, exact=exact))
    return {
        "outer": [in_both(one) for one in _distinct(leaf.outer for leaf in leaves)],
        "leaves": [
            {"outer": _distinct(one.outer for one in leaves).index(leaf.outer), "inner": in_both(leaf.inner)}
            for leaf in leaves
        ],
        "exact": exact,
        "values": packed(np.stack(values)),
        "means": packed(torch.stack(means).float().numpy()),
        "shares": packed(np.stack(shares)),
    }


def _shares(kept: torch.Tensor) -> npt.NDArray[np.uint16]:
    """How much of each row lies on these keys, in steps of 1/65,534; :data:`_UNDEFINED` for a row that sees nothing."""
    sums = kept.sum(-1)
    codes = (sums.nan_to_num().clamp(0, 1) * (_UNDEFINED - 1)).round()
    return torch.where(sums.isnan(), float(_UNDEFINED), codes).numpy().astype(np.uint16)


def _said(number: int | None, otherwise: Text) -> Text:
    return otherwise if number is None else Text(str(number), str(number))


def _distinct(texts: Iterable[Text]) -> list[Text]:
    return list(dict.fromkeys(texts))


def _one_layer(layer: int) -> Text:
    return Text(
        f"All heads of all layers would be too much for one page: single heads are here of layer {layer} only, of the "
        "other layers the mean. Choose another with layer=….",
        f"所有层的所有头对一页来说太多：单个头仅含第 {layer} 层，其余层只有平均。可用 layer=… 另选。",
    )


def _only_layer(layer: int) -> Text:
    return Text(
        f"All layers would be too much for one page: it holds layer {layer} with its heads and the mean of all. Choose "
        "another with layer=….",
        f"所有层对一页来说太多：此页只含第 {layer} 层及其各头，以及各层的平均。可用 layer=… 另选。",
    )


def _only_means(layer: int) -> Text:
    return Text(
        f"Single heads would be too much for one page: it holds the mean over the heads of layer {layer}, and the mean "
        "of all layers.",
        f"单个头对一页来说太多：此页只含第 {layer} 层各头的平均，以及各层的平均。",
    )


def _fewer_rows(layer: int, kept: int, wanted: int) -> Text:
    means = _only_means(layer)
    return Text(
        f"{means.en} Of {wanted:,} rows it holds {kept:,}; averages are over all of them.",
        f"{means.zh}{wanted:,} 行中只含 {kept:,} 行；平均仍取自所有行。",
    )
