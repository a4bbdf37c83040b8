"""A norm with its statistics held fast, read from what it does: no name of a parameter, no epsilon is asked for.

It is given zeros (out comes its bias), a constant (out comes nothing more, if it subtracts the mean) and numbers of
known mean and spread (out comes its weight). What it divided each row by is then the one number a row that explains
what it gave; that it explains all of the row is the proof.
"""

import re
from typing import Final

import torch
from torch import nn

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.doors import replayed
from hf_attnviz.capturing.proof import tolerance
from hf_attnviz.decomposition import HeldNorm
from hf_attnviz.errors import ProofError
from hf_attnviz.language import Text

_LARGE: Final = 1024.0  # beside its square, any epsilon is nothing
_NORM: Final = re.compile(r"Norm|(^|_)LN", re.IGNORECASE)


def is_norm(module: nn.Module | None) -> bool:
    """Whether a module says by its class that it is a norm; what has modules inside only names one."""
    if module is None or any(True for _ in module.children()):
        return False
    return _NORM.search(type(module).__name__) is not None


def held(module: nn.Module, given: torch.Tensor, put: torch.Tensor, real: torch.Tensor) -> HeldNorm:
    """The norm as it acted on ``given``, in float64; its scale is ``[batch, query]``.

    Args:
        module: the norm.
        given, put: what it was given, and what it made of it, ``[batch, query, width]``.
        real: which rows are no padding, ``[batch, query]``.

    Raises:
        ProofError: it does something else than centre, scale, weigh and shift.
    """
    weight, bias, centred = _read(module, given)
    norm = HeldNorm(weight, bias, torch.ones(1), centred)
    direction, made = norm.direction(given.double()), put.double() - bias
    along = (direction * made).sum(-1)
    scale = (direction.square().sum(-1) / along).masked_fill(along == 0, 1.0)
    off = (direction / scale[..., None] - made).abs().amax(-1)[real].max()
    if not float(off) <= tolerance(put):
        raise ProofError(
            Text(
                f"{type(module).__name__} is no norm whose statistics can be held fast: minus its mean, over one "
                f"number a row, times a weight, plus a bias; its output is off by {float(off):.2g} from that",
                f"{type(module).__name__} 不是可以固定其统计量的归一化：减去平均、每行除以一个数、乘以权重、加上偏置；"
                f"它的输出与此相差 {float(off):.2g}",
            )
        )
    return HeldNorm(weight, bias, scale, centred)


def _read(module: nn.Module, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """The weight, the bias, and whether the mean is subtracted."""
    width = like.shape[-1]
    pattern = torch.ones(width, dtype=torch.float64)
    pattern[1::2] = -1

    def run(row: torch.Tensor) -> torch.Tensor:
        given = row.to(like).expand_as(like).contiguous()
        row_out: torch.Tensor = module.forward(given)[0, 0]
        return row_out.double()

    with torch.no_grad(), scope.deaf(), replayed(module):
        bias = run(torch.zeros(width))
        even, waves = run(torch.full((width,), _LARGE)) - bias, run(pattern * _LARGE) - bias
    pattern = pattern.to(waves.device)
    centred = bool(even.abs().max() < waves.abs().max() / 2)
    if centred:
        pattern = pattern - pattern.mean()
    return waves * pattern.square().mean().sqrt() / pattern, bias, centred
