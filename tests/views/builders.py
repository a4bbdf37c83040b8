"""Traces made by hand from random softmax rows."""

import dataclasses
import math

import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.labels import Labels
from hf_attnviz.reduced import Reduced
from hf_attnviz.trace import Trace


def rows(heads: int, queries: int, keys: int, seed: int, *, causal: bool = False, sharp: float = 2.0) -> torch.Tensor:
    scores = torch.randn(heads, queries, keys, generator=torch.Generator().manual_seed(seed)) * sharp
    if causal:
        later = torch.arange(keys)[None, :] > torch.arange(queries)[:, None] + (keys - queries)
        scores = scores.masked_fill(later, float("-inf"))
    return scores.softmax(-1)


def a_map(
    queries: Labels,
    keys: Labels,
    *,
    heads: int = 3,
    stack: str = "encoder",
    layer: int = 0,
    kind: str = "self",
    causal: bool = False,
    size: int = 0,
    key_value_heads: int | None = None,
) -> AttentionMap:
    seed = layer + 100 * heads
    weights = rows(heads, len(queries), len(keys), seed, causal=causal)
    positions = tuple(range(len(keys) - len(queries), len(keys))) if kind == "self" else None
    vectors = {}
    if size:
        make = torch.Generator().manual_seed(seed)
        vectors["query_vectors"] = torch.randn(heads, len(queries), size, generator=make) / size**0.5
        vectors["key_vectors"] = torch.randn(key_value_heads or heads, len(keys), size, generator=make)
    return AttentionMap(
        weights, queries, keys, stack=stack, layer=layer, kind=kind, positions=positions, module=f"l{layer}", **vectors
    )


def self_trace(
    texts: list[str],
    *,
    layers: int = 2,
    heads: int = 3,
    model: str = "tiny",
    causal: bool = False,
    size: int = 0,
    key_value_heads: int | None = None,
    first_layer: int = 0,
    stack: str = "encoder",
) -> Trace:
    labels = Labels.plain(texts)
    maps = [
        a_map(
            labels,
            labels,
            heads=heads,
            layer=layer,
            causal=causal,
            size=size,
            key_value_heads=key_value_heads,
            stack=stack,
        )
        for layer in range(first_layer, first_layer + layers)
    ]
    return Trace(tuple(maps), model=model)


def translation() -> Trace:
    """Encoder, decoder and cross-attention of unequal depths and heads."""
    source, target = Labels.plain(["Der", "Hund", "bellt", "</s>"]), Labels.plain(["<s>", "The", "dog"])
    encoder = [a_map(source, source, heads=4, layer=layer) for layer in range(3)]
    decoder = [a_map(target, target, heads=2, layer=layer, stack="decoder", causal=True) for layer in range(2)]
    cross = [a_map(target, source, heads=2, layer=layer, stack="decoder", kind="cross") for layer in range(2)]
    return Trace((*encoder, *decoder, *cross), model="tiny-translator")


def statistics_of(weights: torch.Tensor, positions: tuple[int, ...] | None) -> Reduced:
    """What `keep="statistics"` keeps of weights ``[head, query, key]``, number by number."""
    heads, queries, keys = weights.shape
    found = {name: torch.zeros(heads, queries, dtype=weights.dtype) for name in ("entropy", "distance", "sink")}
    for head in range(heads):
        for query in range(queries):
            row = [float(weight) for weight in weights[head, query]]
            stands = math.nan if positions is None else positions[query]
            found["entropy"][head, query] = -math.fsum(weight * math.log(weight) for weight in row if weight)
            found["distance"][head, query] = math.fsum(weight * abs(stands - key) for key, weight in enumerate(row))
            found["sink"][head, query] = row[0]
    received = torch.tensor([[math.fsum(one[:, key].tolist()) for key in range(keys)] for one in weights])
    axes = dict.fromkeys(found, ("head", "query"))
    return Reduced(found | {"received": received.to(weights.dtype)}, axes | {"received": ("head", "key")})


def without_weights(trace: Trace) -> Trace:
    """The same trace as if captured with ``keep="statistics"``."""
    maps = []
    for m in trace.maps:
        kept = {"statistics": statistics_of(m.weights, m.positions)}
        maps.append(dataclasses.replace(m, kept_weights=None, reduced=kept, looks_back=m.causal, gradient=None))
    return dataclasses.replace(trace, maps=tuple(maps))
