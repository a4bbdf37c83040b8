"""What every variant runs on: one model, one input, and one way to run it: a forward, or a generation."""

from functools import cached_property
from typing import Any

import torch

from hf_attnviz.benchmarking.shapes import PROMPT, Shape, build, eager_of, tokens
from hf_attnviz.language import Text


class Bed:
    """One forward pass of a model without a head, batch 1, without a cache."""

    decodes = False

    def __init__(self, shape: Shape, *, seed: int = 0, device: str = "cpu") -> None:
        self.shape, self.seed, self.device = shape, seed, device

    @property
    def where(self) -> Text:
        """On what, in a few words."""
        shape = self.shape
        return Text(
            f"{shape.layers} × GPT-2 block ({shape.width} wide, {shape.heads} heads), {self._length.en}",
            f"GPT-2 块 × {shape.layers}（宽 {shape.width}，{shape.heads} 头），{self._length.zh}",
        )

    @property
    def _length(self) -> Text:
        return Text(f"{self.shape.tokens:,} tokens", f"{self.shape.tokens:,} 个词元")

    @cached_property
    def ids(self) -> torch.Tensor:
        """What is read, ``[1, token]``."""
        return tokens(self.shape.tokens, seed=self.seed, device=self.device)

    @cached_property
    def model(self) -> Any:
        """The model that plain runs and ours share."""
        return build(self.shape, seed=self.seed, positions=self.shape.tokens, device=self.device)

    @cached_property
    def eager(self) -> Any:
        """Its twin on eager attention, over the same weights."""
        return eager_of(self.model)

    def run(self, model: Any = None, **options: Any) -> Any:
        """One run; without a model the shared one."""
        return (self.model if model is None else model)(self.ids, use_cache=False, **options)

    def output(self, ran: Any) -> torch.Tensor:
        """What must keep its bits."""
        found: torch.Tensor = ran.last_hidden_state
        return found


class DecodingBed(Bed):
    """Greedy ``generate()`` with a cache, from a short prompt."""

    decodes = True

    def __init__(self, shape: Shape, *, seed: int = 0, device: str = "cpu") -> None:
        super().__init__(shape, seed=seed, device=device)
        self.new = shape.tokens - PROMPT

    @property
    def _length(self) -> Text:
        return Text(f"{self.new:,} new tokens", f"生成 {self.new:,} 个词元")

    @cached_property
    def ids(self) -> torch.Tensor:
        """The prompt, ``[1, token]``."""
        return tokens(PROMPT, seed=self.seed, device=self.device)

    @cached_property
    def model(self) -> Any:
        """The model that plain runs and ours share."""
        return build(self.shape, seed=self.seed, positions=self.shape.tokens, head=True, device=self.device)

    def run(self, model: Any = None, **options: Any) -> Any:
        """One generation; without a model by the shared one."""
        return (self.model if model is None else model).generate(
            self.ids,
            attention_mask=torch.ones_like(self.ids),
            max_new_tokens=self.new,
            do_sample=False,
            use_cache=True,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )

    def output(self, ran: Any) -> torch.Tensor:
        """What must keep its bits: the tokens, and the logits of every step."""
        return torch.cat([ran.sequences.to(ran.logits[0]), *ran.logits], dim=-1)
