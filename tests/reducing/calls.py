"""Calls of attention kernels to try the engine on: what a kernel was given, where rows and keys stand, the truth."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hf_attnviz.capturing.kernels import watched
from hf_attnviz.reducing.ran import Places, Ran
from tests.reducing import reference

NEVER = -math.inf


@dataclass(frozen=True, eq=False)
class Call:
    """``ran`` as the engine is shown it, ``places``, and the scores in float64, worked out by hand."""

    ran: Ran
    places: Places
    scores: np.ndarray
    never: float = -1e30

    @cached_property
    def weights(self) -> np.ndarray:
        """The truth ``[batch, head, query, key]``."""
        return reference.softmax(self.scores, self.never)

    @cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        """The truth of the four."""
        p = self.places
        return reference.statistics(self.weights, p.queries, p.keys, p.counted, p.standing)

    @property
    def hiding(self) -> Ran:
        """The same of a kernel that keeps its log-sum-exp to itself."""
        return replace(self.ran, lse=None)


def vectors(
    *shape: int, seed: int = 0, sharp: float = 1.0, dtype: torch.dtype = torch.float32, lies: str = "whole"
) -> torch.Tensor:
    """Random vectors ``[batch, head, position, size]``; ``lies``: how they lie in memory."""
    batch, heads, positions, size = shape
    generator = torch.Generator().manual_seed(seed)
    if lies == "whole":
        return (torch.randn(shape, generator=generator) * sharp).to(dtype)
    if lies == "turned":  # as models turn them
        return (torch.randn(batch, positions, heads, size, generator=generator) * sharp).to(dtype).transpose(1, 2)
    wide = torch.randn(batch, heads, positions * 2, size + 3, generator=generator) * sharp
    return wide.to(dtype)[:, :, ::2, 1 : size + 1]  # no axis whole


def call(
    queries: int,
    keys: int | None = None,
    *,
    batch: int = 1,
    heads: int = 2,
    group: int = 1,
    size: int = 8,
    sharp: float = 1.0,
    dtype: torch.dtype = torch.float32,
    lies: str = "whole",
    causal: bool = False,
    mask: torch.Tensor | None = None,
    seed: int = 0,
    places: Places | None = None,
    never: float = -1e30,
    scale: float | None = None,
) -> Call:
    """Torch's own kernel on random vectors."""
    keys = queries if keys is None else keys
    query = vectors(batch, heads, queries, size, seed=seed, sharp=sharp, dtype=dtype, lies=lies)
    key = vectors(batch, heads // group, keys, size, seed=seed + 1, dtype=dtype, lies=lies)
    value = vectors(batch, heads // group, keys, size, seed=seed + 2, dtype=dtype, lies=lies)
    ran = kernel(query, key, value, mask, causal, scale)
    scores = reference.scores_of(query, key, size**-0.5 if scale is None else scale, mask, causal)
    return Call(ran, standing(batch, queries, keys) if places is None else places, scores, never)


def kernel(query: Any, key: Any, value: Any, mask: Any = None, causal: bool = False, scale: float | None = None) -> Ran:
    """What torch's kernel was given and gave, as the package sees it."""
    shared = query.shape[1] != key.shape[1]
    with torch.no_grad(), watched() as seen:
        F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=shared
        )
    ran = seen()
    assert ran is not None, "torch took another kernel, which shows nothing"
    return ran


def standing(batch: int, queries: int, keys: int, *, real: Any = None, crossed: bool = False) -> Places:
    """Rows on the last keys; ``real`` ``[batch, key]``: which keys are no padding."""
    real = torch.ones(batch, keys, dtype=torch.bool) if real is None else real
    at = torch.where(real, real.cumsum(1) - 1, -1)
    rows = torch.arange(queries).expand(batch, -1) if crossed else at[:, keys - queries :]
    return Places(rows, real.sum(1), at, rows >= 0, not crossed)


def padded(lengths: list[int], size: int, side: str) -> torch.Tensor:
    """Which positions are no padding ``[batch, position]``."""
    at = torch.arange(size)
    return torch.stack([at >= size - n if side == "left" else at < n for n in lengths])


def window(queries: int, keys: int, width: int) -> torch.Tensor:
    """Who sees whom ``[1, 1, query, key]``: the last ``width`` keys."""
    rows, at = torch.arange(keys - queries, keys)[:, None], torch.arange(keys)
    return ((at <= rows) & (at > rows - width))[None, None]


def allowed(real: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Who sees whom ``[batch, 1, query, key]``: keys that are no padding, and with ``causal`` none ahead."""
    seen = real[:, None, None, :].expand(-1, 1, real.shape[1], -1)
    return seen.tril() if causal else seen


def added(seen: torch.Tensor, lowest: float = NEVER, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The same as a mask that is added."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, lowest)


def _holes() -> torch.Tensor:
    drawn = torch.rand(2, 1, 150, 150, generator=torch.Generator().manual_seed(3)) < 0.3
    return drawn | torch.eye(150, dtype=torch.bool)


def _nobody(lowest: float, rows: list[int], **more: Any) -> Call:
    seen = torch.ones(1, 1, 140, 140, dtype=torch.bool).tril()
    seen[..., rows, :] = False
    return call(140, mask=added(seen, lowest), **more)


def _bias(heads: int, size: int) -> torch.Tensor:
    at = torch.arange(size)
    slopes = torch.tensor([2.0**-h for h in range(1, heads + 1)])
    bias = -slopes[:, None, None] * (at[:, None] - at).abs()
    return (bias + added(torch.ones(size, size, dtype=torch.bool).tril(), torch.finfo(torch.float32).min))[None]


def _of_padding(side: str, causal: bool, lowest: float | None = None) -> Call:
    real = padded([200, 77, 1], 200, side)
    seen = allowed(real, causal=causal)
    mask = seen if lowest is None else added(seen, lowest)
    return call(200, batch=3, mask=mask, places=standing(3, 200, 200, real=real))


@functools.cache
def the(name: str) -> Call:
    """One of :data:`CALLS`; its truth is worked out once."""
    return CALLS[name]()


LOW = torch.finfo(torch.float32).min
CALLS: dict[str, Callable[[], Call]] = {
    "causal": lambda: call(300, causal=True),
    "full": lambda: call(130),
    "one token": lambda: call(1, causal=True),
    "two tokens": lambda: call(2, causal=True),
    "exactly one tile": lambda: call(128, causal=True),
    "two tiles": lambda: call(256),
    "one row too many": lambda: call(129, causal=True),
    "a Boolean mask": lambda: call(150, batch=2, mask=_holes()),
    "an added mask of -inf": lambda: call(150, batch=2, mask=added(_holes())),
    "an added mask of the lowest number": lambda: call(150, batch=2, mask=added(_holes(), LOW)),
    "a gentle mask": lambda: call(150, batch=2, mask=added(_holes(), -3.0)),
    "a mask for all rows": lambda: call(140, mask=added(torch.arange(140)[None, None, None] < 100)),
    "a mask for all keys": lambda: call(140, mask=torch.randn(1, 1, 140, 1)),
    "a bias of each head": lambda: call(200, heads=4, mask=_bias(4, 200)),
    "a window": lambda: call(300, mask=window(300, 300, 20)),
    "a window of one": lambda: call(150, mask=window(150, 150, 1)),
    "left padding": lambda: _of_padding("left", True),
    "right padding": lambda: _of_padding("right", True),
    "left padding, looking ahead": lambda: _of_padding("left", False),
    "right padding, looking ahead": lambda: _of_padding("right", False, LOW),
    "left padding by the lowest number": lambda: _of_padding("left", True, LOW),
    "a causal kernel over right padding": lambda: call(
        90, batch=2, causal=True, places=standing(2, 90, 90, real=padded([90, 31], 90, "right"))
    ),
    "rows that may look at nothing, -inf": lambda: _nobody(NEVER, [0, 5, 139]),
    "rows that may look at nothing, the lowest number": lambda: _nobody(LOW, [0, 5, 139]),
    "a tile that may look at nothing": lambda: _nobody(NEVER, list(range(128))),
    "a tile that may look at nothing, the lowest number": lambda: _nobody(LOW, list(range(128))),
    "shared keys": lambda: call(140, heads=6, group=3, causal=True),
    "one key-value head": lambda: call(140, heads=4, group=4, batch=2),
    "one row over a cache": lambda: call(1, 333, batch=2),
    "some rows over a cache": lambda: call(5, 260, mask=window(5, 260, 260)),
    "a window over a cache": lambda: call(3, 260, mask=window(3, 260, 30)),
    "cross-attention": lambda: call(40, 170, batch=2, places=standing(2, 40, 170, crossed=True)),
    "cross-attention over few keys": lambda: call(170, 3, places=standing(1, 170, 3, crossed=True)),
    "a batch": lambda: call(140, batch=4, heads=3, causal=True),
    "a scale of its own": lambda: call(100, scale=1.0, causal=True),
    "turned vectors": lambda: call(150, batch=2, heads=3, lies="turned", causal=True),
    "vectors with holes": lambda: call(150, batch=2, heads=3, lies="holes", causal=True),
    "heads of size 1": lambda: call(140, size=1, causal=True),
    "heads of size 256": lambda: call(140, size=256, causal=True),
    "scores of a hundred": lambda: call(200, sharp=40.0, causal=True),
    "float64": lambda: call(150, dtype=torch.float64, causal=True),
    "bfloat16": lambda: call(300, dtype=torch.bfloat16, causal=True),
    "float16": lambda: call(300, dtype=torch.float16, size=32),
    "bfloat16, sharp": lambda: call(300, dtype=torch.bfloat16, size=64, sharp=4.0),
    "bfloat16 with a mask": lambda: call(
        150, dtype=torch.bfloat16, batch=2, mask=added(_holes(), torch.finfo(torch.bfloat16).min, torch.bfloat16)
    ),
    "float16 with a mask": lambda: call(
        150, dtype=torch.float16, batch=2, mask=added(_holes(), torch.finfo(torch.float16).min, torch.float16)
    ),
}
