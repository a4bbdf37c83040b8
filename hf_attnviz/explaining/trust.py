"""Whether to believe an explanation: rankings of the evidence for one prediction, each put to a test with a rule.

For one prediction the tokens of the text are ranked by several methods, and the model runs again without the top of
each ranking, and with nothing but it. What that does to the prediction is held against 100 random rankings. The rule
stands in :mod:`hf_attnviz.explaining.verdict`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch

from hf_attnviz import functional
from hf_attnviz.axes import KEY, METHOD, OTHER_METHOD, REMOVAL, SHARE, STATISTIC
from hf_attnviz.capturing import scope
from hf_attnviz.errors import ArgumentError, AttnvizError
from hf_attnviz.explaining.candidates import Candidates, candidates_of, special_ids
from hf_attnviz.explaining.heads import heads_effect
from hf_attnviz.explaining.judged import Trust
from hf_attnviz.explaining.prediction import Prediction, predicted
from hf_attnviz.explaining.rankings import attention_of, rankings_of, read_off
from hf_attnviz.explaining.removal import COUNT, WAYS, replacement_of
from hf_attnviz.explaining.sentences import sentence
from hf_attnviz.explaining.stability import OF_TRACE, PERTURBATIONS, perturbed
from hf_attnviz.explaining.target import TargetLike
from hf_attnviz.explaining.verdict import MEASURES, Measured, TrustRule, beats, measured, percentiles, verdicts
from hf_attnviz.language import Text, told
from hf_attnviz.result import Axis, Result

_ASIDE: Final = {"sink": "汇点", "heads": "关闭头"}
_ERASER: Final = "DeYoung et al. 2020 (ERASER), section 4"


@scope.alone()
def trust(
    model: Any,
    inputs: str | Mapping[str, Any],
    *,
    target: TargetLike = None,
    processor: Any = None,
    methods: Sequence[str] | None = None,
    rankings: Mapping[str, Any] | None = None,
    candidates: Sequence[int] | None = None,
    replacement: int | str | None = None,
    rule: TrustRule | None = None,
    seed: int = 0,
) -> Trust:
    """Put rankings of the evidence for one prediction to the test: *trust*, *do not*, or *undecided*.

    A ranking earns *trust* if and only if both its comprehensiveness and its sufficiency beat the 95th percentile of
    random rankings under deletion and under replacement; *do not* if it beats none of the four; else *undecided*.
    The model runs some hundred to two thousand times on texts as long as this one, or shorter; what takes more than
    ten seconds says so first.

    Args:
        model: a model in evaluation mode, a pipeline, or what :func:`hf_attnviz.load_model` gives.
        inputs: a text, or the model's inputs for one: a dict of tensors, batch of one. An encoder-decoder's decoder
            starts from ``decoder_input_ids``, else from its start token.
        target: what is explained: None (what the model predicts), a class or token by id or name, ``(position, id)``,
            or a function from the outputs to a scalar tensor. Positions count without padding.
        processor: the tokenizer; default: the one that ``model`` brings.
        methods: which methods rank the tokens: names of :data:`hf_attnviz.explaining.methods.METHODS`, and ``"norms"``;
            default: attention, rollout, norms, relevance and integrated gradients (these need captum).
        rankings: more rankings by name: a score for each token of the text, the evidence highest.
        candidates: the positions that are ranked and removed; default: all but special tokens and the one at which
            the prediction is read.
        replacement: the token that stands for a removed one; default: the tokenizer's mask, else its unknown token,
            else padding, else the end.
        rule: shares, number of random rankings, percentile.
        seed: of the random rankings; random numbers of torch's own are untouched.

    Raises:
        ArgumentError: a model in training mode, no text or several, no logits and no function, no replacement.
        ShapeError: a target that is no scalar, a ranking of another length.
        UnknownNameError: a method or a class that is not there.
    """
    chosen = TrustRule() if rule is None else rule
    prediction = read_off(predicted(model, inputs, target=target, processor=processor))
    _refuse_fixed(prediction)
    ranked = candidates_of(prediction, candidates)
    instead, told = replacement_of(prediction, replacement)
    scores, missing = rankings_of(prediction, methods, rankings, seed=seed)
    found = measured(prediction, ranked.positions, scores, chosen, replacement=instead, seed=seed, missing=missing)
    return _judged(prediction, ranked, scores, found, chosen, seed, told)


def _refuse_fixed(prediction: Prediction) -> None:
    """Raise where a function of the user's own reads a position that moves when tokens before it go."""
    row, last = prediction.row, len(prediction.ids) - 1
    if prediction.target.function is not None and row not in (None, 0, last):
        raise ArgumentError(
            Text(
                f"{prediction.target.name} is read at position {row} of the text, which moves when tokens before it "
                f"are deleted, and a function cannot know. {COUNT.en}",
                f"{prediction.target.told.zh}在文本的位置 {row} 处读出，删去它之前的词元时该位置会移动，"
                f"而函数无从得知。{COUNT.zh}",
            )
        )


def _judged(
    prediction: Prediction,
    ranked: Candidates,
    scores: Mapping[str, torch.Tensor],
    found: Measured,
    rule: TrustRule,
    seed: int,
    replaced: Text,
) -> Trust:
    names, places = tuple(scores), list(ranked.positions)
    labels, results = prediction.labels(), _results(tuple(scores), found, rule, seed)
    given = torch.stack(list(scores.values()))
    shown = torch.full_like(given, torch.nan)
    shown[:, places] = given[:, places]
    agreement = functional.kendall_tau(given[:, places]) if places else given.new_full((len(names),) * 2, torch.nan)
    decided = verdicts(names, found, rule, len(places))
    spoken = partial(sentence, numbers=results, target=prediction.target, tokens=len(places))
    asides, notes = _asides(prediction, places, names, seed)
    return Trust(
        target=prediction.target,
        probability=prediction.probability,
        tokens=labels,
        candidates=ranked.positions,
        verdicts={name: verdict for name, (verdict, _) in decided.items()},
        reasons={name: reason for name, (_, reason) in decided.items() if reason is not None},
        sentences={name: spoken(name, *said) for name, said in decided.items()},
        scores=Result(shown, (Axis(METHOD, names), Axis(KEY, labels.texts)), "scores of the tokens"),
        agreement=Result(
            agreement,
            (Axis(METHOD, names), Axis(OTHER_METHOD, names)),
            "agreement of rankings",
            {"tokens": len(places)},
            "Kendall 1945",
            "τ-b",
        ),
        **results,
        sink=asides["sink"],
        heads=asides["heads"],
        stability=asides["stability"],
        shift=asides["shift"],
        rule=rule,
        notes=(*ranked.notes, replaced, *_about_target(prediction), *_about_length(len(places), rule), *notes),
        model=type(prediction.model).__name__,
    )


def _results(names: tuple[str, ...], found: Measured, rule: TrustRule, seed: int) -> dict[str, Result]:
    """The numbers of the four tests, labelled."""
    measures, ways, methods = Axis(STATISTIC, MEASURES), Axis(REMOVAL, WAYS), Axis(METHOD, names)
    shares = Axis(SHARE, tuple(f"{share:g}" for share in rule.bins))
    drawn = Axis(METHOD, tuple(f"random {n}" for n in range(rule.draws)))
    about: dict[str, Any] = {"bins": rule.bins, "draws": rule.draws, "percentile": rule.percentile, "seed": seed}

    def result(values: torch.Tensor, method: str, *axes: Axis, unit: str = "probability") -> Result:
        return Result(values, (measures, ways, *axes), method, about, _ERASER, unit)

    return {
        "curves": result(found.curves, "removal curves", methods, shares),
        "random": result(found.random, "removal curves of chance", drawn, shares),
        "aopc": result(functional.aopc(found.curves), "area over the removal curves", methods),
        "percentile": result(percentiles(found), "share of random rankings beaten", methods, unit="share"),
        "beats": result(beats(found, rule), "tests passed", methods, unit=""),
    }


def _asides(
    prediction: Prediction, places: list[int], names: Sequence[str], seed: int
) -> tuple[dict[str, Result | None], list[Text]]:
    """What stands beside the verdicts: the sink, the heads, the stability; None with a note where it cannot be had."""
    found: dict[str, Result | None] = dict.fromkeys(("sink", "heads", "stability", "shift"))
    notes: list[Text] = []
    if not places:
        return found, notes
    for name, measure in (("sink", _sink), ("heads", heads_effect)):
        try:
            found[name] = measure(prediction, places, seed)
        except AttnvizError as problem:
            why = told(problem)
            notes.append(Text(f"Not measured ({name}): {why.en}", f"未测量（{_ASIDE[name]}）：{why.zh}"))
    of_trace = [name for name in OF_TRACE if name in names]
    tau, moved = perturbed(prediction, places, of_trace)
    ways = Axis(STATISTIC, tuple(PERTURBATIONS))
    found["stability"] = Result(tau, (ways, Axis(METHOD, tuple(of_trace))), "stability of rankings", unit="τ-b")
    found["shift"] = Result(moved, (ways,), "shift of the prediction", unit="probability")
    return found, notes


def _sink(prediction: Prediction, places: Sequence[int], seed: int) -> Result:
    """How much of raw attention's row lies on the first token and on special ones."""
    row, special = attention_of(prediction), special_ids(prediction)
    marks = torch.tensor([int(token) in special for token in prediction.ids.tolist()])
    values = torch.stack([row[0], row[marks].sum()]).double()
    return Result(values, (Axis(STATISTIC, ("first_token", "special_tokens")),), "sink of the row", unit="share")


def _about_target(prediction: Prediction) -> list[Text]:
    if prediction.target.function is None:
        return []
    return [
        Text(
            "The target is a function of your own: by deletion texts become shorter, so it must not count on a "
            "position in the text, unless from the end.",
            "目标是用户自定义的函数：删除会使文本变短，因此它不应依赖文本中的固定位置（从末尾数起除外）。",
        )
    ]


def _about_length(tokens: int, rule: TrustRule) -> list[Text]:
    if not tokens or tokens * (1 - rule.percentile / 100) >= 1:
        return []
    return [
        Text(
            f"The text is short: one random ranking in {tokens} has the same token first. Where one token carries the "
            "evidence, no ranking stands out from these; “undecided” may then mean only that.",
            f"文本较短：每 {tokens} 个随机排序就有一个首位词元相同。若证据只在一个词元上，"
            "任何排序都难以胜出；此时“无法判定”可能仅因如此。",
        )
    ]
