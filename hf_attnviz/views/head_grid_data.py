"""What the page of all heads carries: every head, packed so that the page stays small, thumbnails, and numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.axes import STATISTIC
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.result import Result
from hf_attnviz.views.encoding import WEIGHT_ERROR, packed, packed_bytes
from hf_attnviz.views.groups import Group
from hf_attnviz.views.page import in_both
from hf_attnviz.views.scales import colour_scale
from hf_attnviz.views.sparse_encoding import Bytes, Floats, block_size, exact_head, sparse_head, thumbnail
from hf_attnviz.views.words import method_word, statistic_words

_FINE: Final = (0.0, 0.001, 0.002)  # finer than WEIGHT_ERROR while the page stays small
_COARSE: Final = (WEIGHT_ERROR, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0)  # coarser where it would not fit
SMALL: Final = 7_000_000  # characters of all heads, up to which a page counts as small
MOST: Final = 22_000_000  # the same, at most: with thumbnails and tokens the page stays below 25 MB
MOST_EXACT: Final = 400_000_000  # a browser's longest text is half a gigabyte
_SAMPLE: Final = 9  # heads that are encoded to foresee the size of all


def heads_of(group: Group) -> Iterator[Floats]:
    """Every head of every layer, ``[query, key]`` each.

    Raises:
        ArgumentError: a weight outside 0…1.
    """
    for m in group.maps:
        yield from _weights(m)


def fitted(found: Sequence[Group], *, small: int = SMALL, most: int = MOST) -> tuple[float, list[list[str]]]:
    """The heads of each group, packed, and the bound on weights that have no byte of their own.

    The finest of the bounds below :data:`WEIGHT_ERROR` with which all heads take ``small`` characters; else the first
    of it and coarser ones with which they take ``most``.
    """
    count = sum(len(group.maps) * len(group.heads) for group in found)
    sample = list(_sampled(found, count))

    def foreseen(bound: float) -> float:
        return sum(len(packed_bytes(sparse_head(one, bound))) for one in sample) / len(sample) * count

    fine = next((bound for bound in _FINE if foreseen(bound) <= small), None)
    for bound in _COARSE if fine is None else (fine, *_COARSE):
        if foreseen(bound) <= most or bound == _COARSE[-1]:
            heads = [[packed_bytes(sparse_head(one, bound)) for one in heads_of(group)] for group in found]
            if sum(len(text) for group in heads for text in group) <= most:
                break
    return bound, heads


def exactly(found: Sequence[Group]) -> list[list[str]]:
    """The heads of each group as 16-bit floats, packed.

    Raises:
        ArgumentError: more than a browser opens.
    """
    size = sum(len(g.maps) * len(g.heads) * len(g.maps[0].queries) * len(g.maps[0].keys) for g in found) * 8 // 3
    if size > MOST_EXACT:
        raise ArgumentError(
            Text(
                f"exact weights would take up to {size / 1e6:,.0f} MB, more than a browser opens "
                f"({MOST_EXACT / 1e6:,.0f} MB): choose one stack=…, capture fewer layers=…, or leave out exact=True",
                f"原样的权重最多将占 {size / 1e6:,.0f} MB，超过浏览器能打开的 {MOST_EXACT / 1e6:,.0f} MB：请选择一个 "
                "stack=…，少捕获一些层 layers=…，或不用 exact=True",
            )
        )
    return [[packed_bytes(exact_head(one)) for one in heads_of(group)] for group in found]


def thumbnails(group: Group) -> Bytes:
    """``[layer × head, block of queries, block of keys]``."""
    return np.stack([thumbnail(one) for one in heads_of(group)])


def numbers(result: Result) -> Iterator[dict[str, Any]]:
    """Each statistic of a result, ``[layer, head]``, as the page's script gets it."""
    several = result.axes[0].name == STATISTIC
    for n, name in enumerate(result.axes[0].labels if several else [""]):
        word, meaning = statistic_words(name) if several else (method_word(result.method), Text("", ""))

        def chosen(values: torch.Tensor, n: int = n) -> str:
            return packed((values[n] if several else values).detach().to("cpu", torch.float32).numpy())

        yield {
            "id": name or result.method,
            "name": in_both(word),
            "meaning": in_both(meaning),
            "of": in_both(method_word(result.method)),
            "scale": colour_scale(name, result.unit),
            "notes": [in_both(note) for note in result.notes],
            "values": chosen(result.values),
            "even": None if result.baseline is None else chosen(result.baseline),
        }


def payload(
    group: Group, statistics: Sequence[Mapping[str, Any]], thumbs: Bytes, heads: Sequence[str]
) -> dict[str, Any]:
    """A group as the page's script gets it."""
    first = group.maps[0]
    rows, keys = [visible(text) for text in first.row_texts], [visible(text) for text in first.keys.texts]
    return {
        "name": in_both(group.name),
        "layers": list(group.layers),
        "heads": len(group.heads),
        "queries": rows,
        "keys": None if keys == rows else keys,
        "blocks": [block_size(len(rows)), block_size(len(keys))],
        "thumbs": packed(thumbs),
        "weights": list(heads),
        "statistics": list(statistics),
    }


def _weights(m: AttentionMap) -> Floats:
    """``[head, query, key]``."""
    weights = m.weights.detach().to("cpu", torch.float32)
    low, high = (float(end) for end in weights.nan_to_num().aminmax())
    if low < -1e-3 or high > 1.01:
        raise ArgumentError(
            Text(
                f"expected attention weights from 0 to 1, got {low:.3g} to {high:.3g} in {m.module or m.stack}; draw "
                "such numbers with heatmap(result)",
                f"应为 0 到 1 的注意力权重，{m.module or m.stack} 中为 {low:.3g} 到 {high:.3g}；这样的数请用 "
                "heatmap(result) 绘制",
            )
        )
    numbers: Floats = weights.clamp(0, 1).numpy()
    return numbers


def _sampled(found: Sequence[Group], count: int) -> Iterator[Floats]:
    """Some heads, evenly spaced over all."""
    wanted = {int((n + 0.5) * count / _SAMPLE) for n in range(_SAMPLE)}
    first = 0
    for group in found:
        for m in group.maps:
            here = sorted(one - first for one in wanted if first <= one < first + m.heads)
            weights = _weights(m) if here else None
            if weights is not None:
                yield from (weights[head].copy() for head in here)
            first += m.heads
