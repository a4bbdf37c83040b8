"""What is known of the roles of heads from scores of rows that were kept without the weights."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attnviz.analysis.pooling import UNLIKE, Labelled, causal
from hf_attnviz.errors import ShapeError
from hf_attnviz.functional import Tally
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.trace import AttentionStack

ROLES = ("previous_token", "next_token", "duplicate_token", "induction")
FEWER = Text(
    'Only these roles can be told of what was kept; keep="maps" gives all ten. The baseline is even over all keys that '
    "causality leaves a row, windows not counted.",
    '由所保留的内容只能得出这些角色；keep="maps" 可得全部十个。基线在因果性所允许的全部键上均匀，不计窗口。',
)


@dataclass(frozen=True, eq=False)
class Scored(Labelled):
    """The scores that the same stack of several traces keeps."""

    stacks: tuple[AttentionStack, ...]
    causal: bool

    def found(self) -> dict[str, Tally]:
        """The roles by name, `[example, layer, head]` each."""
        return {name: _tally([_scores(name, stack) for stack in self.stacks]) for name in ROLES}

    def uniform(self) -> dict[str, Tally]:
        """The same of a head that is even over all keys that a row may see, on the same rows."""
        even = [_even(stack, causal=self.causal) for stack in self.stacks]
        return {
            name: _tally(
                [
                    rows[name].masked_fill(_scores(name, stack).isnan().flatten(0, 1).all(0), torch.nan)[None, None]
                    for stack, rows in zip(self.stacks, even, strict=True)
                ]
            )
            for name in ROLES
        }


def scored(stacks: Sequence[AttentionStack]) -> Scored | None:
    """The scores that these stacks keep; None where they keep all weights, or no scores.

    Raises:
        ShapeError: traces whose layers or heads differ.
    """
    maps = [m for stack in stacks for m in stack]
    if all(m.has_weights for m in maps) or not all("scores" in m.reduced for m in maps):
        return None
    if len({(stack.layers, m.shape[0]) for stack in stacks for m in stack}) > 1:
        raise ShapeError(UNLIKE)
    return Scored(tuple(stacks), causal(stacks))


def _scores(name: str, stack: AttentionStack) -> Tensor:
    return torch.stack([m.reduced["scores"][name] for m in stack])


def _tally(rows: Sequence[Tensor]) -> Tally:
    """Of each example's rows ``[layer, head, query]``; a row that is NaN is left out."""
    totals = torch.stack([one.nan_to_num(0).sum(-1) for one in rows])
    return Tally(totals, torch.stack([(~one.isnan()).sum(-1) for one in rows]).to(totals.dtype))


def _even(stack: AttentionStack, *, causal: bool) -> dict[str, Tensor]:
    """What each row of an even head gives, ``[query]`` by role."""
    one = stack.maps[0]
    places = one.positions if one.positions is not None else (0,) * len(one.queries)
    keys = [place + 1 if causal else len(one.keys) for place in places]
    copies = _copies(one.keys)
    counts = {"previous_token": [1] * len(keys), "next_token": [1] * len(keys)}
    counts |= {name: [copies[place] for place in places] for name in ("duplicate_token", "induction")}
    return {name: torch.tensor(count) / torch.tensor(keys) for name, count in counts.items()}


def _copies(keys: Labels) -> list[int]:
    """How many earlier keys have the token of each key."""
    seen: Counter[int | None] = Counter()
    found = []
    for number in keys.ids:
        found.append(0 if number is None else seen[number])
        seen[number] += 1
    return found
