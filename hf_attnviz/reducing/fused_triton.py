"""The fused pass in Triton: two launches at most give every sum of a call, on an accelerator; no scores leave the chip.

A program takes a block of rows of one head over the keys that they may see. Sums of a row stay in registers; what a key
receives is added up in memory, in whole numbers of 2⁻⁴⁰: adding those gives the same sum in any order, which adding
floats does not, so that two runs agree to the last bit without a second pass.
"""

from typing import Any, Final

import torch
import triton
import triton.language as tl

from hf_attnviz.reducing.ran import LOWEST, Places, Ran
from hf_attnviz.reducing.tile import Sums

FEW: Final = 16  # rows: up to here, as in decoding, one product of all heads is quicker
MOST: Final = 256  # numbers of a head that fit beside a tile into the memory of one multiprocessor
WHOLE: Final = 2.0**40  # received comes in parts of this; as much as 8 million rows give fits into 64 bits

_ANY: Final = ("heads", "group", "queries", "keys")  # no kernel of its own for each length of a growing sequence
_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)
_WHOLE = tl.constexpr(WHOLE)
_NEVER = tl.constexpr(-LOWEST)
_BEYOND = tl.constexpr(torch.finfo(torch.float32).max)  # a log-sum-exp beyond all scores: every weight is zero
_LEAST = tl.constexpr(-125.5)  # e⁻⁸⁷ in base two: below it a weight is none, and 0 · −∞ would be no number


@triton.jit
def _scores(q, key, columns, parts, per_key, per_part, keys, size, edge: tl.constexpr, wide: tl.constexpr):
    """Raw scores of a block of rows over some columns; what lies outside is read as zero."""
    at = key + columns.to(tl.int64)[None, :] * per_key + parts[:, None] * per_part
    inside = parts[:, None] < size
    if edge:
        inside = inside & (columns[None, :] < keys)
    k = tl.load(at, mask=inside, other=0.0)
    if wide:
        k = k.to(tl.float32)
    return tl.dot(q, k, input_precision="ieee")


@triton.jit
def _masking(mask, rows, columns, per_row, per_column, queries, keys):
    """The mask over a tile, in base two; what lies outside is never seen."""
    at = mask + rows.to(tl.int64)[:, None] * per_row + columns.to(tl.int64)[None, :] * per_column
    inside = (rows[:, None] < queries) & (columns[None, :] < keys)
    return tl.load(at, mask=inside, other=-float("inf")).to(tl.float32) * _LOG2E


@triton.jit
def _seen(rows, columns, keys, causal: tl.constexpr):
    """Which columns of a tile its rows may see, masks apart."""
    inside = columns[None, :] < keys
    if causal:
        inside = inside & (columns[None, :] <= rows[:, None])
    return inside


@triton.jit
def _block(query, rows, parts, per_row, per_part, queries, size, wide: tl.constexpr):
    """A block of queries; what lies outside is read as zero."""
    at = query + rows.to(tl.int64)[:, None] * per_row + parts[None, :] * per_part
    q = tl.load(at, mask=(rows[:, None] < queries) & (parts[None, :] < size), other=0.0)
    return q.to(tl.float32) if wide else q


@triton.jit
def _lse_over(
    top, total, start, stop, q, rows, parts, key, mask, scale, queries, keys, size,
    key_row, key_part, mask_row, mask_column,
    edge: tl.constexpr, masked: tl.constexpr, causal: tl.constexpr, wide: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Go on with the largest score and the sum of exponentials of each row, both in base two."""
    for begin in range(start, stop, width):
        columns = begin + tl.arange(0, width)
        s = _scores(q, key, columns, parts, key_row, key_part, keys, size, edge, wide) * scale
        if masked:
            s += _masking(mask, rows, columns, mask_row, mask_column, queries, keys)
        if edge:
            s = tl.where(_seen(rows, columns, keys, causal), s, -float("inf"))
        higher = tl.maximum(top, tl.max(s, 1))
        total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(s - higher[:, None]), 1)
        top = higher
    return top, total


@triton.jit
def _sum_tile(
    bends, far, total, sink, begin, bias, q, rows, parts, key, scale, lse, stands, places, share, first, received,
    keys, size, key_row, key_part,
    edge: tl.constexpr, masked: tl.constexpr, causal: tl.constexpr, part: tl.constexpr, wide: tl.constexpr,
    width: tl.constexpr,
):  # fmt: skip
    """Go on with the sums of each row over one tile, and give each key what it receives there."""
    columns = begin + tl.arange(0, width)
    inside = columns < keys
    t = _scores(q, key, columns, parts, key_row, key_part, keys, size, edge, wide) * scale - lse[:, None]
    if masked:
        t = tl.maximum(t + bias, _LEAST)
    p = tl.exp2(t)
    if edge:
        p = tl.where(_seen(rows, columns, keys, causal), p, 0.0)
    at = tl.load(places + columns, mask=inside, other=0.0)
    bends += tl.sum(p * t, 1)
    far += tl.sum(p * tl.abs(stands[:, None] - at[None, :]), 1)
    total += tl.sum(p, 1)
    if (first >= begin) & (first < begin + width):
        sink += tl.sum(tl.where(columns[None, :] == first, p, 0.0), 1)
    if part:
        p = p * share[:, None]
    given = (tl.sum(p, 0) * _WHOLE).to(tl.int64)
    tl.atomic_add(received + columns, given, mask=inside, sem="relaxed")
    return bends, far, total, sink


@triton.jit
def _sums_over(
    bends, far, total, sink, start, stop, q, rows, parts, key, mask, scale, lse, stands, places, share, first, received,
    queries, keys, size, never, key_row, key_part, mask_row, mask_column,
    edge: tl.constexpr, masked: tl.constexpr, causal: tl.constexpr, part: tl.constexpr, wide: tl.constexpr,
    width: tl.constexpr,
):  # fmt: skip
    """Go on over a range of keys; a tile that the mask hides altogether is left out."""
    for begin in range(start, stop, width):
        if masked:
            columns = begin + tl.arange(0, width)
            bias = _masking(mask, rows, columns, mask_row, mask_column, queries, keys)
            if tl.max(tl.max(bias, 1), 0) > never * _LOG2E:
                bends, far, total, sink = _sum_tile(
                    bends, far, total, sink, begin, bias, q, rows, parts, key, scale, lse, stands, places, share,
                    first, received, keys, size, key_row, key_part, edge, masked, causal, part, wide, width,
                )  # fmt: skip
        else:
            bends, far, total, sink = _sum_tile(
                bends, far, total, sink, begin, 0.0, q, rows, parts, key, scale, lse, stands, places, share,
                first, received, keys, size, key_row, key_part, edge, masked, causal, part, wide, width,
            )  # fmt: skip
    return bends, far, total, sink


@triton.jit(do_not_specialize=_ANY)
def lse_kernel(
    query, key, mask, lse, scale, never, heads, group, queries, keys, size,
    query_batch, query_head, query_row, query_part, key_batch, key_head, key_row, key_part,
    mask_batch, mask_head, mask_row, mask_column,
    masked: tl.constexpr, causal: tl.constexpr, wide: tl.constexpr,
    height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):  # fmt: skip
    """The log-sum-exp of each row, for kernels that keep it to themselves; beyond all scores where it sees nothing."""
    block, both = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)  # the longest rows first
    batch, head = (both // heads).to(tl.int64), (both % heads).to(tl.int64)
    rows, parts = block * height + tl.arange(0, height), tl.arange(0, depth)
    query += batch * query_batch + head * query_head
    q = _block(query, rows, parts, query_row, query_part, queries, size, wide)
    key += batch * key_batch + (head // group) * key_head
    mask += batch * mask_batch + head * mask_head
    clear = tl.minimum(block * height, keys) // width * width if causal else keys // width * width
    stop = tl.minimum(block * height + height, keys) if causal else keys
    top, total = tl.full((height,), -_NEVER, tl.float32), tl.zeros((height,), tl.float32)
    top, total = _lse_over(
        top, total, 0, clear, q, rows, parts, key, mask, scale, queries, keys, size,
        key_row, key_part, mask_row, mask_column, False, masked, causal, wide, width,
    )  # fmt: skip
    top, total = _lse_over(
        top, total, clear, stop, q, rows, parts, key, mask, scale, queries, keys, size,
        key_row, key_part, mask_row, mask_column, True, masked, causal, wide, width,
    )  # fmt: skip
    found = tl.where(total > 0.0, (top + tl.log2(total)) * _LN2, -float("inf"))
    found = tl.where(found > never, found, _BEYOND)
    tl.store(lse + both.to(tl.int64) * queries + rows, found, mask=rows < queries)


@triton.jit(do_not_specialize=_ANY)
def sums_kernel(
    query, key, mask, lse, stands, places, counted, firsts, entropy, distance, sinks, mass, received,
    scale, never, heads, group, queries, keys, size,
    query_batch, query_head, query_row, query_part, key_batch, key_head, key_row, key_part,
    mask_batch, mask_head, mask_row, mask_column,
    masked: tl.constexpr, causal: tl.constexpr, part: tl.constexpr, wide: tl.constexpr,
    height: tl.constexpr, width: tl.constexpr, depth: tl.constexpr,
):  # fmt: skip
    """All sums of a block of rows of one head; rows that look at nothing give zeros."""
    block, both = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)  # the longest rows first
    batch, head = (both // heads).to(tl.int64), (both % heads).to(tl.int64)
    rows, parts = block * height + tl.arange(0, height), tl.arange(0, depth)
    there, row = rows < queries, both.to(tl.int64) * queries + rows
    query += batch * query_batch + head * query_head
    q = _block(query, rows, parts, query_row, query_part, queries, size, wide)
    key += batch * key_batch + (head // group) * key_head
    mask += batch * mask_batch + head * mask_head
    places, received = places + batch * keys, received + both.to(tl.int64) * keys
    offset = tl.load(lse + row, mask=there, other=_NEVER)
    offset = tl.where((offset > -_NEVER) & (offset < _NEVER), offset, _NEVER) * _LOG2E
    own = tl.load(stands + batch * queries + rows, mask=there, other=0.0)
    share = tl.load(counted + batch * queries + rows, mask=there, other=0.0)
    first = tl.load(firsts + batch)
    clear = tl.minimum(block * height, keys) // width * width if causal else keys // width * width
    stop = tl.minimum(block * height + height, keys) if causal else keys
    bends, far = tl.zeros((height,), tl.float32), tl.zeros((height,), tl.float32)
    total, sink = tl.zeros((height,), tl.float32), tl.zeros((height,), tl.float32)
    bends, far, total, sink = _sums_over(
        bends, far, total, sink, 0, clear, q, rows, parts, key, mask, scale, offset, own, places, share, first,
        received, queries, keys, size, never, key_row, key_part, mask_row, mask_column,
        False, masked, causal, part, wide, width,
    )  # fmt: skip
    bends, far, total, sink = _sums_over(
        bends, far, total, sink, clear, stop, q, rows, parts, key, mask, scale, offset, own, places, share, first,
        received, queries, keys, size, never, key_row, key_part, mask_row, mask_column,
        True, masked, causal, part, wide, width,
    )  # fmt: skip
    tl.store(entropy + row, tl.maximum(-bends * _LN2, 0.0), mask=there)
    tl.store(distance + row, far, mask=there)
    tl.store(mass + row, total, mask=there)
    tl.store(sinks + row, sink, mask=there)


def blocks(size: int, *, wide: bool, masked: bool) -> dict[str, int]:
    """How a call is cut: rows and keys of a tile, warps of a program, tiles that are on their way at a time.

    Measured with the compiler for compute capability 9.0: no registers spilled, two programs on a multiprocessor up to
    128 numbers a head.
    """
    if wide:
        return {"height": 32, "width": 32, "num_warps": 8, "num_stages": 2}
    if size <= 128:
        return {"height": 128, "width": 64, "num_warps": 8 if masked else 4, "num_stages": 3}
    return {"height": 128, "width": 64, "num_warps": 8, "num_stages": 2}


def takes(ran: Ran) -> bool:
    """Whether a call is of the kind that the kernels read, and long enough to be worth a program for each block."""
    known = (torch.float32, torch.float16, torch.bfloat16)
    dtype, size = ran.query.dtype, ran.query.shape[-1]
    return dtype in known and dtype == ran.key.dtype and 0 < size <= MOST and ran.shape[2] > FEW and ran.shape[3] > 0


def fused(ran: Ran, places: Places, sums: Sums, knows: bool) -> None:
    """All sums of a call into ``sums``, which is zero.

    Args:
        ran: with a contiguous float32 log-sum-exp; rows for which it is not between ±1e30 look at nothing.
        knows: whether that is filled in already; else it is found first, into the same tensor.
    """
    device, (batch, heads, queries, keys), size = ran.query.device, ran.shape, ran.query.shape[-1]
    assert ran.lse is not None
    kind = _kind(ran)
    grid = (triton.cdiv(queries, kind["height"]), batch * heads)
    key = ran.key.expand(batch, -1, -1, -1)
    mask = ran.query.new_empty(1).expand(1, 1, 1, 1) if ran.mask is None else ran.mask.expand(ran.shape)
    strides = (*ran.query.stride(), *key.stride(), *mask.stride())
    last = (ran.scale * _LOG2E.value, ran.never, heads, ran.group, queries, keys, size, *strides)
    stands, at, counted = (
        tensor.to(device, torch.float32).contiguous() for tensor in (places.queries, places.keys, places.counted)
    )
    firsts = torch.tensor(places.first, dtype=torch.int32, device=device)
    received = torch.zeros(batch, heads, keys, dtype=torch.int64, device=device)
    with torch.cuda.device(device if device.type == "cuda" else -1):
        if not knows:
            lse_kernel[grid](ran.query, key, mask, ran.lse, *last, **kind)
        rows = (sums.entropy, sums.distance, sums.sink, sums.mass)
        part = {"part": not bool(places.counted.all())}
        sums_kernel[grid](
            ran.query, key, mask, ran.lse, stands, at, counted, firsts, *rows, received, *last, **kind, **part
        )
    sums.received.copy_(received.double().div_(WHOLE))


def _kind(ran: Ran) -> dict[str, Any]:
    """What the kernels are compiled for."""
    dtype, size, masked = ran.query.dtype, ran.query.shape[-1], ran.mask is not None
    wide = dtype == torch.float32 or (dtype == torch.bfloat16 and not _multiplies_bfloat16(ran.query.device))
    how: dict[str, Any] = {"masked": masked, "causal": ran.causal, "wide": wide, "depth": max(16, _power(size))}
    # a product may go on into a sum unrounded; some versions of Triton warn where that is not said
    return how | {"enable_fp_fusion": True} | blocks(size, wide=wide, masked=masked)


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether there are matrix units for it: not before Ampere, and not in Triton's interpreter."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()
