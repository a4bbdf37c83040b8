"""What hf_attnviz, nnsight and TransformerLens give of the attention of eight families, loaded as users load them.

    python -m venv peers && peers/bin/pip install -c constraints.txt . nnsight transformer_lens
    peers/bin/python apps/compare_with_peers.py

Each family is a tiny model with random weights (redrawn, so that attention is far from uniform), saved and loaded with
``from_pretrained`` and no further words: on sdpa. The truth is the kernel itself: torch's
``scaled_dot_product_attention`` is called once more for every call, with its own arguments and an identity matrix in
place of the values. Nothing is downloaded. Each tool is used as its documentation says:

- hf_attnviz: ``with av.capture(model)``, then ``recording.calls``.
- nnsight: ``NNsight(model)``, ``model.trace(...)``, the weights among the outputs of each attention module; and, since
  those are None under sdpa (so is what its ``.source`` shows of the attention function), the same after loading the
  model again with ``attn_implementation="eager"``.
- TransformerLens: ``TransformerBridge.boot_transformers(name, hf_model=model)``, ``run_with_cache``, ``hook_pattern``.

A cell says how far the weights are from the truth at most, whether the output kept its bits while they were taken, and
what is left of the tool on the model afterwards.
"""

import functools
import importlib.metadata
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import tokenizers
import torch
import torch.nn.functional as F
import transformers

import hf_attnviz as av

TOKENS, STEPS = 9, 5
SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 97,
    "max_position_embeddings": 64,
}  # fmt: skip
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = SMALL | ENDS | {"num_key_value_heads": 2, "head_dim": 16}
TEXT = {"input_ids": torch.randint(3, 97, (2, TOKENS), generator=torch.Generator().manual_seed(0))}
TARGET = {"decoder_input_ids": TEXT["input_ids"][:, :STEPS]}


def _both_sides(encoder: str, decoder: str, own: str, cross: str) -> list[str]:
    sides = [encoder.format(n) for n in (0, 1)]
    return sides + [decoder.format(n) + part for n in (0, 1) for part in (own, cross)]


@dataclass(frozen=True)
class Family:
    """A family: classes, options, inputs, its attention modules in the order in which they run, and the place of the
    weights among the outputs of one."""

    name: str
    config: str
    model: str
    options: dict[str, Any]
    inputs: dict[str, torch.Tensor]
    modules: list[str]
    place: int = 1


FAMILIES = [
    Family(
        "GPT-2", "GPT2Config", "GPT2LMHeadModel",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 97, "n_positions": 64} | ENDS,
        TEXT, [f"transformer.h.{n}.attn" for n in (0, 1)],
    ),
    Family(
        "Llama, grouped", "LlamaConfig", "LlamaForCausalLM", GROUPED,
        TEXT, [f"model.layers.{n}.self_attn" for n in (0, 1)],
    ),
    Family("Qwen3", "Qwen3Config", "Qwen3ForCausalLM", GROUPED, TEXT, [f"model.layers.{n}.self_attn" for n in (0, 1)]),
    Family(
        "Gemma 3, window of 4", "Gemma3TextConfig", "Gemma3ForCausalLM",
        GROUPED | {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
        TEXT, [f"model.layers.{n}.self_attn" for n in (0, 1)],
    ),
    Family(
        "BERT", "BertConfig", "BertForMaskedLM", SMALL | ENDS,
        TEXT, [f"bert.encoder.layer.{n}.attention.self" for n in (0, 1)],
    ),
    Family(
        "T5", "T5Config", "T5ForConditionalGeneration",
        {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "vocab_size": 97, "pad_token_id": 0,
         "eos_token_id": 2, "decoder_start_token_id": 1},
        TEXT | TARGET,
        _both_sides("encoder.block.{}.layer.0.SelfAttention", "decoder.block.{}.layer.", "0.SelfAttention",
                    "1.EncDecAttention"), 2,
    ),
    Family(
        "ViT", "ViTConfig", "ViTForImageClassification",
        {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
         "image_size": 32, "patch_size": 8},
        {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))},
        [f"vit.layers.{n}.attention" for n in (0, 1)],
    ),
    Family(
        "Whisper", "WhisperConfig", "WhisperForConditionalGeneration",
        {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "vocab_size": 97,
         "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 32, "decoder_start_token_id": 1} | ENDS,
        {"input_features": torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(0))} | TARGET,
        _both_sides("model.encoder.layers.{}.self_attn", "model.decoder.layers.{}.", "self_attn", "encoder_attn"),
    ),
]  # fmt: skip

Maps = list[torch.Tensor]
Tool = Callable[[Any, Family, str], tuple[Maps, torch.Tensor]]
"""Model, family and folder to the weights in the order in which they ran, and the logits of that very run."""


class NoAttentionError(Exception):
    """The tool ran and gave no weights."""


def save(family: Family, folder: str) -> None:
    """A model with weights far from those of an initialisation, and a tokenizer of single words."""
    torch.manual_seed(0)
    model = getattr(transformers, family.model)(getattr(transformers, family.config)(**family.options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape) * 2.5 * parameter.shape[-1] ** -0.5)
    model.tie_weights()
    model.save_pretrained(folder)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{n}": n for n in range(3, 97)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w3"))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="w3"
    ).save_pretrained(folder)


def load(family: Family, folder: str, **options: Any) -> Any:
    return getattr(transformers, family.model).from_pretrained(folder, **options).eval()


@contextmanager
def spied(seen: Maps) -> Iterator[None]:
    """While open, every call of the kernel is made once more with an identity matrix as its values."""
    kernel = F.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        keys, size = value.shape[-2:]  # blocks as wide as the values, else torch would choose another kernel
        blocks = F.pad(torch.eye(keys), (0, -keys % size)).split(size, dim=-1)
        columns = [kernel(query, key, block.expand_as(value).contiguous(), *args, **kwargs) for block in blocks]
        seen.append(torch.cat(columns, dim=-1)[..., :keys])
        return kernel(query, key, value, *args, **kwargs)

    F.scaled_dot_product_attention = spy
    try:
        yield
    finally:
        F.scaled_dot_product_attention = kernel


# ---- the tools


def hf_attnviz(model: Any, family: Family, folder: str) -> tuple[Maps, torch.Tensor]:
    with av.capture(model) as recording:
        logits = model(**family.inputs).logits
    return [call.weights for call in recording.calls], logits


def nnsight(model: Any, family: Family, folder: str) -> tuple[Maps, torch.Tensor]:
    from nnsight import NNsight

    wrapped = NNsight(model)
    found: Any = []
    with wrapped.trace(**family.inputs):
        found = list().save()  # noqa: C408
        for path in family.modules:
            found.append(_part(wrapped, path).output[family.place])
        logits = wrapped.output.logits.save()
    if any(weights is None for weights in found):
        raise NoAttentionError("None, without an error")
    return list(found), logits


def transformer_lens(model: Any, family: Family, folder: str) -> tuple[Maps, torch.Tensor]:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(folder, hf_model=model, device="cpu")
    first, *others = family.inputs.values()
    logits, cache = bridge.run_with_cache(first, **({"decoder_input": others[0]} if others else {}))
    return [weights for name, weights in cache.items() if name.endswith("hook_pattern")], logits


def _part(wrapped: Any, path: str) -> Any:
    return functools.reduce(
        lambda part, name: part[int(name)] if name.isdigit() else getattr(part, name), path.split("."), wrapped
    )


EAGER = {"attn_implementation": "eager"}
TOOLS: dict[str, tuple[str, Tool, dict[str, Any]]] = {
    "hf_attnviz": ("hf-attnviz", hf_attnviz, {}),
    "nnsight": ("nnsight", nnsight, {}),
    "nnsight, loaded again with eager": ("nnsight", nnsight, EAGER),
    "TransformerLens, bridge": ("transformer-lens", transformer_lens, {}),
}


# ---- what is compared


def state(model: Any) -> tuple[Any, Counter[Any]]:
    """The backend, and every module with its class, hooks and own attributes."""
    modules: Counter[Any] = Counter()
    for name, module in model.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        modules[(name, type(module), hooks, tuple(sorted(module.__dict__)))] += 1
    return model.config._attn_implementation, modules


def left_behind(before: tuple[Any, Counter[Any]], model: Any, plain: torch.Tensor, family: Family) -> str:
    backend, modules = state(model)
    found = []
    if backend != before[0]:
        found.append(f"backend now {backend}")
    changed = sum((modules - before[1]).values())
    if changed:
        found.append(f"{changed} modules not as they were")
    try:
        if not torch.equal(model(**family.inputs).logits, plain):
            found.append("other output")
    except Exception as problem:
        found.append(f"no longer runs ({type(problem).__name__})")
    return ", ".join(found) or "unchanged"


def far(maps: Maps, truth: Maps) -> str:
    """The largest deviation from the truth, or what is wrong with the maps."""
    if [tuple(m.shape) for m in maps] != [tuple(t.shape) for t in truth]:
        return f"{len(maps)} maps {[tuple(m.shape) for m in maps][:1]} of {len(truth)}"
    return f"{max(float((m - t).abs().max()) for m, t in zip(maps, truth, strict=True)):.1g}"


def same(logits: torch.Tensor, plain: torch.Tensor) -> str:
    if torch.equal(logits, plain):
        return "same bits"
    return f"output off by {float((logits - plain).abs().max()):.1g}" if logits.shape == plain.shape else "other output"


def cell(tool: Tool, options: dict[str, Any], family: Family, folder: str) -> str:
    model, truth = load(family, folder), list[torch.Tensor]()
    with spied(truth):
        plain = model(**family.inputs).logits
    assert model.config._attn_implementation == "sdpa"
    assert len(truth) == len(family.modules)
    model = load(family, folder, **options)
    before, own = state(model), model(**family.inputs).logits
    try:
        maps, logits = tool(model, family, folder)
        said = f"{far(maps, truth)}; {same(logits, plain)}"
    except NoAttentionError as none:
        said = f"no weights ({none})"
    except Exception as problem:
        said = f"{type(problem).__name__}: {str(problem).splitlines()[0][:60]}…"
    return f"{said}; {left_behind(before, model, own, family)}"


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for package in ("torch", "transformers", *dict.fromkeys(package for package, *_ in TOOLS.values())):
        try:
            print(f"- {package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(
                f"- {package} (not installed; from {av.__file__})"
                if package == "hf-attnviz"
                else f"- {package}: missing"
            )
    print(f"\n| family | {' | '.join(TOOLS)} |\n|---|{'---|' * len(TOOLS)}")
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            save(family, folder)
            cells = [cell(tool, options, family, folder) for _, tool, options in TOOLS.values()]
        print(f"| {family.name} | {' | '.join(cells)} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
