"""Calls of a kernel to hold the passes against, with what is known of each by loops."""

from dataclasses import dataclass

import numpy as np
import torch

from hf_attnviz.reducing.ran import Places, Ran
from tests.reducing import gpu_reference


@dataclass
class Case:
    """One call: shape ``batch, heads, kv heads, queries, keys, size``."""

    shape: tuple[int, int, int, int, int, int]
    dtype: torch.dtype = torch.float32
    causal: bool = False
    mask: str = ""  # "padded", "fp16", "window", "alibi"
    knows: bool = True  # whether the kernel gave its log-sum-exp
    every: bool = True  # whether sums take every row


CASES = {
    "causal, groups, bfloat16, size 80": Case((1, 4, 2, 70, 70, 80), torch.bfloat16, causal=True),
    "causal, float16, two blocks of rows": Case((1, 1, 1, 140, 140, 8), torch.float16, causal=True),
    "cross, float16, size 64, hidden": Case((1, 2, 2, 40, 133, 64), torch.float16, knows=False),
    "padded, float32, size 128": Case((2, 2, 1, 40, 40, 128), mask="padded"),
    "padded, bfloat16, hidden": Case((2, 2, 1, 40, 40, 16), torch.bfloat16, mask="padded", knows=False),
    "window, hidden": Case((1, 2, 2, 70, 70, 16), mask="window", knows=False),
    "a bias for each head and key": Case((2, 2, 2, 33, 65, 24), torch.float16, mask="alibi"),
    "a mask of float16, hidden": Case((2, 2, 1, 40, 40, 16), torch.float16, mask="fp16", knows=False),
    "small, some rows count": Case((2, 3, 3, 17, 17, 5), causal=True, every=False),
    "a cache, the last rows of many": Case((1, 2, 1, 20, 90, 32), torch.bfloat16, mask="window"),
    "causal, wide, hidden": Case((1, 2, 1, 35, 35, 200), torch.bfloat16, causal=True, knows=False),
}


def made(case: Case, seed: int = 0):
    """The call, where it stands, and its sums by loops."""
    batch, heads, kv, queries, keys, size = case.shape
    generator = torch.Generator().manual_seed(seed)
    query = (2 * torch.randn(batch, queries, heads, size, generator=generator)).to(case.dtype).transpose(1, 2)
    key = torch.randn(batch, kv, keys, size, generator=generator).to(case.dtype)
    start = torch.arange(batch) * 9 if case.mask in ("padded", "fp16") else torch.zeros(batch, dtype=torch.long)
    at = torch.arange(keys) - start[:, None]
    at = torch.where(at < 0, -1, at)
    stands = at[:, keys - queries :] if queries <= keys else at
    mask = _mask(case, at, stands, generator)
    counted = stands >= 0 if case.every else (stands >= 0) & (torch.arange(queries) >= 5)
    lengths = (keys - start)[:, None].expand(batch, queries)
    places = Places(stands, lengths, at, counted)
    scale = 0.9 * size**-0.5
    lse = _lse(query, key, scale, mask, case.causal) if case.knows else None
    ran = Ran(query, key, key, query.transpose(1, 2), scale, mask, case.causal, lse)
    whole = None if mask is None else mask.double().expand(batch, heads, queries, keys).numpy()
    known = gpu_reference.sums(
        query.double().numpy(), key.double().numpy(), scale, whole, case.causal,
        stands.numpy(), at.numpy(), counted.numpy(), places.first,
    )  # fmt: skip
    return ran, places, known


def _mask(case, at, stands, generator):
    if not case.mask:
        return None
    seen = (at[:, None] >= 0) & (at[:, None] <= stands[:, :, None])
    if case.mask == "padded":
        return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf).to(case.dtype)[:, None]
    if case.mask == "fp16":
        return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float16).min).half()[:, None]
    if case.mask == "alibi":
        return torch.randn(1, case.shape[1], 1, at.shape[1], generator=generator).to(case.dtype)
    seen = seen & (at[:, None] > stands[:, :, None] - 20)
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def _lse(query, key, scale, mask, causal):
    """As kernels give it, in float32; −∞ where a row looks at nothing."""
    group = query.shape[1] // key.shape[1]
    scores = scale * query.double() @ key.double().repeat_interleave(group, 1).mT
    scores = scores if mask is None else scores + mask.double()
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    return scores.logsumexp(-1).float()


def deviations(found, known) -> dict[str, float]:
    """The largest deviation of each sum, in units of max(1, |x|); infinite where only one of the two is undefined."""
    told = {}
    for name, right in known.items():
        value = getattr(found, name).double().cpu().numpy()
        if not np.array_equal(np.isnan(value), np.isnan(right)):
            told[name] = np.inf
            continue
        off = np.abs(value - right) / np.maximum(1, np.abs(right))
        told[name] = float(np.nan_to_num(off).max())
    return told
