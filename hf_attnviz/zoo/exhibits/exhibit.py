"""What an exhibit is: a small model whose way to its answer is known, and inputs that come with the truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_attnviz.language import Text

TRUST, DO_NOT, UNDECIDED = "trust", "do not", "undecided"


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts of one length, with what is asked of the model.

    Attributes:
        ids: token ids ``[example, position]``.
        rows: the positions at which answers are read ``[row]``; the same in every example.
        answer: indices into the logits ``[example, row]``.
        evidence: the positions that make the answer ``[example, row, evidence]``; first the source, the word that the
            answer names.
        known: whether all of the evidence is in the text, Bool ``[example, row]``.
    """

    ids: Tensor
    rows: Tensor
    answer: Tensor
    evidence: Tensor
    known: Tensor

    @property
    def source(self) -> Tensor:
        """Where the word stands that the answer names ``[example, row]``."""
        return self.evidence[..., 0]


@dataclass(frozen=True, eq=False)
class Case:
    """One fresh input and its truth.

    Attributes:
        text: the words; the exhibit's tokenizer makes ``inputs`` of it.
        inputs: what the model reads, batch of one.
        answer: the right answer, a word.
        target: its class, or its token id.
        row: the position at which the model gives it.
        evidence: the positions that make the answer, first the source, the word that the answer names. The answer
            depends on no other word.
    """

    text: str
    inputs: Mapping[str, Tensor] = field(repr=False)
    answer: str
    target: int
    row: int
    evidence: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """How an exhibit is made.

    Attributes:
        title: what it shows, in a sentence.
        pieces: makes its tokenizer.
        build: makes the untrained model, given an attention implementation.
        draw: a batch, given a generator, the number of examples, the number of words, and whether words get lost
            (``<unk>`` in their place, or left out), as they do when evidence is removed.
        run: the outputs for a batch in training and a term that is added to the loss, given the model, the batch, a
            generator, and whether texts have reached their full length.
        holds: for each figure that makes the exhibit what it is, the least and the most that it may be.
        verdicts: what may rightly be said of raw attention as a ranking of the evidence.
        first, words: the number of words at the start of training, and in the end.
        steps: how long it is trained at most.
        spare: how many words shorter a fresh text may be.
    """

    title: Text
    pieces: Callable[[], Any]
    build: Callable[[str | None], Any]
    draw: Callable[[torch.Generator, int, int, bool], Batch]
    run: Callable[[Any, Batch, torch.Generator, bool], tuple[Any, Tensor]]
    holds: Mapping[str, tuple[float, float]]
    verdicts: tuple[str, ...]
    words: int
    first: int
    steps: int
    spare: int = 4


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A trained model whose way to its answer is known. ``av.capture``, ``av.trust`` and the others take it as it is.

    Attributes:
        name, seed: what it is, and what it was trained from; the same two give the same weights on one machine.
        model: a model of transformers, in evaluation mode, under its default attention.
        processor: its tokenizer.
        figures: its truth, measured on fresh inputs; see :func:`hf_attnviz.zoo.exhibits.figures.measured`.
        steps: how long it was trained.
        recipe: how it was made.
    """

    name: str
    seed: int
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    figures: Mapping[str, float] = field(repr=False)
    steps: int
    recipe: Recipe = field(repr=False)

    @property
    def title(self) -> Text:
        """What it shows."""
        return self.recipe.title

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What may rightly be said of raw attention as a ranking of the evidence: ``"trust"``; or ``"do not"`` and
        ``"undecided"``."""
        return self.recipe.verdicts

    def fresh(self, count: int, *, seed: int = 0) -> tuple[Case, ...]:
        """Inputs with their truth, the same for the same seed, none of them among those that trained."""
        generator = torch.Generator().manual_seed(1_000_003 + seed)
        return tuple(self._case(generator) for _ in range(count))

    def _case(self, generator: torch.Generator) -> Case:
        fewer = int(torch.randint(0, self.recipe.spare + 1, (1,), generator=generator))
        batch = self.recipe.draw(generator, 1, self.recipe.words - fewer, False)
        target, classifies = int(batch.answer[0, 0]), hasattr(self.model, "classifier")
        text = self.processor.decode(strip(batch.ids[0], self.processor))
        return Case(
            text=text,
            inputs=dict(self.processor(text, return_tensors="pt")),
            answer=self.model.config.id2label[target] if classifies else self.processor.decode([target]),
            target=target,
            row=int(batch.rows[0]),
            evidence=tuple(batch.evidence[0, 0].tolist()),
        )


def strip(ids: Tensor, pieces: Any) -> list[int]:
    """The ids without those that the tokenizer puts around every text."""
    marks: list[int] = pieces("")["input_ids"]
    found: list[int] = ids.tolist()
    return found[1 : len(found) - (len(marks) - 1)]
