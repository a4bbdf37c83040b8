"""One pass over a kernel call: tiles of rows and the keys that they may see, one after another, never the matrix."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from hf_attnviz.errors import NotUnderstoodError
from hf_attnviz.language import Text
from hf_attnviz.reducing.passes import at_once, exact, pass_over
from hf_attnviz.reducing.ran import LOWEST, Places, Ran
from hf_attnviz.reducing.tile import ROWS, Sums, Tile, spanned

# How far from one a row may sum, for its log-sum-exp is rounded: in half precision torch's kernel on the CPU sums an
# exp that is off by up to 7e-5, at any length; float32 makes less than that of scores up to a hundred, and more of
# larger ones. Of scores of thousands it has too few digits for anything but the kernel's own order of work.
LOOSE, _LARGE, _HUGE = 1e-4, 100.0, 2000.0
_MOST = 2**25  # bytes of a tile that holds all heads: with fewer rows the products of queries and keys get slow
_NOTHING = 1e-20  # what a row sums to whose every weight is as good as zero
_MOST_THERE = 2**28  # the same on an accelerator, whose work comes in larger pieces
_EMPTY = torch.empty(0)
_BEYOND = torch.finfo(torch.float32).max  # a log-sum-exp beyond all scores: every weight is zero


def sweep(ran: Ran, places: Places, *, weights: bool) -> Iterator[Tile]:
    """The tiles of a call, in order, and at its end a tile without weights that holds the sums over all of it.

    Args:
        weights: whether tiles with weights are wanted; else there is the last one only, and one head's scores live.

    Raises:
        NotUnderstoodError: keys that are padding are looked at.
    """
    _check(ran, places)
    ran, knows = _ready(ran)
    sums = Sums.empty(ran.shape, ran.query.device)
    away = ran.query.device.type != "cpu"
    if weights:
        yield from _blocks(ran, places, sums, knows, write=True, together=away)
    elif not at_once(ran, places, sums, knows):
        each = _blocks(ran, places, sums, knows, write=False, together=True) if away else None
        for _ in each or _heads(ran, places, sums, knows):
            pass  # nobody asked for weights
    yield Tile(_EMPTY, places, ran.shape, given=_told(ran, places, sums), causal=ran.causal or None)


def chosen(ran: Ran, places: Places, rows: Tensor) -> Tile:
    """The tile of some rows ``[row]``, told where places stand, over all keys, of the whole batch."""
    batch, heads, _, keys = ran.shape
    kv = ran.key.shape[1]
    kept, rows = rows, rows.to(ran.query.device)
    query = exact(ran.query[:, :, rows])
    grouped = query.reshape(batch, kv, -1, query.shape[-1]) @ exact(ran.key).mT
    scores = grouped.view(batch, heads, len(rows), keys).float().mul_(ran.scale)
    if ran.mask is not None:
        scores += ran.mask if ran.mask.shape[2] == 1 else ran.mask[:, :, rows]
    if ran.causal:
        scores.masked_fill_(torch.arange(keys, device=rows.device) > rows[:, None], -torch.inf)
    weights = scores.softmax(-1)
    if ran.mask is not None:  # a row that looks at nothing comes out even, or as no number
        weights.masked_fill_(scores.amax(-1, keepdim=True) <= ran.never, 0)
    return Tile(weights, places, ran.shape, rows=kept, causal=ran.causal or None)


def _heads(ran: Ran, places: Places, sums: Sums, knows: bool) -> Iterator[Tile]:
    """All sums, one head after another: its keys stay in the cache, and one buffer serves every tile."""
    batch, heads, queries, keys = ran.shape
    score, lse = pass_over(ran, places, sums, write=False), ran.lse
    assert lse is not None
    buffer = ran.query.new_empty(min(ROWS, queries) * keys, dtype=torch.float32)
    for b in range(batch):
        for h in range(heads):
            query, key = ran.query[b, h].float(), ran.key[b, h // ran.group].float().T
            for rows, seen in _visible(ran, places, b, h, ROWS):
                part = query[rows]
                scores = buffer[: part.shape[0] * (seen.stop - seen.start)].view(part.shape[0], -1)
                torch.mm(part, key[:, seen], out=scores)
                if not knows:
                    lse[b, h, rows] = _lse_of(ran, scores, b, h, rows, seen)
                score(scores, b, h, rows, seen)
    yield from ()


def _blocks(
    ran: Ran, places: Places, sums: Sums, knows: bool, *, write: bool, together: bool = False
) -> Iterator[Tile]:
    """Tiles of all heads, with their weights where those are asked for.

    together: whether the heads of a tile are worked on at once, as suits an accelerator, and not one after another.
    """
    batch, heads, queries, keys = ran.shape
    score, lse = pass_over(ran, places, sums, write=write), ran.lse
    assert lse is not None
    height = max(16, min(ROWS, (_MOST_THERE if together else _MOST) // (4 * heads * keys) // 16 * 16))
    buffer = ran.query.new_empty(heads * min(height, queries) * keys, dtype=torch.float32)
    one_mask = ran.mask is None or ran.mask.shape[1] == 1
    parts: list[int | slice] = [slice(0, heads)] if together else list(range(heads))
    for b in range(batch):
        query, key = exact(ran.query[b]), exact(ran.key[b]).mT
        for rows, seen in _visible(ran, places, b, 0 if one_mask else None, height):
            count, width = rows.stop - rows.start, seen.stop - seen.start
            weights = buffer[: heads * count * width].view(heads, count, width)
            for h in parts:
                _raw(query[h, rows], key[..., seen], h, ran.group, weights[h])
                if not knows:
                    lse[b, h, rows] = _lse_of(ran, weights[h], b, h, rows, seen)
                score(weights[h], b, h, rows, seen)
            padding = places.queries[b, rows] < 0
            if bool(padding.any()):
                weights[:, padding.to(weights.device)] = 0
            told = partial(spans_of, ran, b, rows, seen)
            one = slice(b, b + 1)
            yield Tile(weights[None], places, ran.shape, one, rows, seen, causal=ran.causal or None, told=told)


def spans_of(ran: Ran, b: int, rows: slice, keys: slice) -> Tensor:
    """What :attr:`Tile.spans` says of a tile, read off the mask: some head may look there."""
    stand = torch.arange(rows.start, rows.stop, device=ran.query.device)
    if ran.mask is None or ran.mask.shape[3] == 1:
        last = stand.clamp(max=keys.stop - 1) if ran.causal else torch.full_like(stand, keys.stop - 1)
        return torch.stack([torch.full_like(stand, keys.start), last], -1)[None]
    mask = ran.mask_of(b)
    part = mask[:, :, keys] if mask.shape[1] == 1 else mask[:, rows, keys]
    allowed = (part > ran.never).any(0).expand(len(stand), -1)
    if ran.causal:
        allowed = allowed & (torch.arange(keys.start, keys.stop, device=stand.device) <= stand[:, None])
    return spanned(allowed[None], keys.start)


def _raw(query: Tensor, key: Tensor, head: int | slice, group: int, scores: Tensor) -> None:
    """Raw scores of one head ``[row, key]``, or of all at once ``[head, row, key]``."""
    if isinstance(head, int):
        torch.mm(query, key[head // group], out=scores)
        return
    found = query.reshape(key.shape[0], -1, query.shape[-1]) @ key
    scores.copy_(found.view(scores.shape))


def _visible(ran: Ran, places: Places, b: int, head: int | None, height: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of rows and the range of keys that they may see; a block in which no row is real is left out.

    head: whose mask is asked; None: any head's.
    """
    _, _, queries, keys = ran.shape
    real = (places.queries[b] >= 0).tolist()
    for start in range(0, queries, height):
        rows = slice(start, min(start + height, queries))
        if not any(real[rows]):
            continue
        first, last = 0, min(rows.stop, keys) if ran.causal else keys
        if ran.mask is not None and ran.mask.shape[3] > 1:
            mask = ran.mask_of(b)
            mask = mask if head is None else mask[head if len(mask) > 1 else 0][None]
            part = mask if mask.shape[1] == 1 else mask[:, rows]
            seen = (part.amax((0, 1)) > ran.never).nonzero()
            if not len(seen):
                continue
            first, last = int(seen[0]), min(last, int(seen[-1]) + 1)
        yield rows, slice(first, last)


def attending(lse: Tensor, ran: Ran) -> Tensor:
    """Which rows look at anything, by their log-sum-exp."""
    return lse.isfinite() & (lse > ran.never) & (lse < -LOWEST)


def _ready(ran: Ran) -> tuple[Ran, bool]:
    """The call with a log-sum-exp for each row, and whether it is known already: else each tile finds its own.

    Rows that look at nothing are given one beyond all scores: their weights are zero then.
    """
    if ran.lse is None:
        return replace(ran, lse=torch.full(ran.shape[:3], _BEYOND, device=ran.query.device)), False
    lse = ran.lse.float().contiguous()
    return replace(ran, lse=torch.where(attending(lse, ran), lse, _BEYOND)), True


def _check(ran: Ran, places: Places) -> None:
    if not places.padded:
        return
    for b in range(ran.shape[0]):
        spare = (places.keys[b] < 0).to(ran.query.device)
        rows = (places.queries[b] >= 0).to(ran.query.device)
        if not bool(spare.any()) or not bool(rows.any()):
            continue
        if ran.mask is not None and ran.mask.shape[3] > 1:
            mask = ran.mask_of(b)
            mask = mask if mask.shape[1] == 1 else mask[:, rows]
            if float(mask[:, :, spare].amax()) <= ran.never:
                continue
        elif ran.causal and int(spare.nonzero()[0]) > int(rows.nonzero()[-1]):
            continue  # what fills up the right end lies ahead of every row
        raise NotUnderstoodError(Text("rows look at keys that are padding", "有些行在看填充的键"))


def _lse_of(ran: Ran, scores: Tensor, b: int, h: int | slice, rows: slice, keys: slice) -> Tensor:
    """The log-sum-exp of a tile's rows, which the kernel kept to itself; beyond all scores where they see nothing."""
    full = scores * ran.scale
    mask = ran.masking(b, h, rows, keys)
    full = full if mask is None else full.add_(mask)
    if ran.causal:
        places = torch.arange(keys.start, keys.stop, device=full.device)
        full.masked_fill_(places > torch.arange(rows.start, rows.stop, device=full.device)[:, None], -torch.inf)
    lse = full.logsumexp(-1)
    return torch.where(attending(lse, ran), lse, _BEYOND)


def _may_look(ran: Ran) -> Tensor:
    """Which rows a mask lets look at anything ``[batch or 1, head or 1, query or 1]``."""
    assert ran.mask is not None
    seen = ran.mask > ran.never
    if ran.causal:
        ahead = torch.arange(ran.shape[3], device=seen.device) > torch.arange(ran.shape[2], device=seen.device)[:, None]
        seen = seen & ~ahead
    return seen.any(-1)


def _told(ran: Ran, places: Places, sums: Sums) -> Sums:
    """The sums, undefined where a row is padding, looks at nothing, or stands on no key.

    Rows are divided by what they sum to, for the log-sum-exp is rounded: Σ (p/m) ln (m/p) = −(Σ p ln p)/m + ln m.

    Raises:
        NotUnderstoodError: a row does not sum to one: the kernel did something else than was read off its arguments.
    """
    assert ran.lse is not None
    real = (places.queries >= 0).to(sums.mass.device)[:, None]
    attends = real & attending(ran.lse, ran)
    if ran.mask is not None and bool((attends & (sums.mass < _NOTHING)).any()):
        attends = attends & _may_look(ran)  # some kernels say zero of a row that may look at nothing
    mass = sums.mass.masked_fill(~attends, 1)
    both = torch.stack([mass - 1, ran.lse.masked_fill(~attends, 0)]).flatten(1).abs()
    worst, largest = both.amax(1).cpu().tolist() if both.numel() else (0.0, 0.0)
    allowed = LOOSE * max(1.0, largest / _LARGE)
    if largest > _HUGE:
        raise NotUnderstoodError(
            Text(
                f"float32 has too few digits of scores as large as {largest:.0f}",
                f"分数大到 {largest:.0f}，float32 的位数不够",
            )
        )
    if not worst <= allowed:
        raise NotUnderstoodError(
            Text(
                f"rows sum to something else than one (off by {worst:.2g}, allowed: {allowed:.2g})",
                f"各行之和不为一（相差 {worst:.2g}，允许 {allowed:.2g}）",
            )
        )
    rows = {
        "entropy": (sums.entropy / mass + mass.log()).clamp_(min=0),
        "distance": sums.distance / mass if places.standing else torch.full_like(mass, torch.nan),
        "sink": sums.sink / mass,
        "mass": mass,
    }
    return replace(sums, **{name: values.masked_fill(~attends, torch.nan) for name, values in rows.items()})
