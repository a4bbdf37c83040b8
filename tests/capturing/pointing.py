"""Models made to look at what is bright or loud: the keys of their first layer score by it and by nothing else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def redrawn(model: Any, seed: int = 0) -> Any:
    """The model with weights from a seed; nothing in it knows where a position is, and convolutions do not smear."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            where = "position" in name or "pos_embed" in name
            if parameter.dim() > 1:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn * (0.0 if where else parameter[0].numel() ** -0.5))
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d) and max(module.kernel_size) > max(module.stride):
                middle = tuple(size // 2 for size in module.kernel_size)
                kept = module.weight[(..., *middle)].clone()
                module.weight.zero_()
                module.weight[(..., *middle)] = kept * 3
    return model.eval()


def look_at_what_changes(
    attention: nn.Module, heads: int, run: Callable[[bool], Any], names: tuple[str, str] = ("q_proj", "k_proj")
) -> None:
    """Let an attention module score a key by how it differs from what stands there when all is dark.

    Args:
        attention: the module; its two projections are linear, with a bias for the queries or without.
        run: runs the model: on what is bright somewhere (True), on what is dark (False).
    """
    query, key = (attention.get_submodule(name) for name in names)
    dark, bright = read(key, lambda: run(False)), read(key, lambda: run(True))
    change = (bright - dark).norm(dim=-1)
    assert change.max() > 0.1, "what is bright is not seen here"
    direction = bright[change.argmax()]
    basis, sizes, _ = torch.linalg.svd(dark.T, full_matrices=False)
    basis = basis[:, sizes > 1e-4 * sizes[0]]
    direction = direction - basis @ (basis.T @ direction)
    size = query.out_features // heads // (3 if key is query else 1)
    with torch.no_grad():
        unit = torch.zeros(size)
        unit[size // 2 - 1] = 14.0  # what turns least with the position, where positions are turned
        every = unit.repeat(heads)
        told = torch.outer(every, direction / direction.norm() ** 2)
        if key is query:
            rows = slice(len(every), 2 * len(every))
            query.weight[: len(every)], query.weight[rows] = 0.0, told
            query.bias[: len(every)], query.bias[rows] = every, 0.0
            return
        key.weight.copy_(told[: key.out_features])  # fewer heads, where some share their keys
        if key.bias is not None:
            key.bias.zero_()
        if query.bias is not None:
            query.weight.zero_()
            query.bias.copy_(every)
        else:  # whatever the last position reads makes its query
            last = dark[-1]
            query.weight.copy_(torch.outer(every, last / last.norm() ** 2))


def read(module: nn.Module, run: Callable[[], Any]) -> torch.Tensor:
    """What a module reads first while something runs, position by position ``[position, size]``."""
    seen: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        run()
    hook.remove()
    return seen[0].reshape(-1, seen[0].shape[-1])
