"""Models to explain, and what their own gradients say: from ``inputs_embeds`` and eager attention, no hook of ours."""

from typing import Any

import torch
import transformers
from torch import nn

from tests.models import ENDS, SMALL, ids, tiny

NAMES = ["bert", "gpt2", "llama", "bart", "t5"]
STEPS = 12


class Linear(nn.Module):
    """A model whose attributions are known: logit_c = Σ_i w_ci · e_i + b_c, another weight at each position."""

    def __init__(self, words: int = 11, length: int = 5, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.embed = nn.Embedding(words, width)
        self.weights = nn.Parameter(torch.randn(classes, length, width, generator=generator))
        self.bias = nn.Parameter(torch.randn(classes, generator=generator))
        nn.init.normal_(self.embed.weight, generator=generator)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bie,cie->bc", self.embed(input_ids), self.weights) + self.bias


def linear() -> tuple[Any, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """The model in float64, one input, its vectors and the weights that they meet, ``[position, width]``."""
    model = Linear().double().eval()
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    return model, {"input_ids": tokens}, model.embed(tokens)[0].detach(), model.weights[1].detach()


def built(name: str, attn_implementation: str = "sdpa") -> Any:
    """A tiny model in float64; BERT with a classifier."""
    if name != "bert":
        return _precise(tiny(name, attn_implementation).double())
    config = transformers.BertConfig(**SMALL | ENDS | {"max_position_embeddings": 64, "num_labels": 3})
    model = transformers.BertForSequenceClassification._from_config(config, attn_implementation=attn_implementation)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2.5 * parameter.shape[-1] ** -0.5)
    return model.double().eval()


def _precise(model: Any) -> Any:
    """With torch's own RMSNorm for that of transformers, which works in float32 whatever it is given."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ in ("LlamaRMSNorm", "T5LayerNorm"):
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm.eval())
    return model


def given(name: str) -> dict[str, torch.Tensor]:
    inputs = {"input_ids": ids(1, 6)}
    return inputs | {"decoder_input_ids": ids(1, 4, seed=1)} if name in ("bart", "t5") else inputs


def target(name: str) -> Any:
    return 2 if name == "bert" else 7


def logit(name: str, out: Any) -> torch.Tensor:
    """The scalar of each row ``[batch]``, written out once more."""
    return out.logits[:, 2] if name == "bert" else out.logits[:, -1, 7]


def vectors(name: str, model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The embedding's row of each token, times the model's own factor."""
    module = model.model.encoder.embed_tokens if name == "bart" else model.get_input_embeddings()
    return module(tokens).detach()


def scalar(name: str, model: Any) -> Any:
    """From vectors ``[batch, position, width]`` to the scalar ``[batch]``, by the model's own ``inputs_embeds``."""
    rest = {key: value for key, value in given(name).items() if key != "input_ids"}

    def forward(embeds: torch.Tensor) -> torch.Tensor:
        more = {key: value.repeat(len(embeds), 1) for key, value in rest.items()}
        return logit(name, model(inputs_embeds=embeds, **more))

    return forward


def eager(name: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By stack, weights and gradients ``[layer, head, query, key]`` of an eager copy that hands its weights out."""
    model = built(name, "eager")
    out = model(**given(name), output_attentions=True)
    fields = {"encoder": "encoder_attentions", "decoder": "decoder_attentions", "cross": "cross_attentions"}
    stacks = {stack: list(out[field]) for stack, field in fields.items() if out.get(field)}
    stacks = stacks or {"only": list(out.attentions)}
    score, found = logit(name, out).sum(), {}
    for stack, maps in stacks.items():
        slopes = torch.autograd.grad(score, maps, retain_graph=True)
        found[stack] = torch.cat(maps).detach(), torch.cat(slopes)
    return found
