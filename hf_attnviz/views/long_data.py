"""What the page of a long text carries: numbers in bins along the text, in few enough bytes for a browser.

A bin holds the least, the mean and the largest of its positions; where a text has no more positions than bins, each
bin is one of them. Numbers are 16-bit codes, evenly spaced in ln(1 + x) between the ends of their head, so that small
numbers keep their digits: a number read back is within 0.01 % of 1 + x.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.legible import visible
from hf_attnviz.views.encoding import packed

MOST_BINS: Final = 512
MOST_CODES: Final = 1_600_000  # of one page: with them it stays below some 5 MB
MOST_FLOW: Final = 800_000  # the same of rollout
MOST_STRONGEST: Final = 240_000  # rows × heads × ranks of the strongest keys
LISTED: Final = 12  # keys that receive most, of each head
_UNDEFINED: Final = 65_535

Floats = npt.NDArray[np.float64]


def bin_size(positions: int, series: int) -> int:
    """How many positions share a bin, where so many series are drawn along the text."""
    bins = max(16, min(MOST_BINS, MOST_CODES // max(1, 3 * series)))
    return -(-positions // bins)


def flow_bin_size(positions: int, series: int) -> int:
    """The same for rollout, of which there is a series a layer and group, and as many of uniform attention."""
    return -(-positions // max(16, min(MOST_BINS // 2, MOST_FLOW // max(1, 2 * series))))


def binned(values: torch.Tensor, size: int) -> Floats:
    """``[…, position]`` → least, mean and largest of each bin, ``[kind, …, bin]``; of bins of one position the number
    alone.

    What is undefined does not count; a bin of nothing else is NaN.
    """
    numbers = values.detach().to("cpu", torch.float64).numpy()
    if size == 1:
        return numbers[None]
    bins = -(-numbers.shape[-1] // size)
    filled = np.full((*numbers.shape[:-1], bins * size), np.nan)
    filled[..., : numbers.shape[-1]] = numbers
    cut = filled.reshape(*numbers.shape[:-1], bins, size)
    known = np.isfinite(cut)
    count = known.sum(-1)
    kinds = [
        np.where(known, cut, np.inf).min(-1),
        np.where(known, cut, 0).sum(-1) / np.maximum(count, 1),
        np.where(known, cut, -np.inf).max(-1),
    ]
    return np.where(count > 0, np.stack(kinds), np.nan)


def coded(series: Floats) -> dict[str, Any]:
    """``[kind, series, bin]`` for the page: codes, and the ends of each series."""
    logs = np.log1p(np.maximum(series, 0))
    known = np.isfinite(logs)
    low = np.where(known, logs, np.inf).min((0, 2))
    high = np.where(known, logs, -np.inf).max((0, 2))
    low, high = np.where(np.isfinite(low), low, 0), np.where(np.isfinite(high), high, 0)
    span = np.where(high > low, high - low, 1)[None, :, None]
    codes = np.rint((np.nan_to_num(logs, posinf=0) - low[None, :, None]) / span * (_UNDEFINED - 1))
    return {
        "codes": packed(np.where(known, codes, _UNDEFINED).astype(np.uint16)),
        "low": packed(low.astype(np.float32)),
        "high": packed(high.astype(np.float32)),
        "kinds": series.shape[0],
        "bins": series.shape[-1],
    }


def texts_packed(texts: Sequence[str]) -> str:
    """Token texts, made safe to look at."""
    told = json.dumps([visible(text) for text in texts], ensure_ascii=False)
    return packed(np.frombuffer(told.encode("utf-8", "replace"), np.uint8))


def most(received: torch.Tensor, baseline: torch.Tensor | None) -> dict[str, Any]:
    """The keys that receive most, ``[layer, head, key]`` → ``[layer, head, rank]`` of places, numbers, and what they
    would receive of uniform attention."""
    values = received.detach().to("cpu", torch.float32).nan_to_num(nan=-1.0)
    found = values.topk(min(LISTED, values.shape[-1]), dim=-1)
    return {
        "count": found.values.shape[-1],
        "keys": packed(found.indices.to(torch.int32).numpy()),
        "values": packed(found.values.numpy()),
        "even": None if baseline is None else packed(baseline.cpu().float().gather(-1, found.indices).numpy()),
    }


def strongest_rows(shape: torch.Size) -> list[int]:
    """The rows whose strongest keys are told, of ``[layer, head, query, rank]``: evenly spaced, the last one always."""
    layers, heads, queries, ranks = shape
    rows = max(1, min(queries, MOST_STRONGEST // max(1, layers * heads * ranks)))
    return sorted({round((n + 1) * queries / rows) - 1 for n in range(rows)})


def strongest_packed(weights: torch.Tensor, keys: torch.Tensor) -> dict[str, Any]:
    """The strongest keys of some rows ``[layer, head, row, rank]``."""
    rows = strongest_rows(weights.shape)
    return {
        "rows": rows,
        "ranks": weights.shape[-1],
        "weights": packed(weights[:, :, rows].detach().to("cpu", torch.float16).numpy().view(np.uint16)),
        "keys": packed(keys[:, :, rows].detach().cpu().to(torch.int32).numpy()),
    }
