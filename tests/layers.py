"""What attention layers of real models are made of, read by the names that their authors gave to weights and modules:
one row a family. Nothing of the package is used; vectors are taken by hooks of the tests' own."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tests.models import ENDS, SMALL, ids, tiny

Parts = dict[str, Any]


def shaken(model: Any, seed: int = 1) -> Any:
    """The model with biases and norms far from those that models begin with, which hide half of the arithmetic."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def vit(backend: str = "sdpa") -> Any:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=12, patch_size=4
    )
    torch.manual_seed(0)
    return transformers.ViTModel._from_config(config, attn_implementation=backend).eval()


def decoder(config: str, model: str, backend: str, **options: Any) -> Any:
    made = getattr(transformers, config)(**SMALL | ENDS | {"num_key_value_heads": 2} | options)
    torch.manual_seed(0)
    return getattr(transformers, model)._from_config(made, attn_implementation=backend).eval()


def built(name: str, backend: str = "sdpa") -> Any:
    """A tiny model of a family."""
    makers: dict[str, Callable[[], Any]] = {
        "vit": lambda: vit(backend),
        "gemma2": lambda: decoder("Gemma2Config", "Gemma2ForCausalLM", "eager", head_dim=8),
        "olmo2": lambda: decoder("Olmo2Config", "Olmo2ForCausalLM", backend),
        "gptj": lambda: transformers.GPTJModel._from_config(
            transformers.GPTJConfig(vocab_size=97, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=64),
            attn_implementation="eager",
        ).eval(),
    }
    return shaken(makers[name]() if name in makers else tiny(name, backend))


def inputs(name: str) -> dict[str, Tensor]:
    """One example."""
    if name == "vit":
        return {"pixel_values": torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))}
    two_sided = {"decoder_input_ids": ids(1, 4, seed=3)} if name in ("t5", "bart") else {}
    return {"input_ids": ids(1, 6)} | two_sided


def seen(model: nn.Module, given: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """What each module was given first, and what it gave, in one pass."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            values = (*args, kwargs.get("hidden_states"))
            first = next((value for value in values if isinstance(value, Tensor)), None)
            output = output[0] if isinstance(output, tuple) else output
            if first is not None and isinstance(output, Tensor):
                found[name] = (first.detach().clone(), output.detach().clone())

        return hook

    handles = [part.register_forward_hook(note(name), with_kwargs=True) for name, part in model.named_modules()]
    with torch.no_grad():
        model(**given)
    for handle in handles:
        handle.remove()
    return found


def linear(layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return layer.weight.T, layer.bias


def norm(layer: Any, plus: float = 0.0) -> tuple[Tensor, Tensor | None, float]:
    eps = getattr(layer, "eps", None) or layer.variance_epsilon
    return layer.weight + plus, getattr(layer, "bias", None), eps


def made(value: nn.Linear, output: nn.Linear, hidden: Tensor, residual: Tensor, **more: Any) -> Parts:
    (w_v, b_v), (w_o, b_o) = linear(value), linear(output)
    given = {"hidden": hidden, "w_v": w_v, "b_v": b_v, "w_o": w_o, "b_o": b_o, "residual": residual}
    return given | more


def bert(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    name, block = f"encoder.layer.{layer}", model.encoder.layer[layer].attention
    stream = flow[name][0]
    return {
        f"{name}.attention.self": made(
            block.self.value, block.output.dense, stream, stream, layer_norm=norm(block.output.LayerNorm),
            truth=flow[f"{name}.attention.output.LayerNorm"][1],
        )
    }  # fmt: skip


def distilbert(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    name, block = f"transformer.layer.{layer}", model.transformer.layer[layer]
    stream = flow[name][0]
    return {
        f"{name}.attention": made(
            block.attention.v_lin, block.attention.out_lin, stream, stream, layer_norm=norm(block.sa_layer_norm),
            truth=flow[f"{name}.sa_layer_norm"][1],
        )
    }  # fmt: skip


def gpt2(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    name, attention = f"transformer.h.{layer}", model.transformer.h[layer].attn
    stream, read = flow[f"{name}.ln_1"]
    width = stream.shape[-1]
    return {
        f"{name}.attn": {
            "hidden": read, "w_v": attention.c_attn.weight[:, 2 * width :], "b_v": attention.c_attn.bias[2 * width :],
            "w_o": attention.c_proj.weight, "b_o": attention.c_proj.bias, "residual": stream,
            "truth": flow[f"{name}.ln_2"][0],
        }
    }  # fmt: skip


def llama(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    name, attention = f"model.layers.{layer}", model.model.layers[layer].self_attn
    stream, read = flow[f"{name}.input_layernorm"]
    truth = flow[f"{name}.post_attention_layernorm"][0]
    return {f"{name}.self_attn": made(attention.v_proj, attention.o_proj, read, stream, truth=truth)}


def gemma2(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    name, block = f"model.layers.{layer}", model.model.layers[layer]
    stream, read = flow[f"{name}.input_layernorm"]
    more = {"inner": norm(block.post_attention_layernorm, 1.0), "rms": True}
    truth = flow[f"{name}.pre_feedforward_layernorm"][0]
    made_of = made(block.self_attn.v_proj, block.self_attn.o_proj, read, stream, truth=truth, **more)
    return {f"{name}.self_attn": made_of}


def olmo2(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    name, block = f"model.layers.{layer}", model.model.layers[layer]
    stream = flow[name][0]
    more = {"inner": norm(block.post_attention_layernorm), "rms": True, "truth": flow[f"{name}.mlp"][0]}
    return {f"{name}.self_attn": made(block.self_attn.v_proj, block.self_attn.o_proj, stream, stream, **more)}


def gptj(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    name, attention = f"h.{layer}", model.h[layer].attn
    stream, read = flow[f"{name}.ln_1"]
    truth = flow[f"{name}.attn"][1] + stream
    return {f"{name}.attn": made(attention.v_proj, attention.out_proj, read, stream, truth=truth)}


def t5(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    found = {}
    for side in ("encoder", "decoder"):
        name, block = f"{side}.block.{layer}.layer", getattr(model, side).block[layer].layer
        stream, read = flow[f"{name}.0.layer_norm"]
        own, truth = block[0].SelfAttention, flow[f"{name}.0"][1]
        found[f"{name}.0.SelfAttention"] = made(own.v, own.o, read, stream, truth=truth)
    cross, stream = block[1].EncDecAttention, flow[f"{name}.1.layer_norm"][0]
    source, truth = flow["encoder.dropout"][1], flow[f"{name}.1"][1]
    found[f"{name}.1.EncDecAttention"] = made(cross.v, cross.o, source, stream, truth=truth, positions=[-1] * 4)
    return found


def bart(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    found = {}
    for side in ("encoder", "decoder"):
        name, block = f"model.{side}.layers.{layer}", getattr(model.model, side).layers[layer]
        stream, after = flow[name][0], flow[f"{name}.self_attn_layer_norm"][1]
        own, behind = block.self_attn, norm(block.self_attn_layer_norm)
        found[f"{name}.self_attn"] = made(own.v_proj, own.out_proj, stream, stream, layer_norm=behind, truth=after)
    cross, behind = block.encoder_attn, norm(block.encoder_attn_layer_norm)
    source, truth = flow["model.encoder.layers.2.final_layer_norm"][1], flow[f"{name}.encoder_attn_layer_norm"][1]
    found[f"{name}.encoder_attn"] = made(
        cross.v_proj, cross.out_proj, source, after, layer_norm=behind, truth=truth, positions=[-1] * 4
    )
    return found


def vit_layer(model: Any, flow: Any, layer: int) -> dict[str, Parts]:
    name, attention = f"layers.{layer}", model.layers[layer].attention
    stream, read = flow[f"{name}.layernorm_before"]
    truth = flow[f"{name}.layernorm_after"][0]
    return {f"{name}.attention": made(attention.v_proj, attention.o_proj, read, stream, truth=truth)}


FAMILIES: dict[str, Callable[[Any, Any, int], dict[str, Parts]]] = {
    "bert": bert, "roberta": bert, "distilbert": distilbert, "gpt2": gpt2, "llama": llama, "t5": t5, "bart": bart,
    "vit": vit_layer, "gemma2": gemma2, "olmo2": olmo2, "gptj": gptj,
}  # fmt: skip
FORMS = {
    "bert": "post-norm", "roberta": "post-norm", "distilbert": "post-norm", "bart": "post-norm", "gpt2": "pre-norm",
    "llama": "pre-norm", "t5": "pre-norm", "vit": "pre-norm", "gemma2": "inner norm", "olmo2": "inner norm",
    "gptj": "parallel",
}  # fmt: skip
