"""Encoder-decoders of the years before transformers: an RNN decoder that attends to an RNN encoder, step by step.

Scores: additive (Bahdanau et al. 2015, eq. 6 of its appendix) and dot, general, concat (Luong et al. 2015, eq. 8).
"""

from collections.abc import Callable

import torch
from torch import nn

SIZE = 12

Context = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Weights ``[batch, key]`` and states ``[batch, key, size]`` to the context ``[batch, size]``."""

CONTEXTS: dict[str, Context] = {
    "bmm": lambda w, h: torch.bmm(w.unsqueeze(1), h).squeeze(1),
    "bmm, states first": lambda w, h: torch.bmm(h.transpose(1, 2), w.unsqueeze(2)).squeeze(2),
    "matmul": lambda w, h: torch.matmul(w[:, None, :], h)[:, 0],
    "@": lambda w, h: (w[:, None] @ h).squeeze(1),
    "multiply and sum": lambda w, h: (w.unsqueeze(-1) * h).sum(1),
    "torch.sum of torch.mul": lambda w, h: torch.sum(torch.mul(h, w[..., None]), dim=1),
    "expand_as": lambda w, h: (h * w.unsqueeze(2).expand_as(h)).sum(dim=-2),
    "time first": lambda w, h: (w.T[:, :, None] * h.transpose(0, 1)).sum(0),
    "einsum": lambda w, h: torch.einsum("bk,bkd->bd", w, h),
}


class Scores(nn.Module):
    """Scores ``[batch, key]`` of a state ``[batch, size]`` against states ``[batch, key, size]``."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.of_query, self.of_key = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.of_both, self.out = nn.Linear(2 * SIZE, SIZE), nn.Linear(SIZE, 1)

    def forward(self, state: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        many = state.unsqueeze(1).expand_as(states)
        if self.way == "additive":
            scores = self.out(torch.tanh(self.of_query(state).unsqueeze(1) + self.of_key(states))).squeeze(-1)
        elif self.way == "concat":
            scores = self.out(torch.tanh(self.of_both(torch.cat([many, states], -1))))[..., 0]
        elif self.way == "general":
            scores = torch.bmm(self.of_key(states), state.unsqueeze(2)).squeeze(2)
        else:
            scores = (many * states).sum(-1)
        return scores * 16


class Attention(nn.Module):
    """One step of attention; ``used`` keeps what it multiplied the states with."""

    def __init__(self, way: str, context: str) -> None:
        super().__init__()
        self.scores, self.context = Scores(way), CONTEXTS[context]
        self.used: list[torch.Tensor] = []

    def forward(self, hidden: torch.Tensor, encoder_outputs: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.scores(hidden, encoder_outputs), dim=-1)
        self.used.append(weights.detach().clone())
        return self.context(weights, encoder_outputs)


class Mixer(Attention):
    """The same under a name that says nothing."""


class Translator(nn.Module):
    """Source and target ids, teacher forcing; ``inline`` writes attention into the decoder's own loop."""

    def __init__(
        self, way: str = "additive", context: str = "bmm", make: type[Attention] = Attention, inline: bool = False
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, SIZE)
        self.encoder = nn.GRU(SIZE, SIZE, batch_first=True)
        self.attention = make(way, context)
        self.cell = nn.GRUCell(2 * SIZE, SIZE)
        self.inline = inline

    def forward(self, input_ids: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
        states, last = self.encoder(self.embedding(input_ids))
        state, outputs = last[0], []
        for step in range(target_ids.shape[1]):
            if self.inline:
                weights = self.attention.scores(state, states).softmax(-1)
                self.attention.used.append(weights.detach().clone())
                context = self.attention.context(weights, states)
            else:
                context = self.attention(state, states)
            state = self.cell(torch.cat([self.embedding(target_ids[:, step]), context], -1), state)
            outputs.append(state)
        return torch.stack(outputs, 1)


def translator(**options: object) -> Translator:
    """A translator with weights from a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Translator(**options).eval()  # type: ignore[arg-type]
