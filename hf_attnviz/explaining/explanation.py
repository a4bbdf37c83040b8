"""Several explanations of one number, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from hf_attnviz.axes import KEY, STATISTIC
from hf_attnviz.errors import AttnvizError, NotKeptError, UnknownNameError, listed
from hf_attnviz.explaining.given import with_gradients
from hf_attnviz.explaining.methods import METHODS, Method
from hf_attnviz.explaining.scores import Scores
from hf_attnviz.explaining.subject import Settings, Subject
from hf_attnviz.explaining.target import TargetLike
from hf_attnviz.functional.checks import upcast
from hf_attnviz.language import Text, told
from hf_attnviz.result import Axis, Result

_DISAGREE: Final = Text(
    "Methods disagree, and each has its own unit: compare orders within a row, not numbers between rows. None is the "
    "truth.",
    "各方法彼此不一致，单位也各不相同：请比较同一行内的次序，不要跨行比较数值。没有哪一种就是真相。",
)


@with_gradients
def explain(
    model: Any,
    inputs: str | Mapping[str, Any],
    *,
    target: TargetLike = None,
    processor: Any = None,
    methods: Sequence[str] | None = None,
    stack: str | None = None,
    settings: Settings | None = None,
) -> Result:
    """Explain one scalar of a model's outputs by several methods in one call: ``[statistic, key]``.

    ``statistic`` is the method, ``key`` a position of the input: a token (the source's, in an encoder-decoder), or a
    patch of a picture. The model stays as it was, its parameters' gradients and the random numbers too.

    Args:
        model: a model in evaluation mode, a pipeline, or what :func:`hf_attnviz.load_model` gives.
        inputs: a text, or the model's inputs for one example: a dict of tensors.
        target: the scalar: None for what the model predicts; a class or token id, a token; ``(position, id)``; or a
            function from the outputs to one number. Logits are explained, not probabilities.
        processor: the tokenizer or processor; default: the one that ``model`` brings.
        methods: names from :data:`hf_attnviz.explaining.methods.METHODS`; default: all that fit this model.
        stack: the stack whose attention is read, where there are several.
        settings: how thorough to be (``av.Settings(steps=50, baseline="zero")``).

    Raises:
        ShapeError: a target that is not a scalar.
        UnknownNameError: a method that is not known; the message lists them.
        NotKeptError, MissingPackageError: a method was named that does not fit, or needs a package.
    """
    chosen = _chosen(methods)
    subject = Subject(model, inputs, target=target, processor=processor, stack=stack, settings=settings)
    found: dict[str, Scores] = {}
    left_out: dict[str, AttnvizError] = {}
    for method in chosen:  # what takes long among them announces itself
        try:
            found[method.name] = method.function(subject)
        except AttnvizError as problem:
            if methods is not None or (stack is not None and isinstance(problem, UnknownNameError)):
                raise
            left_out[method.name] = problem
    if not found:
        reasons = {str(problem): problem for problem in left_out.values()}
        if len(reasons) == 1:
            raise next(iter(reasons.values()))
        each = [told(problem) for problem in reasons.values()]
        raise NotKeptError(
            Text(
                f"no method fits this model: {'; '.join(why.en for why in each)}",
                f"没有方法适用于此模型：{'；'.join(why.zh for why in each)}",
            )
        )
    return _result(subject, found, left_out)


def _chosen(methods: Sequence[str] | None) -> list[Method]:
    if methods is None:
        return list(METHODS.values())
    names = [methods] if isinstance(methods, str) else list(dict.fromkeys(methods))
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise UnknownNameError(
            Text(
                f"unknown method {listed(unknown)}; known: {listed(METHODS)}",
                f"未知方法 {listed(unknown, '无')}；可用：{listed(METHODS)}",
            )
        )
    return [METHODS[name] for name in names]


def _result(subject: Subject, found: Mapping[str, Scores], left_out: Mapping[str, AttnvizError]) -> Result:
    values = torch.stack([upcast(scores.values.cpu()) for scores in found.values()])
    parameters: dict[str, Any] = {"target": subject.target.name, "score": subject.score}
    notes = [subject.told, _DISAGREE]
    if any(name in found for name in _OF_ATTENTION):
        parameters |= {"stack": subject.stack.name, "captured_score": subject.captured_score}
        notes.append(_captured(subject))
    for name, scores in found.items():
        parameters |= {f"{name}.{key}": value for key, value in scores.parameters.items()}
        notes += scores.notes
    for name, why in left_out.items():
        notes.append(Text(f"Left out: {METHODS[name].text.en} ({why}).", f"略去：{METHODS[name].text.zh}（{why}）。"))
    axes = Axis(STATISTIC, tuple(found)), Axis(KEY, subject.labels.texts)
    source = "; ".join(dict.fromkeys(METHODS[name].source for name in found))
    return Result(values, axes, "explanations of one number", parameters, source, "each method's own", tuple(notes))


_OF_ATTENTION: Final = ("attention", "rollout", "attention_gradient", "relevance")


def _captured(subject: Subject) -> Text:
    rows, off = subject.rows.tolist(), abs(subject.captured_score - subject.score)
    few = ", ".join(map(str, rows)) if len(rows) <= 5 else f"{len(rows)} of {len(subject.stack.queries)}"
    return Text(
        f"Attention is read at row {few} of stack {subject.stack.name}, where the last layer has a gradient. "
        f"It was captured with gradients, which moved the number by {off:.1g} (rounding).",
        f"注意力读自栈 {subject.stack.name} 的第 {few} 行，即最后一层权重具有梯度之处。"
        f"捕获时带有梯度，使该数改变了 {off:.1g}（舍入误差）。",
    )
