"""What the tests of ways of running share: decoders with and without a window, and the maps of an eager twin."""

from typing import Any

import torch
import transformers

import hf_attnviz as av
from tests.models import ENDS, SMALL, ids, tiny

WINDOW = 4
WINDOWED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mistral": ("MistralConfig", "MistralForCausalLM", {}),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "tie_word_embeddings": False,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "llama4": (
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        {
            "head_dim": 8, "intermediate_size_mlp": 37, "moe_layers": [], "no_rope_layers": [1, 1],
            "attention_chunk_size": WINDOW, "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
}  # fmt: skip


def decoder(name: str, backend: str = "sdpa", noise: float = 0.0, **changes: Any) -> Any:
    """A tiny decoder that never ends by itself; ``noise`` gives a relative of it, whose drafts are often right."""
    if name in WINDOWED:
        config_class, model_class, options = WINDOWED[name]
        options = SMALL | {"num_key_value_heads": 2, "sliding_window": WINDOW} | options | ENDS | changes
        config = getattr(transformers, config_class)(**options)
        model = getattr(transformers, model_class)._from_config(config, attn_implementation=backend).eval()
        redraw(model, 0, 0.4)
    else:
        model = tiny(name, backend, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * noise)
    model.generation_config.eos_token_id = None
    return model


def redraw(model: Any, seed: int, std: float) -> None:
    """Weights far from those that models begin with: attention then is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def read(sequence: list[int], mask: torch.Tensor) -> list[int]:
    """The tokens that were read of a generated sequence: the real ones of the prompt and the new ones but the last."""
    prompt = [token for token, real in zip(sequence, mask.tolist(), strict=False) if real]
    return prompt + sequence[len(mask) : -1]


def assert_decoder_is_one_pass(trace: av.Trace, reference: Any, tokens: list[int]) -> None:
    """The decoder's maps are those of one plain pass of the eager twin over what was read."""
    with torch.no_grad():
        expected = reference(torch.tensor([tokens]), output_attentions=True).attentions
    assert trace.decoder.queries.ids == trace.decoder.keys.ids == tuple(tokens)
    assert trace.decoder.layers == tuple(range(len(expected)))
    for found, wanted in zip(trace.decoder, expected, strict=True):
        torch.testing.assert_close(found.weights, wanted[0], atol=2e-5, rtol=0)


def assert_sides_are_one_pass(trace: av.Trace, expected: Any) -> None:
    """The maps of both sides and of the cross-attention are those of an eager twin's pass."""
    for stack, maps in (
        (trace.encoder, expected.encoder_attentions),
        (trace.decoder, expected.decoder_attentions),
        (trace.cross, expected.cross_attentions),
    ):
        assert stack.layers == tuple(range(len(maps)))
        for found, wanted in zip(stack, maps, strict=True):
            torch.testing.assert_close(found.weights, wanted[0], atol=2e-5, rtol=0)


def captured(model: Any, inputs: dict[str, Any], **options: Any) -> av.Recording:
    """A recording of one forward, whose output is that of a plain one, bit by bit."""
    with torch.no_grad():
        plain = model(**inputs)
        with av.capture(model, **options) as recording:
            seen = model(**inputs)
    assert torch.equal(plain[0], seen[0])
    return recording


def packed(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Documents one after the other in one row, and position ids that begin anew with each."""
    return ids(1, sum(lengths)), torch.cat([torch.arange(length) for length in lengths])[None]


def assert_packed(trace: av.Trace, reference: Any, tokens: torch.Tensor, lengths: list[int]) -> None:
    """Each document's block is the map of a pass over it alone, and nothing stands outside the blocks."""
    expected = [torch.zeros_like(found.weights) for found in trace.decoder]
    start = 0
    for length in lengths:
        block = slice(start, start + length)
        with torch.no_grad():
            alone = reference(tokens[:, block], output_attentions=True).attentions
        for layer, maps in enumerate(alone):
            expected[layer][:, block, block] = maps[0]
        start += length
    assert trace.decoder.keys.ids == tuple(tokens[0].tolist())
    for found, wanted in zip(trace.decoder, expected, strict=True):
        torch.testing.assert_close(found.weights, wanted, atol=2e-5, rtol=0)
