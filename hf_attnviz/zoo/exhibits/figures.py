"""The truth of an exhibit in figures: what its answer depends on, and what its attention shows."""

from typing import Any

import torch
from torch import Tensor

from hf_attnviz.zoo.exhibits.exhibit import Batch
from hf_attnviz.zoo.exhibits.gates import gated
from hf_attnviz.zoo.words import SPECIAL, UNKNOWN


@torch.no_grad()
def measured(model: Any, batch: Batch) -> dict[str, float]:
    """Means over a batch with one answer an example; `model` must run with eager attention.

    - ``accuracy``: answers that are right;
    - ``follows_source``: answers that follow, where the source is replaced by another example's;
    - ``without_evidence``: probability of the answer without the evidence, by deletion or by ``<unk>``, the larger;
    - ``evidence_alone``: its probability where no other word is left, the smaller of both;
    - ``on_source``, ``on_source_least``: weight of the answering row on the source, the head of the whole model that
      gives most, and the head of the last layer that gives least;
    - ``source_first``: examples in which the last layer, mean over heads, weighs the source more than any other word;
    - ``moved_by_words``: largest change of the row (last layer, mean over heads) from one example's words to another's,
      the mean over examples;
    - ``one_head``, ``all_heads``: what silencing costs in nats, the one head that costs most, and all of them.
    """
    outputs = model(input_ids=batch.ids, output_attentions=True)
    attention = torch.stack(outputs.attentions)[:, :, :, batch.rows[0]]  # [layer, example, head, key]
    source = batch.source[:, 0]
    weight = attention[:, torch.arange(len(source)), :, source].mean(0)  # [layer, head]
    last = attention[-1].mean(1)
    words = last.masked_fill(batch.ids < len(SPECIAL), -1.0)
    return {
        "accuracy": share(answers(outputs, batch) == batch.answer),
        "follows_source": _follows(model, batch),
        **_removals(model, batch),
        "on_source": float(weight.max()),
        "on_source_least": float(weight[-1].min()),
        "source_first": share(words.argmax(-1) == source),
        "moved_by_words": float((last - last.roll(1, 0)).abs().amax(-1).mean()),
        **_costs(model, batch, outputs, attention.shape[0], attention.shape[2]),
    }


def logits(outputs: Any, batch: Batch) -> Tensor:
    """``[example, row, class or token]``."""
    found: Tensor = outputs.logits
    return found[:, None] if found.dim() == 2 else found[:, batch.rows]


def answers(outputs: Any, batch: Batch) -> Tensor:
    """``[example, row]``."""
    return logits(outputs, batch).argmax(-1)


def share(true: Tensor) -> float:
    return float(true.float().mean())


def _nats(outputs: Any, batch: Batch) -> Tensor:
    """−ln of the answer's probability ``[example]``."""
    return -logits(outputs, batch).log_softmax(-1).gather(-1, batch.answer[..., None])[:, 0, 0]


def _follows(model: Any, batch: Batch) -> float:
    """Each example gets the next one's source, and should then give the next one's answer."""
    own, given = batch.source, batch.ids.gather(1, batch.source).roll(1, 0)
    outputs = model(input_ids=batch.ids.scatter(1, own, given))
    return share(answers(outputs, batch) == batch.answer.roll(1, 0))


def _removals(model: Any, batch: Batch) -> dict[str, float]:
    evidence = torch.zeros_like(batch.ids, dtype=torch.bool).scatter(1, batch.evidence[:, 0], True)
    fixed = batch.ids < len(SPECIAL)
    fixed[:, batch.rows] = True
    without = [_probability(model, batch, ~evidence, deleted) for deleted in (True, False)]
    alone = [_probability(model, batch, evidence | fixed, deleted) for deleted in (True, False)]
    return {"without_evidence": max(without), "evidence_alone": min(alone)}


def _probability(model: Any, batch: Batch, kept: Tensor, deleted: bool) -> float:
    """Of the answer, with only these positions; read at the last one, or at the first where that is where it stands."""
    if deleted:
        ids = batch.ids[kept].view(len(kept), -1)
        rows = batch.rows if int(batch.rows[0]) == 0 else torch.tensor([ids.shape[1] - 1])
    else:
        ids, rows = batch.ids.masked_fill(~kept, SPECIAL.index(UNKNOWN)), batch.rows
    shorter = Batch(ids, rows, batch.answer, batch.evidence, batch.known)
    return float((-_nats(model(input_ids=ids), shorter)).exp().mean())


def _costs(model: Any, batch: Batch, outputs: Any, layers: int, heads: int) -> dict[str, float]:
    whole = _nats(outputs, batch)

    def cost(gates: Tensor) -> float:
        with gated(model, gates):
            return float((_nats(model(input_ids=batch.ids), batch) - whole).mean())

    each = torch.ones(layers * heads, layers * heads).fill_diagonal_(0).view(-1, layers, 1, heads)
    return {"one_head": max(map(cost, each)), "all_heads": cost(torch.zeros(layers, 1, heads))}
