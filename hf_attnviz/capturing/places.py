"""Where the rows and the key columns of a call stand in their sequences."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from hf_attnviz.capturing.runs import Pass, Run, Side
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text
from hf_attnviz.reducing.ran import Places


def places_of_steps(run: Run, steps: Sequence[Pass], kind: str, shape: Sequence[int]) -> Places:
    """Where everything stands in one row each of consecutive forwards, the last of which sees all the keys."""
    first, last = steps[0], steps[-1].side
    read = last.past + (last.new or 0)
    side = replace(last, past=read - len(steps), new=len(steps))
    found = _places(run, first, side, kind, shape, 0)
    prompt = _prompt(run, steps[-1], last, shape[0], read)
    return replace(found, lengths=torch.where(found.queries < 0, 0, found.queries + 1), prompt=prompt)


def places_of(run: Run, one: Pass, side: Side, kind: str, shape: Sequence[int], turns: int = 0) -> Places:
    """Where everything in a call with weights of this shape stands.

    Args:
        run, one, side: the run, its pass, and what the call's stack read in it.
        kind: ``"self"`` or ``"cross"``.
        shape: ``[batch, …, query, key]``.
        turns: how many turns of a decoder's loop there were before, whose one row each goes on.
    """
    known = (id(side), kind, *shape, turns)
    if known not in one.places:  # layer after layer asks the same
        one.places[known] = _places(run, one, side, kind, shape, turns)
    return one.places[known]


def _places(run: Run, one: Pass, side: Side, kind: str, shape: Sequence[int], turns: int) -> Places:
    batch, rows, keys = shape[0], shape[-2], shape[-1]
    queries, lengths = side.positions(batch, rows)
    queries, lengths = queries + turns, (lengths + turns)[:, None].expand_as(queries)
    told = rows == side.new
    read = run.source if kind == "cross" else side if told else Side()
    at = columns(read, one, batch, keys)
    counted, before = queries >= 0, one.read if told else 0
    if before > side.past:  # without a cache every pass reads all over again
        counted = counted & (torch.arange(side.past, side.past + rows, device=queries.device) >= before)
    whole = not told or turns > 0 or side is not one.side or one.step < 0
    prompt = None if whole else _prompt(run, one, side, batch, side.past + rows)
    return Places(queries, lengths, at, counted, kind == "self", prompt=prompt)


def _prompt(run: Run, one: Pass, side: Side, batch: int, read: int) -> torch.Tensor:
    """How many places of each sequence are of its prompt ``[batch]``, as far as it is read."""
    if one.prompt is None:
        one.prompt = run.prompt
    return side.real(batch, min(one.prompt, read))


def columns(read: Side, one: Pass, batch: int, keys: int) -> torch.Tensor:
    """The place of each key column in its own sequence ``[batch, key]``; -1 for padding, and for what is not read yet.

    A static cache has columns that nothing has filled yet; a window has let go of the first ones.
    """
    length = keys if read.new is None or not read.cached else read.past + read.new
    real = _rows_of(read.mask, one, batch)
    if real is None or real.shape[1] < length or (length == keys != real.shape[1] and not read.cached):
        real = torch.ones(batch, length, dtype=torch.bool, device="cpu")
    real = real[:, :length].bool().cpu()
    places = torch.where(real, real.cumsum(1) - 1, -1)
    return torch.nn.functional.pad(places, (0, max(0, keys - length)), value=-1)[:, -keys:]


def with_tokens(places: Places, run: Run, one: Pass, side: Side, kind: str, *, steps: int = 1) -> Places:
    """The same places with the ids of what stands there, where that is known.

    Arguments as in :func:`places_of`; steps: of how many forwards the rows are, ``one`` the last.
    """
    batch, rows = places.queries.shape
    if kind != "cross" and rows != (side.new if steps == 1 else steps):
        return places
    read = run.source if kind == "cross" else side
    ids = _source_ids(run, one, batch) if kind == "cross" else _ids_so_far(run, one, side, batch)
    if ids is None:
        return places
    count = max(int(places.lengths.amax()), int(places.keys.amax()) + 1)
    return replace(places, tokens=_by_place(ids, read, one, batch, count))


def _source_ids(run: Run, one: Pass, batch: int) -> torch.Tensor | None:
    ids = run.source.ids
    return None if ids is None or ids.dim() != 2 else _rows_of(ids.cpu(), one, batch)


def _ids_so_far(run: Run, one: Pass, side: Side, batch: int) -> torch.Tensor | None:
    """The ids that each row of a batch has read by the end of a pass, padding included ``[batch, position]``; -1 where
    there was none, or nobody told; None where there are none at all."""
    read = side.past + (side.new or 0)
    found = torch.full((batch, read), -1)
    for part in [each.side for each in run.passes] if side is one.side else [side]:
        if part.ids is not None and part.ids.shape == (batch, part.new or 0) and part.past + part.ids.shape[1] <= read:
            found[:, part.past : part.past + part.ids.shape[1]] = part.ids.cpu()
    if side is one.side and one.prefix is not None and len(one.prefix) == batch and one.prefix.shape[1] <= read:
        found[:, read - one.prefix.shape[1] :] = one.prefix  # beams change places, and these are in their order
    return found if bool((found >= 0).any()) else None


def _by_place(ids: torch.Tensor, read: Side, one: Pass, batch: int, count: int) -> torch.Tensor:
    """Ids ``[batch, position]``, padding included, by the place in each sequence ``[batch, place]``."""
    real = _rows_of(read.mask, one, batch)
    if real is None or real.shape[1] < ids.shape[1]:
        real = torch.ones(batch, ids.shape[1])
    real = real[:, : ids.shape[1]].bool().cpu()
    at = torch.where(real, real.cumsum(1) - 1, -1)
    count = max(count, int(at.amax()) + 1)
    found = torch.full((batch, count + 1), -1)  # the last column takes what is padding
    found.scatter_(1, torch.where(at < 0, count, at), ids)
    found[:, count] = -1
    return found[:, :count]


def _rows_of(mask: torch.Tensor | None, one: Pass, batch: int) -> torch.Tensor | None:
    """A mask for each row of a batch: a source is read once, and serves all the beams of its input.

    Raises:
        CaptureError: it cannot be told which source is whose.
    """
    if mask is None or len(mask) == batch:
        return mask
    if len(mask) == 1 or bool((mask == mask[:1]).all()):
        return mask[:1].expand(batch, -1)
    if one.prefix is not None and len(one.prefix) == batch and batch % len(mask) == 0:
        return mask.repeat_interleave(batch // len(mask), dim=0)
    raise CaptureError(
        Text(
            f"a batch of {batch} looks at {len(mask)} sequences with padding, and it cannot be told which looks at "
            "which; run one input at a time",
            f"大小为 {batch} 的 batch 在看 {len(mask)} 条带填充的序列，无法得知谁看谁；请每次运行一个输入",
        )
    )
