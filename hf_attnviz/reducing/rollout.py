"""Attention rollout for groups of sources, streamed forward through the layers: never a matrix.

Source: Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (2020), section 3, equation 1, summed over the
columns of each group. Steps: X_0 says of which group each place is; at each layer X_l = (1-r) F X_{l-1} + r X_{l-1}, F
being the mean of the heads; the rows of X_l are made to sum to one. Rows above a row of nothing are NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, GROUP, KEY, QUERY
from hf_attnviz.errors import ArgumentError, CaptureError
from hf_attnviz.language import Text
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.carried import Carried, Luggage
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.tile import Tile

# The last group: what comes after equal spans, or lies in none of the stretches given.
GENERATED, OTHERS = "generated", "others"
_SLACK = 64


@dataclass(frozen=True)
class Rollout:
    """How much of each group of sources is mixed into each position after each layer, if attention were all that mixes.

    ``sources`` ``[query, group]``, rows that sum to one: the rollout of whole maps with the mean of the heads, summed
    over the columns of each group, in memory for ``groups`` numbers a position. Beside it ``group`` ``[query]``, of
    which group the row's own place is, and ``first`` and ``last`` ``[query]``, the keys between which the layer lets
    the row look (-1: not one stretch), of which uniform attention under the same mask is made. Cross-attention has no
    rollout of its own and is left out.

    Args:
        groups: into how many equal spans the places of the prompt (what the first pass reads) are cut, in order; where
            a sequence has fewer places each is a span of its own. Or stretches by name: ``{"system": (0, 12), "user":
            (12, 40)}``, from the first place to before the last, padding not counted. There is one group more, the
            last: ``"generated"`` for what is read after equal spans, ``"others"`` for what lies in no stretch.
        residual: the share r of the residual stream.

    Raises:
        ArgumentError: groups or a share that mean nothing.
    """

    groups: int | Mapping[str, tuple[int, int]] = 64
    residual: float = 0.5
    name: str = "rollout"
    needs: frozenset[str] = frozenset({"weights", "below", "before"})

    def __post_init__(self) -> None:
        if isinstance(self.groups, Mapping):
            object.__setattr__(self, "groups", _checked(self.groups))
        elif isinstance(self.groups, bool) or not isinstance(self.groups, int) or self.groups < 1:
            raise ArgumentError(
                Text(
                    f"Rollout({self.groups!r}): expected how many groups, or stretches by name",
                    f"Rollout({self.groups!r})：应为组数，或带名字的各段",
                )
            )
        if not 0 <= self.residual <= 1:
            raise ArgumentError(
                Text(
                    f"Rollout(residual={self.residual!r}): expected a share from 0 to 1",
                    f"Rollout(residual={self.residual!r})：应为 0 到 1 的占比",
                )
            )

    def update(self, state: "Carried | Rolling | None", tile: Tile) -> "Rolling":
        """Mix what the rows of a tile look at."""
        if not isinstance(state, Rolling):
            state = self._begun(state or Carried(), tile)
        for n, b in enumerate(range(*tile.batch.indices(tile.shape[0]))):
            state.mix(b, tile.rows, tile.keys, tile.weights[n].mean(0), self.residual)
        state.spans[tile.batch, tile.rows] = tile.spans.to(state.spans.device)
        return state

    def carry(self, state: "Rolling") -> Luggage:
        """What is mixed into each place by now, of earlier passes too."""
        return {"mixed": state.placed(), "lengths": state.places.ends, "prompt": state.prompt}

    def result(self, state: "Rolling") -> Reduced:
        """The shares of the sources, and what their baseline is made of."""
        rows, real = (BATCH, QUERY), state.places.queries >= 0
        group = self._group_of(state.places.queries, state.prompt).masked_fill(~real, -1)
        first, last = state.spans.int().unbind(-1)
        values = {"sources": state.mixed, "group": group.int(), "first": first, "last": last}
        axes = {"sources": (BATCH, QUERY, GROUP), "group": rows, "first": rows, "last": rows}
        return Reduced(values, axes, {"first": KEY, "last": KEY}, about=self._about())

    @property
    def _count(self) -> int:
        return 1 + (self.groups if isinstance(self.groups, int) else len(self.groups))

    def _about(self) -> dict[str, Any]:
        equal = isinstance(self.groups, int)
        names = [str(n) for n in range(self._count - 1)] if isinstance(self.groups, int) else list(self.groups)
        return {"residual": self.residual, "equal": equal, GROUP: [*names, GENERATED if equal else OTHERS]}

    def _group_of(self, places: Tensor, prompt: Tensor) -> Tensor:
        """The group of each place of ``[batch, place]``; ``prompt`` ``[batch]``, how long each one's prompt is."""
        last = self._count - 1
        if isinstance(self.groups, int):
            spans = places * prompt.clamp(max=self.groups)[:, None] // prompt.clamp(min=1)[:, None]
            return torch.where(places < prompt[:, None], spans, last)
        group = torch.full_like(places, last)
        for n, (start, stop) in enumerate(self.groups.values()):
            group[(places >= start) & (places < stop)] = n
        return group

    def _begun(self, carried: Carried, tile: Tile) -> "Rolling":
        places, device = tile.places, tile.weights.device
        before = carried.before
        prompt = places.prompts if before is None else before["prompt"]
        longest = int(places.ends.max())
        _check(places, torch.zeros_like(prompt) if before is None else before["lengths"])
        if carried.below is None:
            every = torch.arange(longest).expand(len(prompt), -1)
            source = torch.nn.functional.one_hot(self._group_of(every, prompt), self._count).to(device, torch.float32)
        else:
            source = carried.below["mixed"][:, :longest]
        return Rolling.of(source, places, prompt, self.residual, before)


@dataclass(eq=False)
class Rolling:
    """One layer under way.

    Attributes:
        source: ``[batch, place, group]``, what is mixed into each place below; NaN taken out.
        undefined: ``[batch, place]``, where it was NaN; None: nowhere.
        columns: for each sequence the same at the columns of the call ``[key, group]``.
        mixed: ``[batch, query, group]``, what is mixed into the rows.
        spans: ``[batch, query, 2]``.
    """

    source: Tensor
    undefined: Tensor | None
    columns: list[Tensor]
    mixed: Tensor
    spans: Tensor
    places: Places
    prompt: Tensor
    before: Luggage | None

    @classmethod
    def of(cls, source: Tensor, places: Places, prompt: Tensor, residual: float, before: Luggage | None) -> "Rolling":
        """Before the first tile: a row that looks at nothing keeps what it has of the residual stream."""
        lost = source.isnan().any(-1)  # places that are not read yet hold zeros
        undefined = lost if bool(lost.any()) else None
        source = source if undefined is None else source.masked_fill(lost[..., None], 0)
        columns = [_at(source[b], at) for b, at in enumerate(places.keys)]
        mixed = torch.stack([_at(source[b], at) for b, at in enumerate(places.queries)])
        missing = places.queries < 0 if residual > 0 else torch.ones_like(places.queries, dtype=torch.bool)
        if undefined is not None:
            missing = missing | lost.cpu().gather(1, places.queries.clamp(min=0))
        if bool(missing.any()):
            mixed.masked_fill_(missing[..., None].to(mixed.device), torch.nan)
        spans = torch.full((*places.queries.shape, 2), -1, dtype=torch.long, device=source.device)
        return cls(source, undefined, columns, mixed, spans, places, prompt, before)

    def mix(self, b: int, rows: slice | Tensor, keys: slice, fused: Tensor, residual: float) -> None:
        """Mix into some rows what they look at, by the mean of the heads ``[row, key]``."""
        places = self.places.queries[b, rows]
        mixed = (fused @ self.columns[b][keys]).mul_(1 - residual)
        mixed.add_(_at(self.source[b], places), alpha=residual)
        mixed /= mixed.sum(-1, keepdim=True)
        lost = places < 0
        if self.undefined is not None:
            at, undefined = self.places.keys[b, keys], self.undefined[b].cpu()
            gone = undefined[at.clamp(min=0)] & (at >= 0)
            lost = lost | ((1 - residual) * fused.cpu()[:, gone] > 0).any(-1)
            lost = lost | (undefined[places.clamp(min=0)] & (residual > 0))
        if bool(lost.any()):
            mixed.masked_fill_(lost[:, None].to(mixed.device), torch.nan)
        self.mixed[b, rows] = mixed

    def placed(self) -> Tensor:
        """What is mixed into each place ``[batch, place, group]``, with room for more after the second pass.

        What has no room left may be what was handed out: it is copied and never written to.
        """
        batch, longest = len(self.mixed), int(self.places.ends.max())
        every = torch.arange(self.mixed.shape[1]).expand(batch, -1)
        if self.before is None and torch.equal(self.places.queries, every):
            return self.mixed
        old = None if self.before is None else self.before["mixed"]
        known = 0 if self.before is None else int(self.before["lengths"].max())
        full = old is None or old.shape[1] <= max(known, longest - 1)
        if old is None or full or old.is_inference() != torch.is_inference_mode_enabled():
            room, known = longest if old is None else longest + max(_SLACK, longest // 4), min(known, longest)
            new = self.mixed.new_zeros((batch, room, self.mixed.shape[-1]))
            if old is not None:
                new[:, :known] = old[:, :known]
            old = new
        for b, at in enumerate(self.places.queries):
            real = at >= 0
            old[b, at[real].to(old.device)] = self.mixed[b, real.to(old.device)]
        return old


def _at(source: Tensor, places: Tensor) -> Tensor:
    """The rows of ``[place, group]`` at ``[n]`` places, zeros at -1; a view where they stand one after another."""
    first = int(places[0]) if len(places) else 0
    if first >= 0 and torch.equal(places, torch.arange(first, first + len(places))):
        return source[first : first + len(places)]
    places = places.to(source.device)
    return source[places.clamp(min=0)].masked_fill_((places < 0)[:, None], 0)


def _check(places: Places, known: Tensor) -> None:
    """Raise unless the rows go on from the places that are known ``[batch]``, and look at no others."""
    starts = torch.where(places.queries < 0, places.ends[:, None], places.queries).amin(1)
    if bool((starts > known).any()):
        raise CaptureError(
            Text(
                f"rollout needs the run from its first token: rows begin at the places {starts.tolist()}, and what was "
                f"mixed into those from {known.tolist()} on is not known (a cache filled before, or learned prefixes)",
                f"rollout 需要从第一个词元起的整个运行：各行始于位置 {starts.tolist()}，而从 {known.tolist()} "
                "起混入其中的内容不得而知（缓存事先已有内容，或有学得的前缀）",
            )
        )
    if bool((places.keys >= places.ends[:, None]).any()):
        raise CaptureError(
            Text(
                "rollout cannot follow rows that look at keys which are no places of their own sequence",
                "有些行所看的键不是其自身序列的位置，rollout 无法追溯",
            )
        )


def _checked(groups: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for name, bounds in groups.items():
        numbers = tuple(bounds) if isinstance(bounds, (tuple, list)) else ()
        whole = len(numbers) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
        if not isinstance(name, str) or not whole or not 0 <= numbers[0] < numbers[1]:
            raise ArgumentError(
                Text(
                    f"Rollout: expected stretches such as 'system': (0, 12), got {name!r}: {bounds!r}",
                    f"Rollout：各段应形如 'system': (0, 12)，得到 {name!r}：{bounds!r}",
                )
            )
        if any(start < numbers[1] and numbers[0] < stop for start, stop in found.values()) or name == OTHERS:
            raise ArgumentError(
                Text(
                    f"Rollout: {name!r} {bounds!r} overlaps another stretch, or is called {OTHERS!r}",
                    f"Rollout：{name!r} {bounds!r} 与另一段重叠，或名为 {OTHERS!r}",
                )
            )
        found[name] = (numbers[0], numbers[1])
    if not found:
        raise ArgumentError(
            Text("Rollout: expected stretches by name, got none", "Rollout：应有带名字的各段，得到零段")
        )
    return found
