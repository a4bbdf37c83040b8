"""Which token, put in the place of another, would change a prediction most: by its gradient, then by trying.

Source: Ebrahimi et al., "HotFlip: White-Box Adversarial Examples for Text Classification" (2018), section 3: the change
that token b in the place of token a makes is estimated to first order by (e_b − e_a)·∇. The gradient chooses among all
tokens at all places; the best candidates are then run, and both numbers reported.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from hf_attnviz import progress
from hf_attnviz.axes import BATCH, STATISTIC
from hf_attnviz.capturing import scope
from hf_attnviz.capturing.text import tokenizer_of
from hf_attnviz.errors import ArgumentError
from hf_attnviz.explaining.given import copies, with_gradients
from hf_attnviz.explaining.subject import Subject
from hf_attnviz.explaining.target import TargetLike
from hf_attnviz.labels import Labels, label_tokens
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result

_RUNNING: Final = Text("replacing tokens", "正在替换词元")
_ESTIMATES: Final = Text(
    "The estimate is a tangent, drawn far beyond the point where it touches: it chooses what to try, and only the "
    "measured change counts.",
    "估计值只是切线，而替换远在切点之外：它只用来挑选候选，真正算数的是实测的变化。",
)
_PIECES: Final = Text(
    "Pieces of words are replaced like words; special tokens are neither replaced nor put in.",
    "词的片段与整词一样被替换；特殊词元既不被替换，也不作替换之用。",
)


@dataclass(frozen=True, eq=False)
class Flip:
    """One token in the place of another, and by how much that changes the target."""

    position: int
    token: int
    estimate: float
    measured: float
    probability: float


@with_gradients
def hotflip(
    model: Any,
    inputs: str | Mapping[str, Any],
    *,
    target: TargetLike = None,
    processor: Any = None,
    flips: int = 1,
    candidates: int = 10,
    raises: bool = False,
) -> Result:
    """The replacements that lower one scalar most: ``[statistic, batch]``, a change tried in each place of ``batch``.

    Statistics: ``estimate`` (first order), ``measured`` (the model ran again), ``probability`` (after the change; not
    there for a target that is a function). For each flip the candidates stand in the order of what was measured; the
    first is kept, and the next flip, at another place, starts from there. ``parameters["ids"]`` holds the last text.

    Args:
        model, inputs, target, processor: as in :func:`hf_attnviz.explain`; inputs must be tokens. Without a tokenizer
            no token is known to be special.
        flips: how many tokens to replace, one after the other.
        candidates: how many of the best estimates to run for each flip.
        raises: look for what raises the scalar instead.

    Raises:
        ArgumentError: a picture, more flips than tokens that may be replaced, or no candidate.
    """
    subject = Subject(model, inputs, target=target, processor=processor)
    ids, free, allowed = _replaceable(subject, flips, candidates)
    tried, labels = list[Flip](), list[str]()
    batches = -(-candidates // _rows(subject))
    steps = iter(progress.shown(range(flips * batches), flips * batches, _RUNNING))
    for number in range(flips):
        best = _best(subject, ids, free, allowed, candidates, raises)
        found = _measured(subject, ids, best, raises, steps)
        texts = _texts(subject, ids, found)
        labels += [f"{number + 1}: {text}" if flips > 1 else text for text in texts]
        tried += found
        ids = _with(ids, found[0])
        free = free & (torch.arange(len(free), device=free.device) != found[0].position)
    return _result(subject, tried, labels, ids, {"flips": flips, "candidates": candidates, "raises": raises})


def _replaceable(subject: Subject, flips: int, candidates: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ids ``[1, position]``, which places may be changed, and which tokens of the vocabulary may stand there."""
    if subject.name != "input_ids":
        raise ArgumentError(
            Text(
                "tokens are replaced, and this model reads a picture; give input_ids",
                "要替换的是词元，而此模型读的是图片；请给出 input_ids",
            )
        )
    ids = subject.inputs["input_ids"]
    tokenizer, size = tokenizer_of(subject.processor), _vocabulary(subject)
    special = set(getattr(tokenizer, "all_special_ids", ()))
    special |= {number for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    known = size if tokenizer is None else min(size, len(tokenizer))
    allowed = torch.tensor([token < known and token not in special for token in range(size)], device=ids.device)
    free = torch.tensor([int(token) not in special for token in ids[0]], device=ids.device)
    most = int(free.sum())
    if not 1 <= flips <= most or candidates < 1:
        raise ArgumentError(
            Text(
                f"expected 1 to {most} flips (one for each token that is not special) and 1 or more "
                f"candidates, got flips={flips}, candidates={candidates}",
                f"flips 应为 1 到 {most}（每个非特殊词元一次），candidates 应为 1 或更多，得到 flips={flips}、"
                f"candidates={candidates}",
            )
        )
    return ids, free, allowed


def _vocabulary(subject: Subject) -> int:
    size = getattr(subject.module, "num_embeddings", None)
    if not isinstance(size, int):
        raise ArgumentError(
            Text(
                f"{type(subject.module).__name__} does not say how many tokens it knows; expected an nn.Embedding",
                f"{type(subject.module).__name__} 没有说明它认识多少词元；应为 nn.Embedding",
            )
        )
    return size


def _best(
    subject: Subject, ids: Tensor, free: Tensor, allowed: Tensor, count: int, raises: bool
) -> list[tuple[int, int, float]]:
    """Place, token and estimate of the most promising changes of all tokens at all places."""
    outputs, vectors = subject.led(subject.inputs | {"input_ids": ids})
    gradient = subject.gradient(outputs, vectors)[0]
    table = subject.vectors_of(torch.arange(len(allowed), device=ids.device)[None])[0]
    change = gradient @ table.mT - (gradient * vectors[0].detach()).sum(-1, keepdim=True)
    wanted = change if raises else -change
    out = ~free[:, None] | ~allowed
    out[torch.arange(len(free)), ids[0]] = True  # a token in its own place is no change
    flat = wanted.masked_fill(out, -torch.inf).flatten()
    order = flat.topk(min(count, int((~out).sum()))).indices.tolist()
    return [(n // len(allowed), n % len(allowed), float(change.flatten()[n])) for n in order]


def _rows(subject: Subject) -> int:
    """How many texts run side by side."""
    return 1 if subject.alone else subject.settings.rows


def _measured(
    subject: Subject, ids: Tensor, best: list[tuple[int, int, float]], raises: bool, steps: Iterator[int]
) -> list[Flip]:
    """The candidates as they turn out, the one that changes most first."""
    before = float(_run(subject, ids, iter(()))[0][0])
    texts = ids.repeat(len(best), 1)
    for row, (position, token, _) in enumerate(best):
        texts[row, position] = token
    scores, probabilities = _run(subject, texts, steps)
    found = [
        Flip(position, token, estimate, float(score) - before, float(probability))
        for (position, token, estimate), score, probability in zip(best, scores, probabilities, strict=True)
    ]
    return sorted(found, key=lambda flip: -flip.measured if raises else flip.measured)


def _run(subject: Subject, texts: Tensor, steps: Iterator[int]) -> tuple[Tensor, Tensor]:
    """The scalar and the probability of each text ``[row]``; each batch of them is a step."""
    scores, probabilities = list[Tensor](), list[Tensor]()
    for rows in torch.split(texts, _rows(subject)):
        next(steps, None)
        inputs = copies(subject.inputs, len(rows)) | {"input_ids": rows}
        with torch.no_grad(), scope.alone():
            outputs = subject.model(**inputs)
            scores.append(subject.target.score(outputs))
            probabilities.append(subject.target.probability(outputs))
    return torch.cat(scores), torch.cat(probabilities)


def _with(ids: Tensor, flip: Flip) -> Tensor:
    changed = ids.clone()
    changed[0, flip.position] = flip.token
    return changed


def _texts(subject: Subject, ids: Tensor, found: list[Flip]) -> list[str]:
    before = _labels(subject, ids[0].tolist())
    after = [_labels(subject, [flip.token])[0] for flip in found]
    return [f"{before[flip.position]} → {text} ({flip.position})" for flip, text in zip(found, after, strict=True)]


def _labels(subject: Subject, ids: list[int]) -> Labels:
    return label_tokens(ids, tokenizer_of(subject.processor))


def _result(subject: Subject, tried: list[Flip], labels: list[str], ids: Tensor, options: Mapping[str, Any]) -> Result:
    names = ["estimate", "measured", *(["probability"] if subject.target.index is not None else [])]
    values = torch.tensor([[getattr(flip, name) for flip in tried] for name in names])
    start = Text(
        f"Changed is one number: {subject.target.told.en}, before {subject.score:.4g}.",
        f"所改变的是一个数：{subject.target.told.zh}，改变前为 {subject.score:.4g}。",
    )
    return Result(
        values,
        (Axis(STATISTIC, tuple(names)), Axis(BATCH, tuple(labels))),
        "token replacement (HotFlip)",
        {"target": subject.target.name, "score": subject.score, **options, "ids": tuple(ids[0].tolist())},
        "Ebrahimi et al. 2018",
        "change of the target; share (probability)",
        (start, _ESTIMATES, _PIECES),
    )
