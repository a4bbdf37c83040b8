"""What ``keep`` may name: the reducers of :mod:`hf_attnviz.reducing`, and the one that a block completes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hf_attnviz.capturing.families import PATCH_TOKENS, SOUND_TOKENS
from hf_attnviz.capturing.kept_parts import KeptParts
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.reducing.evolution import Evolution
from hf_attnviz.reducing.gram import Gram
from hf_attnviz.reducing.outline import Outline
from hf_attnviz.reducing.reducer import Reducer
from hf_attnviz.reducing.rollout import Rollout
from hf_attnviz.reducing.rows import Maps, Rows
from hf_attnviz.reducing.scores import Scores
from hf_attnviz.reducing.segments import Segments
from hf_attnviz.reducing.sketch import Sketch
from hf_attnviz.reducing.statistics import Statistics
from hf_attnviz.reducing.tile import Tile
from hf_attnviz.reducing.topk import TopK
from hf_attnviz.reducing.vectors import Vectors

Keep = str | Reducer[Any] | Sequence[str | Reducer[Any]]


@dataclass(frozen=True)
class Contributions:
    """Of what the output of each layer is made: the value vectors, what the block makes of them, and the residual.

    It is read by running each block again, some ``heads · size / positions`` times in the first pass and once in each
    later one, and is proved by adding all parts up. It belongs to maps: ``keep=["maps", "contributions"]``.
    """

    name: str = "contributions"
    needs: frozenset[str] = frozenset({"maps", "vectors", "block"})

    def update(self, state: KeptParts | None, tile: Tile) -> KeptParts:
        """Take the values and the weights of a call; its block fills in the rest when it ends."""
        value = tile.vectors.get("value")
        return KeptParts(None if value is None else value.clone(), tile.weights, tile.positions)

    def need(self, outline: Outline) -> int:
        """Bytes that a call of this outline will take: values, and as many for the stream."""
        rows = outline.heads * outline.queries + outline.batch * outline.groups * outline.keys
        return rows * outline.size * max(4, outline.itemsize)

    def result(self, state: KeptParts) -> KeptParts:
        """The values, to be completed when the block ends."""
        return state


BY_NAME: Final[dict[str, Reducer[Any]]] = {
    "maps": Maps(),
    "statistics": Statistics(),
    "topk": TopK(),
    "rollout": Rollout(),
    "evolution": Evolution(),
    "vectors": Vectors(),
    "contributions": Contributions(),
    "gram": Gram(),
    "sketch": Sketch(),
    "scores": Scores(),
    "segments": Segments(),
}


def reducers(keep: Keep) -> tuple[Reducer[Any], ...]:
    """The reducers that ``keep`` names.

    Raises:
        UnknownNameError: a name that is not known.
        ArgumentError: none at all, or two that keep rows.
    """
    asked: list[str | Reducer[Any]] = list(keep) if isinstance(keep, Sequence) and not isinstance(keep, str) else [keep]
    found: list[Reducer[Any]] = []
    for one in asked:
        if one not in BY_NAME if isinstance(one, str) else not hasattr(one, "update"):
            raise UnknownNameError(
                Text(
                    f"keep={one!r} is not known; known: {listed(BY_NAME)}, or a reducer such as av.Rows([0])",
                    f"未知的 keep={one!r}；可用：{listed(BY_NAME)}，或一个归约器，如 av.Rows([0])",
                )
            )
        found.append(BY_NAME[one] if isinstance(one, str) else one)
    if not found:
        raise ArgumentError(
            Text('keep names nothing to keep; for example keep="maps"', 'keep 没有说要保留什么；例如 keep="maps"')
        )
    names = [reducer.name for reducer in found]
    if len(set(names)) < len(names) or {"maps", "rows"} <= set(names):
        raise ArgumentError(
            Text(
                f"keep names the same thing twice (maps hold all rows): {listed(names)}",
                f"keep 把同一样东西说了两次（maps 已含所有行）：{listed(names)}",
            )
        )
    if "contributions" in names and "maps" not in names:
        raise ArgumentError(
            Text(
                'contributions are those of whole maps; keep both: keep=["maps", "contributions"]',
                '贡献属于整张图；请两样都保留：keep=["maps", "contributions"]',
            )
        )
    return tuple(found)


def fitted(reducers: Sequence[Reducer[Any]], config: Any) -> tuple[Reducer[Any], ...]:
    """The reducers of a recording, told what a model's configuration says of its tokens.

    Raises:
        ArgumentError: it does not say what a reducer must know.
    """
    settings = {"image": PATCH_TOKENS, "sound": SOUND_TOKENS}
    told = {kind: [getattr(config, name, None) for name in names] for kind, names in settings.items()}
    marks = {kind: {token for token in found if isinstance(token, int)} for kind, found in told.items()}
    known = {kind: ids for kind, ids in marks.items() if ids}
    return tuple(one.by_kinds(known) if isinstance(one, Segments) else one for one in reducers)


def chosen(keep: Keep, queries: Sequence[int] | None, layers: Sequence[int] | None = None) -> tuple[Reducer[Any], ...]:
    """The reducers of a recording: ``queries`` is short for ``Rows``."""
    if queries is None:
        found = reducers(keep)
        climbing = [one.name for one in found if "below" in one.needs]
        if climbing and layers is not None:
            raise ArgumentError(
                Text(
                    f"{listed(climbing)} goes up through every layer: leave out layers={list(layers)}",
                    f"{listed(climbing)} 要逐层向上经过每一层：请去掉 layers={list(layers)}",
                )
            )
        return found
    if keep != "maps":
        raise ArgumentError(
            Text(
                f"queries={list(queries)} is short for keep=av.Rows(…); name rows in one of the two places",
                f"queries={list(queries)} 是 keep=av.Rows(…) 的简写；请只在其中一处指明行",
            )
        )
    return (Rows(queries),)
