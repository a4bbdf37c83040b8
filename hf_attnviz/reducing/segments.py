"""How much of each row lies on stretches of the keys: a system prompt, a document, a picture."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hf_attnviz.axes import BATCH, HEAD, QUERY, SEGMENT
from hf_attnviz.errors import ArgumentError, listed
from hf_attnviz.language import Text
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.counting import keys_before, keys_of
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.tile import Sums, Tile

KINDS = "kinds"
_KEYS = (BATCH, QUERY, SEGMENT)
_AXES = {"mass": (BATCH, HEAD, QUERY, SEGMENT), "keys": _KEYS, "keys_causal": _KEYS}

Among = Callable[[Tensor], Tensor]
Bounds = tuple[int, int] | Among


@dataclass(frozen=True)
class Segments:
    """The weight of each row on each segment of the keys: ``mass`` ``[head, query, segment]``.

    With :attr:`rest`, the last segment, a row sums to one. Beside it stands of how many keys each segment is made for
    a row, ``[query, segment]``: of all (``keys``), and of those up to the row's own place (``keys_causal``).
    :func:`hf_attnviz.segment_mass` makes means of them, beside what even attention would give. NaN: rows that look at
    nothing, and a sequence of which the token ids would have to be known and are not.

    Args:
        bounds: by name, or a list of (start, stop) alone: the places ``start <= place < stop`` in the sequence that is
            looked at, padding left out; or a function that says of token ids ``[place]`` which belong to it ``[place]``
            (−1: an id that is not known). Of two that hold a key the first has it. ``"kinds"``: ``image`` and
            ``sound`` by the placeholder tokens that the model's configuration names, and ``text``, the rest.
        rest: the name of all other keys.
    """

    bounds: Mapping[str, Bounds] | Sequence[tuple[int, int]] | str = KINDS
    rest: str = "other"
    name: str = "segments"
    needs: frozenset[str] = field(default=frozenset({"weights", "sums"}), init=False)

    def __post_init__(self) -> None:
        if isinstance(self.bounds, str):
            if self.bounds != KINDS:
                raise ArgumentError(
                    Text(
                        f"Segments({self.bounds!r}): expected (start, stop) by name, a list, or {KINDS!r}",
                        f"Segments({self.bounds!r})：应为带名字的 (start, stop)、一个列表或 {KINDS!r}",
                    )
                )
            return
        given = self.bounds
        named = given if isinstance(given, Mapping) else {f"{one[0]}:{one[1]}": one for one in map(_pair, given)}
        for name, one in named.items():
            _checked(name, one)
        if not named or self.rest in named:
            raise ArgumentError(
                Text(
                    f"Segments needs one or more, none of them called {self.rest!r}; got {listed(named)}",
                    f"Segments 应有一段或多段，且都不名为 {self.rest!r}；得到 {listed(named, '无')}",
                )
            )
        object.__setattr__(self, "bounds", dict(named))
        if any(callable(one) for one in named.values()):
            object.__setattr__(self, "needs", self.needs | {"tokens"})

    @property
    def names(self) -> tuple[str, ...]:
        """The segments in order, the rest last."""
        return (*self.bounds, self.rest)

    def by_kinds(self, marks: Mapping[str, Collection[int]]) -> "Segments":
        """These segments, ``"kinds"`` replaced by the placeholder tokens of a model.

        Args:
            marks: their ids by kind, ``{"image": [151655]}``.

        Raises:
            ArgumentError: there are none.
        """
        if self.bounds != KINDS:
            return self
        if not marks:
            raise ArgumentError(
                Text(
                    "this model's configuration names no token that stands for a picture or a sound; say which places "
                    'you mean: keep=av.Segments({"system": (0, 12)})',
                    "这个模型的配置没有说明哪个词元代表图片或声音；请说明所指的位置："
                    'keep=av.Segments({"system": (0, 12)})',
                )
            )
        return replace(self, bounds={name: _among(ids) for name, ids in marks.items()}, rest="text")

    def update(self, state: Tensor | None, tile: Tile) -> "Tensor | Reduced":
        """Add up the weights of a tile; at the end of a call, count the keys."""
        if state is None:
            device = tile.weights.device if tile.given is None else tile.given.mass.device
            state = torch.zeros(*tile.shape[:3], len(self.names), device=device)
        if tile.given is not None:
            return self._told(state, tile.places, tile.given)
        b = tile.batch.start
        at = tile.places.keys[b, tile.keys]
        members = self._members(tile.places, b)[at.clamp_min(0)] * (at >= 0)[:, None]
        state[b, :, tile.rows] = tile.weights[0] @ members.to(state.device)
        return state

    def result(self, state: Reduced) -> Reduced:
        """The masses and the counts."""
        return state

    def _members(self, places: Places, b: int) -> Tensor:
        """Which segment each place of a sequence belongs to ``[place, segment]``, 1 or 0; NaN where ids are needed."""
        count = max(1, int(keys_of(places)[b, 0]) if places.queries.shape[1] else 1)
        assert isinstance(self.bounds, Mapping)
        at, free, found = torch.arange(count), torch.ones(count, dtype=torch.bool), []
        for one in self.bounds.values():
            if not callable(one):
                inside = (at >= one[0]) & (at < one[1])
            elif places.tokens is None:
                return torch.full((count, len(self.names)), torch.nan)
            else:
                inside = torch.as_tensor(one(places.tokens[b, :count])).bool()
            found.append(inside & free)
            free = free & ~inside
        return torch.stack([*found, free], 1).float()

    def _told(self, state: Tensor, places: Places, sums: Sums) -> Reduced:
        unseen = sums.mass.isnan() | (places.queries < 0).to(state.device)[:, None]
        values = {"mass": state.masked_fill(unseen[..., None], torch.nan)}
        members = [self._members(places, b) for b in range(len(state))]
        for name, counts in (("keys", keys_of(places)), ("keys_causal", keys_before(places))):
            sofar = (torch.nn.functional.pad(one.cumsum(0), (0, 0, 1, 0)) for one in members)
            rows = [one[count.clamp(0, len(one) - 1)] for one, count in zip(sofar, counts, strict=True)]
            values[name] = torch.stack(rows)
        return Reduced(values, _AXES, about={SEGMENT: list(self.names)})


def _pair(one: object) -> tuple[int, int]:
    if not isinstance(one, Sequence) or len(one) != 2:
        raise ArgumentError(
            Text(f"Segments: expected (start, stop), got {one!r}", f"Segments：应为 (start, stop)，得到 {one!r}")
        )
    return one[0], one[1]


def _checked(name: object, one: object) -> None:
    if not isinstance(name, str) or not name:
        raise ArgumentError(Text(f"Segments: expected a name, got {name!r}", f"Segments：应为名字，得到 {name!r}"))
    if callable(one):
        return
    start, stop = _pair(one)
    if any(isinstance(end, bool) or not isinstance(end, int) for end in (start, stop)) or not 0 <= start < stop:
        raise ArgumentError(
            Text(
                f"Segments: {name}: expected places 0 <= start < stop, got {one!r}",
                f"Segments：{name}：位置应满足 0 <= start < stop，得到 {one!r}",
            )
        )


def _among(ids: Collection[int]) -> Among:
    wanted = torch.tensor(sorted(ids))
    return lambda tokens: torch.isin(tokens, wanted)
