"""Which heads have which of the field's roles, labelled."""

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from itertools import compress

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.beside import interval_note, scored
from hf_attnviz.analysis.caveats import left_out, undefined
from hf_attnviz.analysis.pooling import Pooled, listed_traces, pooled
from hf_attnviz.analysis.roles_kept import FEWER, Scored
from hf_attnviz.analysis.roles_kept import scored as scored_rows
from hf_attnviz.axes import STATISTIC
from hf_attnviz.errors import NotKeptError
from hf_attnviz.functional.roles import known_thresholds
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.role_names import OF_ROLES
from hf_attnviz.trace import Trace

_MOST_NAMED = 8
_CAVEAT = Text(
    "A role describes weights on these texts, by one definition each; it is no proof of what the head does for the "
    "output: av.ablate tests that. One head may score 0.80 by one definition of induction and 0.99 by another.",
    "角色只是按某一种定义描述这些文本上的权重，并不能证明该头对输出的作用：av.ablate 可以检验。"
    "同一个头按一种归纳定义可得 0.80，按另一种可得 0.99。",
)
_LACKING = {
    causal: Text(
        f"No row has what the role is about (a repeated token, a delimiter, a neighbour{en}).",
        f"没有任何一行具备该角色所涉的对象（重复词元、分隔符、相邻词元{zh}）。",
    )
    for causal, en, zh in ((False, "", ""), (True, "; a causal stack sees no next token", "；因果栈看不到后一词元"))
}
_NO_IDS = Text(
    "Token ids are not known for some keys; such a key counts as unlike any other.",
    "有些键的词元 id 未知；这样的键视为与任何其他键都不同。",
)


def head_roles(
    traces: Trace | Sequence[Trace],
    *,
    stack: str | None = None,
    delimiters: Collection[int | str] | None = None,
    thresholds: Mapping[str, float] | None = None,
    period: int | None = None,
) -> Result:
    """How far each head has each role, from 0 to 1: ``[statistic, layer, head]``, a role a statistic.

    Roles: ``positional``, ``previous_token``, ``next_token``, ``delimiter``, ``first_token_sink``,
    ``duplicate_token``, ``induction``, ``induction_stripe``, ``induction_mul``, ``broad``; defined in
    :func:`hf_attnviz.functional.head_roles`. Beside each score stand ``baseline`` (uniform attention on the same
    cells), ``low`` and ``high`` (bootstrap over traces, from five traces on) and ``verdict`` (1: has the role).

    Args:
        delimiters: ids or texts of the keys that count as delimiters; default: special tokens and punctuation, save a
            special token that stands first (``[CLS]``, ``<s>``: that is the role ``first_token_sink``).
        thresholds: by role, in place of the papers' (see :func:`hf_attnviz.functional.role_verdicts`).
        period: for ``induction_stripe``, the length of what is repeated; default: the nearest copy.
        stack: default: the only one.

    Traces captured with ``keep="scores"`` and without weights tell ``previous_token``, ``next_token``,
    ``duplicate_token`` and ``induction``.

    Raises:
        NotKeptError: the traces keep neither weights nor scores, or scores alone where ``delimiters`` or ``period`` are
            given.
    """
    traces, limits = listed_traces(traces), known_thresholds(thresholds)
    kept = scored_rows([trace.stack(stack) for trace in traces])
    if kept is not None:
        if delimiters is not None or period is not None:
            raise NotKeptError(
                Text(
                    'delimiters and periods ask for the weights themselves; capture with keep="maps"',
                    'delimiters 与 periods 需要权重本身；请以 keep="maps" 捕获',
                )
            )
        return _from_scores(kept, limits)
    data = pooled(traces, stack)
    keys = [one.keys for one in data.stacks]
    marked = [_delimiters(labels, delimiters) for labels in keys]
    told = {
        **data.masks,
        "tokens": _filled([_ids(labels) for labels in keys], data, 0),
        "delimiters": _filled(marked, data, False),
        "period": period,
    }
    found = functional.roles_by_example(data.attention, **told)
    uniform = functional.roles_by_example(functional.uniform_like(data.attention, valid=data.valid), **told)
    beside = scored(found, uniform)
    scores, baseline = (dict(zip(found, beside[name], strict=True)) for name in ("values", "baseline"))
    verdicts = functional.role_verdicts(scores, baseline, thresholds=limits)
    texts = {text for labels, marks in zip(keys, marked, strict=True) for text in compress(labels.texts, marks)}
    notes = [_holders(data.head_names, verdicts, limits), _counted(texts), interval_note(len(keys)), _CAVEAT]
    notes[1:1] = undefined(found, _LACKING[data.causal], words=OF_ROLES)
    notes += left_out(data)
    if any(number is None for labels in keys for number in labels.ids):
        notes.append(_NO_IDS)
    return Result(
        axes=(Axis(STATISTIC, tuple(found)), data.layer_axis, data.head_axis),
        method="head roles",
        parameters={**data.what, "delimiters": tuple(sorted(texts)), "thresholds": limits, "period": period},
        source="Voita et al. 2019; Clark et al. 2019; Gu et al. 2025; Wang et al. 2022; Olsson et al. 2022",
        unit="share",
        notes=tuple(notes),
        verdict=torch.stack(list(verdicts.values())),
        **beside,
    )


def _from_scores(data: Scored, limits: Mapping[str, float]) -> Result:
    found, uniform = data.found(), data.uniform()
    beside = scored(found, uniform)
    scores, baseline = (dict(zip(found, beside[name], strict=True)) for name in ("values", "baseline"))
    verdicts = functional.role_verdicts(scores, baseline, thresholds=limits)
    undefined_ones = undefined(found, _LACKING[data.causal], words=OF_ROLES)
    unknown = any(number is None for one in data.stacks for number in one.keys.ids)
    return Result(
        axes=(Axis(STATISTIC, tuple(found)), data.layer_axis, data.head_axis),
        method="head roles",
        parameters={**data.what, "thresholds": limits},
        source="Clark et al. 2019; Wang et al. 2022; Olsson et al. 2022",
        unit="share",
        notes=(
            _holders(data.head_names, verdicts, limits),
            *undefined_ones,
            FEWER,
            interval_note(len(data.stacks)),
            _CAVEAT,
            *([_NO_IDS] if unknown else []),
        ),
        verdict=torch.stack(list(verdicts.values())),
        **beside,
    )


def _ids(labels: Labels) -> list[int]:
    """The ids; a key without one gets a number that no other key has."""
    return [-1 - place if number is None else number for place, number in enumerate(labels.ids)]


def _delimiters(labels: Labels, chosen: Collection[int | str] | None) -> list[bool]:
    if chosen is None:
        return [
            (special and place > 0) or all(unicodedata.category(c)[0] == "P" for c in text or "x")
            for place, (text, special) in enumerate(zip(labels.texts, labels.special, strict=True))
        ]
    return [number in chosen or text in chosen for text, number in zip(labels.texts, labels.ids, strict=True)]


def _filled(rows: Sequence[Sequence[int]], data: Pooled, filling: int) -> torch.Tensor:
    """``[batch, key]``, filled up as the maps are."""
    longest = data.attention.shape[-1]
    return torch.tensor([[*row, *[filling] * (longest - len(row))] for row in rows])


def _holders(names: Sequence[str], verdicts: Mapping[str, torch.Tensor], limits: Mapping[str, float]) -> Text:
    parts = []
    for name, verdict in verdicts.items():
        heads = [names[n] for n in (verdict.flatten() == 1).nonzero().flatten().tolist()]
        more = f" +{len(heads) - _MOST_NAMED}" if len(heads) > _MOST_NAMED else ""
        if heads:
            named, told = OF_ROLES[name][0], f" ≥ {limits[name]:g}: {' '.join(heads[:_MOST_NAMED])}{more}"
            parts.append(Text(named.en + told, named.zh + told))
    return Text(
        "Heads that reach the threshold of a role and are above uniform attention: "
        f"{'; '.join(part.en for part in parts) or 'none'}.",
        f"达到角色阈值且高于均匀注意力的头：{'；'.join(part.zh for part in parts) or '无'}。",
    )


def _counted(texts: Collection[str]) -> Text:
    shown = " ".join(sorted(texts)[:20]) or "–"
    return Text(f"Counted as delimiters: {shown}", f"计为分隔符的词元：{shown}")
