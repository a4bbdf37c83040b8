"""On what is measured: GPT-2's block at the width of its small model, with random weights.

The vocabulary has 128 tokens, so that neither the embedding nor a language-model head (which some tools cannot do
without) takes part in what is timed.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import transformers

VOCABULARY = 128
SHARPNESS = (
    1.5  # of the weights: makes scores of a few units, as in trained models, not the near-zero ones of a new one
)


@dataclass(frozen=True)
class Shape:
    """The size of a model and of what it reads."""

    layers: int
    tokens: int
    width: int = 768
    heads: int = 12

    @property
    def bound(self) -> float:
        """The least ratio to a plain forward that any method can have that looks at every score once.

        A block multiplies 24·T·D² + 2·T²·D times with causal skip; reading the scores once more costs T²·D of them.
        """
        return 1 + self.tokens / (24 * self.width + 2 * self.tokens)

    @property
    def matrix(self) -> int:
        """Bytes of one layer's attention in float32."""
        return 4 * self.heads * self.tokens**2


TABLE = (Shape(4, 1024), Shape(1, 4096))
QUICK = Shape(2, 256, 128, 4)
PROMPT = 16  # tokens that a generation starts from


def build(shape: Shape, *, seed: int, positions: int, head: bool = False, device: str = "cpu") -> Any:
    """A model on sdpa in eval mode; the same seed gives the same weights. Torch's own random numbers are untouched.

    Args:
        positions: how many positions it can read.
        head: with a language-model head, for ``generate()``.
        device: on ``"cuda"`` the weights are in bfloat16, which its flash kernels ask for.
    """
    config = transformers.GPT2Config(
        n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads, vocab_size=VOCABULARY, n_positions=positions,
        use_cache=False, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = (transformers.GPT2LMHeadModel if head else transformers.GPT2Model)(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape) * SHARPNESS * parameter.shape[0] ** -0.5)
    return model.to(device, torch.float32 if device == "cpu" else torch.bfloat16).eval()


def eager_of(model: Any) -> Any:
    """The same model on eager attention, over the very same weights."""
    config = copy.deepcopy(model.config)  # transformers writes the backend into the config that it is given
    twin = type(model)._from_config(config, attn_implementation="eager")
    twin.load_state_dict(model.state_dict(), assign=True)
    return twin.eval()


def tokens(count: int, *, seed: int, device: str = "cpu") -> torch.Tensor:
    """Ids ``[1, count]`` to read."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (1, count), generator=generator).to(device)
