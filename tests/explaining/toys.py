"""Real Hugging Face models whose evidence is known because their weights were written by hand."""

from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

MASK = 1  # its weight is zero


class BagConfig(PretrainedConfig):
    model_type = "bag-of-words"


class Bag(PreTrainedModel):
    """A linear bag-of-words classifier: the logit of class 1 is the sum of a weight for each word."""

    config_class = BagConfig

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.weights = nn.Embedding(200, 1)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        total = self.weights(input_ids).sum((1, 2))
        return SequenceClassifierOutput(logits=torch.stack([torch.zeros_like(total), total], dim=-1))


def bag(scale: float = 1.0, seed: int = 0, weights: torch.Tensor | None = None) -> Bag:
    model = Bag(BagConfig(pad_token_id=0, num_labels=2)).eval()
    drawn = torch.randn(200, generator=torch.Generator().manual_seed(seed)) * scale
    drawn = drawn if weights is None else weights
    drawn[[0, MASK]] = 0.0
    with torch.no_grad():
        model.weights.weight.copy_(drawn[:, None])
    return model


def words(length: int, seed: int = 0) -> torch.Tensor:
    """Distinct words ``[1, position]``."""
    return torch.randperm(198, generator=torch.Generator().manual_seed(seed))[None, :length] + 2


def truth(model: Bag, ids: torch.Tensor) -> torch.Tensor:
    """What each word adds to the logit of class 1 ``[position]``."""
    return model.weights.weight.detach()[ids[0], 0]
