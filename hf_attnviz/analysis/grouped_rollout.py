"""Rollout for groups of sources, as it was streamed while the model ran, labelled and with its drift."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from hf_attnviz import functional
from hf_attnviz.analysis.caveats import drift_note
from hf_attnviz.axes import GROUP, LAYER, QUERY
from hf_attnviz.errors import NotKeptError
from hf_attnviz.language import Text
from hf_attnviz.reduced import Reduced
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack

_PLAIN: Final = {"head_fusion": "mean", "discard": 0.0, "start_layer": 0}
_FIRST: Final = Text("the first group of tokens", "第一组词元")
_NAN: Final = Text(
    "NaN: a row of which nothing is left (it looks at nothing, and there is no residual), and those that take of it.",
    "NaN：什么也不剩的行（不看任何键且无残差），以及取自它的行。",
)
_ROWS: Final = Text(
    "Some rows were not kept, so that the rollout of uniform attention, which goes through all of them, is not known.",
    "有些行未保留，而均匀注意力的 Rollout 要经过所有行，因此未知。",
)
_STRETCHES: Final = Text(
    "Some rows may look at keys with others between them that they may not see; what uniform attention would give "
    "them, and rows above them, was not worked out and is NaN.",
    "有些行可见的键之间夹有不可见的键；均匀注意力在这些行及其上各层的值未计算，为 NaN。",
)


def streamed(stack: AttentionStack) -> bool:
    """Whether a stack lacks weights, of all rows or of some, and its rollout was followed while it ran."""
    whole = all(m.has_weights and m.whole for m in stack.maps)
    return not whole and all("rollout" in m.reduced for m in stack.maps)


def grouped_rollout(stack: AttentionStack, options: Mapping[str, Any], caveats: Sequence[Text]) -> Result:
    """``[layer, query, group]``: the share of each group of sources, beside it that under uniform attention.

    Raises:
        NotKeptError: it was followed with other options.
    """
    kept = [m.reduced["rollout"] for m in stack.maps]
    _check(kept[0], options)
    last = kept[-1]
    # What lies in no group is no column: spans of a short text, what would have been generated.
    groups = sorted(set(last.group.tolist())) if stack.maps[0].whole else list(range(last.sizes[GROUP]))
    values = torch.stack([one.sources[:, groups] for one in kept])
    baseline = _baseline(kept, float(options["residual"]), groups) if stack.maps[0].whole else None
    bounds = dict(zip(_names(stack, last, groups), _bounds(last, groups), strict=True))
    notes = [] if baseline is None else [drift_note(float(baseline[-1, -1, 0]), float(values[-1, -1, 0]), first=_FIRST)]
    notes += [_ROWS] if baseline is None else [_STRETCHES] if bool(baseline.isnan().any()) else []
    notes += [_NAN] if bool(values.isnan().any()) else []
    axes = (Axis(LAYER, tuple(map(str, stack.layers))), Axis(QUERY, stack.queries.texts), Axis(GROUP, tuple(bounds)))
    return Result(
        values,
        axes,
        "grouped attention rollout",
        {"stack": stack.name, **options, "groups": bounds},
        "Abnar & Zuidema 2020",
        "share of the input",
        (*notes, *caveats),
        baseline=baseline,
    )


def _check(kept: Reduced, options: Mapping[str, Any]) -> None:
    had = _PLAIN | {"residual": kept.about["residual"]}
    wrong = [f"{name}={options[name]!r}" for name in had if options[name] != had[name]]
    if options["normalise"] != "after":
        wrong.append(f"normalise={options['normalise']!r}")
    if wrong:
        raise NotKeptError(
            Text(
                f"no weights were kept, and rollout was followed with residual={kept.about['residual']}, the mean of "
                "heads "
                f"and nothing discarded; got {', '.join(wrong)}: ask for those, or capture with "
                "keep=av.Rollout(residual=…)"
                ' or keep="maps"',
                f"没有保留权重，而 rollout 是以 residual={kept.about['residual']}、各头取平均、不丢弃任何权重追溯的；"
                f'得到 {", ".join(wrong)}：请按那样求，或以 keep=av.Rollout(residual=…) 或 keep="maps" 捕获',
            )
        )


def _baseline(kept: Sequence[Reduced], residual: float, groups: Sequence[int]) -> Tensor:
    """The rollout of attention that is even over what each row may see, ``[layer, query, group]``."""
    first, last = (torch.stack([one[name] for one in kept]).cpu() for name in ("first", "last"))
    sources = kept[0].group.cpu()[:, None] == torch.tensor(groups)
    return functional.uniform_rollout(first, last, sources, residual=residual).to(kept[0].sources)


def _bounds(kept: Reduced, groups: Sequence[int]) -> list[tuple[int, int] | None]:
    """The first place of each group and the one after its last; None where that is not known."""
    found: list[tuple[int, int] | None] = []
    for group in groups:
        places = (kept.group == group).nonzero()[:, 0].tolist()
        found.append((places[0], places[-1] + 1) if places else None)
    return found


def _names(stack: AttentionStack, kept: Reduced, groups: Sequence[int]) -> list[str]:
    """The names of stretches that were given; for equal spans their places and their first and last tokens."""
    names = list(kept.about[GROUP])
    if not kept.about["equal"] or not stack.maps[0].whole:
        return [names[group] for group in groups]
    texts, found = stack.keys.texts, []
    for group, where in zip(groups, _bounds(kept, groups), strict=True):
        if group == len(names) - 1 or where is None:
            found.append(names[group])
        elif where[1] - where[0] == 1:
            found.append(f"{where[0]}: {texts[where[0]]}")
        else:
            found.append(f"{where[0]}–{where[1] - 1}: {texts[where[0]]} … {texts[where[1] - 1]}")
    return found
