"""Ways to run tiny models through which something is carried from layer to layer and from step to step."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import transformers

import hf_attnviz as av
from hf_attnviz.reducing import passes
from tests.layers import decoder
from tests.models import ids, padded, tiny

GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
BEAMS = GREEDY | {"num_beams": 3, "num_return_sequences": 2}
MANY = GREEDY | {"max_new_tokens": 70, "min_new_tokens": 70}
LEFT, RIGHT = padded([7, 4], "left"), padded([7, 4], "right")
PASSES = {"fastest": contextlib.nullcontext, "pure": passes.pure}

Run = tuple[Callable[[], Any], Callable[[Any], Any]]


def llama(**changes: Any) -> Any:
    return tiny("llama", num_hidden_layers=3, **changes)


def window() -> Any:
    return decoder("MistralConfig", "MistralForCausalLM", "sdpa", sliding_window=4)


def sinks() -> Any:
    """Rows that do not sum to one: the kernel is not understood, and goes the slow way."""
    options = {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8, "intermediate_size": 32}
    model = decoder("GptOssConfig", "GptOssForCausalLM", "eager", sliding_window=4, **options)
    model.set_experts_implementation("eager")
    return model


def in_three_passes(model: Any) -> None:
    """A user's own loop: more than one token at once, too."""
    cache = model(ids(2, 6), use_cache=True).past_key_values
    for length in (3, 1):
        cache = model(ids(2, length, seed=length), past_key_values=cache, use_cache=True).past_key_values


PLAIN: dict[str, Run] = {
    "gpt2": (lambda: tiny("gpt2"), lambda m: m(ids(2, 7))),
    "grouped heads, padding left": (llama, lambda m: m(**LEFT)),
    "bidirectional, padding right": (lambda: tiny("bert"), lambda m: m(**RIGHT)),
    "one module for all layers": (
        lambda: transformers.AlbertModel(
            transformers.AlbertConfig(
                vocab_size=97, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
                intermediate_size=37,
            )
        ).eval(),
        lambda m: m(**RIGHT),
    ),
    "encoder and decoder": (lambda: tiny("bart"), lambda m: m(**RIGHT, decoder_input_ids=ids(2, 5))),
    "position bias": (lambda: tiny("t5"), lambda m: m(input_ids=ids(1, 7), decoder_input_ids=ids(1, 5))),
    "window": (window, lambda m: m(ids(2, 9))),
    "sinks": (sinks, lambda m: m(ids(2, 7))),
}  # fmt: skip
GENERATIONS: dict[str, Run] = {
    "greedy": (llama, lambda m: m.generate(ids(1, 7), **GREEDY)),
    "greedy, padding left": (llama, lambda m: m.generate(**LEFT, **GREEDY)),
    "eager": (lambda: tiny("llama", "eager"), lambda m: m.generate(**LEFT, **GREEDY)),
    "without a cache": (llama, lambda m: m.generate(**LEFT, **GREEDY, use_cache=False)),
    "static cache": (llama, lambda m: m.generate(**LEFT, **GREEDY, cache_implementation="static")),
    "beams": (llama, lambda m: m.generate(**LEFT, **BEAMS)),
    "beams of an encoder-decoder": (lambda: tiny("bart"), lambda m: m.generate(**RIGHT, **BEAMS)),
    "beams without a cache": (lambda: tiny("bart"), lambda m: m.generate(**RIGHT, **BEAMS, use_cache=False)),
    "samples": (llama, lambda m: m.generate(ids(2, 6), **GREEDY | {"do_sample": True, "num_return_sequences": 2})),
    "guidance": (llama, lambda m: m.generate(ids(1, 6), guidance_scale=1.5, **GREEDY)),
    "window": (window, lambda m: m.generate(**LEFT, **GREEDY)),
    "sinks": (sinks, lambda m: m.generate(ids(2, 7), **GREEDY)),
    "several passes": (llama, in_three_passes),
    "more steps than one stride": (llama, lambda m: m.generate(ids(1, 4), **MANY)),
}


def captured(run: Run, keep: Any) -> av.Recording:
    """A recording of the run, the same each time."""
    model = run[0]() if run[0] is not PLAIN["one module for all layers"][0] else _seeded(run[0])
    torch.manual_seed(0)
    with av.capture(model, keep=keep) as recording, torch.no_grad():
        run[1](model)
    return recording


def _seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make()
