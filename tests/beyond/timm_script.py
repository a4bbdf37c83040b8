"""Captures models of timm, each with torch's fused attention and without; prints what it saw as JSON.

Runs in an environment and a process of its own (``make timm``): PyPI's torchvision, which timm imports, is built for
another torch than a CPU one, and imports once the operators that it misses are defined.
"""

import inspect
import json
import sys
from typing import Any

import torch

_missing = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _missing.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402

import hf_attnviz as av  # noqa: E402

SMALL = {"num_classes": 5}
VIT = SMALL | {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "beit_base_patch16_224": VIT,
    "eva02_tiny_patch14_224": VIT | {"img_size": 28},
    "vit_base_patch16_siglip_224": VIT,
    "cait_xxs24_224": VIT,
    "swin_tiny_patch4_window7_224": SMALL | {"img_size": 56, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)},
    "mobilevit_xxs": SMALL,
    "resnet10t": SMALL,
}


def built(name: str) -> Any:
    model = timm.create_model(name, **MODELS[name]).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                size = 1.5 * parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return model


def by_hand(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The weights of timm's ViT attention from its own projection."""
    q, k, _ = module.qkv(hidden).unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return (module.q_norm(q) * module.scale @ module.k_norm(k).transpose(-1, -2)).softmax(-1)


def seen(name: str, fused: bool) -> dict[str, Any]:
    timm.layers.set_fused_attn(fused)
    model = built(name)
    images = torch.randn(2, 3, *[MODELS[name].get("img_size", 64)] * 2, generator=torch.Generator().manual_seed(1))
    truth: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules():
        if type(module) is timm.models.vision_transformer.Attention:
            module.register_forward_pre_hook(
                lambda module, args, path=path: truth.__setitem__(path, by_hand(module, args[0]))
            )
    with torch.no_grad():
        plain = model(images)
        try:
            with av.capture(model) as recording:
                identical = torch.equal(model(images), plain)
        except av.errors.NothingCapturedError:
            return {"maps": []}
        found = av.doctor(model, {next(iter(inspect.signature(model.forward).parameters)): images})
    return {
        "identical": identical,
        "maps": [(c.stack, c.kind, c.layer, list(c.weights.shape)) for c in recording.calls],
        "backends": sorted({c.implementation for c in recording.calls}),
        "far": [float((c.weights - truth[c.module]).abs().max()) for c in recording.calls if c.module in truth],
        "traces": traces(recording),
        "ok": found.ok,
    }


def traces(recording: av.Recording) -> int | str:
    try:
        return len(recording.traces)
    except av.errors.CaptureError as error:
        return str(error)


if __name__ == "__main__":
    results = {name: {str(fused): seen(name, fused) for fused in (True, False)} for name in MODELS}
    json.dump(results, sys.stdout)
