"""The fused pass in plain PyTorch: the same numbers, everywhere, and slower."""

import torch
from torch import Tensor


def fused(
    scores: Tensor,
    scale: float,
    mask: Tensor | None,
    lse: Tensor,
    counted: Tensor,
    apart: Tensor,
    first: int,
    limit: int,
    entropy: Tensor,
    distance: Tensor,
    sink: Tensor,
    mass: Tensor,
    received: Tensor,
    write: bool,
) -> None:
    """Scores ``[row, key]``, which it overwrites, into sums, and with ``write`` into weights, in place.

    Or of several heads at once: ``[head, row, key]``, and so all that differs between heads.

    mask: ``[row, key]`` or None. counted: ``[row]``, 1 or 0. apart: ``[row, key]``, how many places lie between. first,
    limit: as in :func:`hf_attnviz.reducing.fused_numba.fused`.
    """
    bent = scores.mul_(scale).sub_(lse[..., None])
    if mask is not None:
        bent = bent.add_(mask).clamp_(min=-87.0)
    if limit >= 0:
        rows, keys = bent.shape[-2:]
        start = min(limit + 1, keys)
        bent[..., start:].masked_fill_(_ahead(rows, keys - start, bent.device), -1e4)
    weights = torch.exp(bent)
    torch.neg(_dotted(weights, bent), out=entropy)
    distance.copy_(_dotted(weights, apart))
    torch.sum(weights, dim=-1, out=mass)
    even = torch.where(mass > 0.5, mass, 1.0).reciprocal_()
    shares = counted * even
    alone = weights.dim() == 2 and weights.device.type == "cpu"
    received += shares @ weights if alone else (weights * shares[..., None]).sum(-2)
    if 0 <= first < weights.shape[-1]:
        sink.copy_(weights[..., first])
    if write:
        torch.mul(weights, even[..., None], out=scores)


def _dotted(weights: Tensor, other: Tensor) -> Tensor:
    """The sum over keys of the products: on accelerators without their matrix units, which may round to ten bits."""
    return torch.linalg.vecdot(weights, other) if weights.device.type == "cpu" else (weights * other).sum(-1)


def _ahead(rows: int, keys: int, device: torch.device) -> Tensor:
    """Which keys lie ahead of their row: row r sees the first r of them."""
    return torch.arange(keys, device=device) >= torch.arange(rows, device=device)[:, None]
