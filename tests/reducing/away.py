"""A second device where there is none: tensors that say they are elsewhere, and meet only their like.

The numbers stay in ordinary tensors behind them. An operation that mixes the two devices raises, as it would there, and
each time the program waits for a number is written down.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

THERE = torch.device("lazy", 0)  # a name that every torch knows, with nothing behind it
ATEN = torch.ops.aten
WAITS = {ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.equal.default}


class Away(torch.Tensor):
    """A tensor on the other device."""

    behind: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> "Away":
        size, lies = real.shape, (real.stride(), real.storage_offset())
        return torch.Tensor._make_wrapper_subclass(cls, size, *lies, dtype=real.dtype, device=THERE)

    def __init__(self, real: torch.Tensor) -> None:
        self.behind = real

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} ran outside TwoDevices")


class TwoDevices(TorchDispatchMode):
    """Inside, what is made on the other device is made there; ``waits`` names the operations that were waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        away = any(isinstance(one, Away) for one in tensors)
        moves = func in (ATEN._to_copy.default, ATEN.copy_.default)
        strange = [one for one in tensors if not isinstance(one, Away) and one.dim()]
        if away and strange and not moves:
            raise RuntimeError(f"{func} mixes devices: {[(tuple(one.shape), one.device) for one in tensors]}")
        asked = kwargs.get("device")
        there = away if asked is None else torch.device(asked).type == THERE.type
        if away and (func in WAITS or (moves and not (there and isinstance(args[0], Away)))):
            self.waits.append(str(func))
        if asked is not None and there:
            kwargs["device"] = torch.device("cpu")
        known = {id(one.behind): one for one in tensors if isinstance(one, Away)}
        result = func(*tree_map(_real, args), **tree_map(_real, kwargs))
        return tree_map(lambda one: known[id(one)] if id(one) in known else _away(one), result) if there else result


def _real(one: Any) -> Any:
    return one.behind if isinstance(one, Away) else one


def _away(one: Any) -> Any:
    return Away(one) if isinstance(one, torch.Tensor) else one
