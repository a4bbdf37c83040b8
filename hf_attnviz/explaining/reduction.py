"""How little of a text a model needs to predict the same: the least important words are taken away one by one.

Source: Feng et al., "Pathologies of Neural Models Make Interpretations Difficult" (2018), section 3: the importance of
a word is the size of its vector's product with the gradient, a first-order estimate of the confidence lost without it;
the least important word goes as long as the prediction stays, with a beam search for the shortest input.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from hf_attnviz import progress
from hf_attnviz.axes import STATISTIC, STEP
from hf_attnviz.errors import ArgumentError
from hf_attnviz.explaining.given import with_gradients
from hf_attnviz.explaining.subject import Subject
from hf_attnviz.explaining.target import TargetLike, logits_of
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result

_RUNNING: Final = Text("taking words away", "正在逐词移除")
_PATHOLOGY: Final = Text(
    "What is left often means nothing to a reader and yet the model is as sure as before: importance by gradients says "
    "what this model needs, not what a person would.",
    "剩下的内容对读者往往毫无意义，而模型依然同样确信：梯度给出的重要性说明的是模型需要什么，而不是人需要什么。",
)


@dataclass(frozen=True, eq=False)
class _Reduced:
    """A text that is left: its positions, the probability of the prediction, each word's importance, what was taken."""

    kept: tuple[int, ...]
    probability: float
    importance: Mapping[int, float]
    before: "_Reduced | None" = None

    def steps(self) -> Iterator["_Reduced"]:
        """From the whole text to this one."""
        if self.before is not None:
            yield from self.before.steps()
        yield self


@with_gradients
def input_reduction(
    model: Any,
    inputs: str | Mapping[str, Any],
    *,
    target: TargetLike = None,
    processor: Any = None,
    beam: int = 5,
) -> Result:
    """Take away the least important word while the prediction stays: ``[statistic, step]``.

    Statistics: ``probability`` of the prediction, and tokens ``left``; the label of a step is the text that is left.
    Step 0 is the whole text. ``parameters["ids"]`` holds the token ids of each step. Special tokens stay, and so does
    the token at whose place a language model's prediction is read.

    Args:
        model, inputs, processor: as in :func:`hf_attnviz.explain`; inputs must be tokens.
        target: the prediction to keep: None, or what the model does predict, by id or name.
        beam: how many reduced texts to follow at a time, and how many words to try in each.

    Raises:
        ArgumentError: a picture, a target that is a function, or one that the model does not predict.
    """
    subject = Subject(model, inputs, target=target, processor=processor)
    words = _words(subject)
    whole = _tried(subject, tuple(range(subject.positions)), words)
    if beam < 1:
        raise ArgumentError(Text(f"beam={beam}: expected 1 or more", f"beam={beam}：应为 1 或更大"))
    if whole is None:
        raise ArgumentError(
            Text(
                f"the model does not predict {subject.target.name.removeprefix('logit of ')}, so there is no "
                "prediction that could stay; leave target=None",
                f"模型预测的不是{subject.target.subject.zh}，因此没有可以保持的预测；请用 target=None",
            )
        )
    last, front = whole, [whole]
    for _ in progress.shown(range(len(words)), len(words), _RUNNING):
        front = _shorter(subject, front, words, beam)
        if not front:
            break
        last = front[0]
    return _result(subject, list(last.steps()), beam)


def _words(subject: Subject) -> dict[int, tuple[int, ...]]:
    """The positions of each word that may be taken away."""
    if subject.name != "input_ids" or subject.target.index is None:
        raise ArgumentError(
            Text(
                "words are taken away while a prediction stays: give input_ids, and a class or a token as target",
                "要在保持预测的同时逐个去掉词：请给出 input_ids，并以类别或词元为 target",
            )
        )
    read = None if subject.two_sided else subject.target.position
    words: dict[int, list[int]] = {}
    for position, word in enumerate(subject.labels.words):
        if word is not None:
            words.setdefault(word, []).append(position)
    found = {word: tuple(places) for word, places in words.items() if read not in places}
    if not found:
        raise ArgumentError(
            Text("there is no word in this text that could be taken away", "这段文本中没有可以去掉的词")
        )
    return found


def _shorter(
    subject: Subject, front: Sequence[_Reduced], words: Mapping[int, tuple[int, ...]], beam: int
) -> list[_Reduced]:
    """The texts one word shorter that keep the prediction, the surest first."""
    found: dict[tuple[int, ...], _Reduced] = {}
    for one in front:
        least = sorted(one.importance, key=lambda word: one.importance[word])[:beam]
        for word in least:
            kept = tuple(position for position in one.kept if position not in words[word])
            if kept and kept not in found:
                new = _tried(subject, kept, words, one)
                if new is not None:
                    found[kept] = new
    return sorted(found.values(), key=lambda one: -one.probability)[:beam]


def _tried(
    subject: Subject, kept: tuple[int, ...], words: Mapping[int, tuple[int, ...]], before: _Reduced | None = None
) -> _Reduced | None:
    """A text that is left, or None where the prediction does not stay."""
    places = torch.tensor(kept)
    inputs = subject.without(places)
    target, position = subject.target, subject.target.position
    if position is not None and not subject.two_sided:
        position = kept.index(position)
    outputs, vectors = subject.led(inputs)
    logits = logits_of(outputs)
    assert logits is not None
    at = logits[0] if position is None else logits[0, position]
    if int(at.argmax()) != target.index:
        return None
    gradient = subject.gradient(outputs, vectors, position)
    products = (gradient * vectors).sum(-1)[0].detach()
    place = {position: n for n, position in enumerate(kept)}
    importance = {
        word: abs(sum(float(products[place[position]]) for position in positions))
        for word, positions in words.items()
        if all(position in place for position in positions)
    }
    return _Reduced(kept, float(target.probability(outputs, position)[0].detach()), importance, before)


def _result(subject: Subject, steps: Sequence[_Reduced], beam: int) -> Result:
    ids, texts = subject.inputs["input_ids"][0].tolist(), subject.labels.texts
    values = torch.tensor([[one.probability for one in steps], [float(len(one.kept)) for one in steps]])
    labels = tuple(" ".join(texts[position] for position in one.kept) for one in steps)
    start, end = steps[0], steps[-1]
    kept = Text(
        f"The prediction kept is {subject.target.subject.en}; {len(end.kept)} of {len(start.kept)} tokens are enough "
        f"for it (probability {start.probability:.3g} before, {end.probability:.3g} after).",
        f"保持不变的预测：{subject.target.subject.zh}；{len(start.kept)} 个词元中 {len(end.kept)} 个就足够"
        f"（概率由 {start.probability:.3g} 变为 {end.probability:.3g}）。",
    )
    return Result(
        values,
        (Axis(STATISTIC, ("probability", "left")), Axis(STEP, labels)),
        "input reduction",
        {
            "target": subject.target.name,
            "beam": beam,
            "ids": tuple(tuple(ids[position] for position in one.kept) for one in steps),
        },
        "Feng et al. 2018",
        "share (probability), tokens (left)",
        (kept, _PATHOLOGY),
    )
