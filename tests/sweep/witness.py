"""An independent witness of how much attention runs in a plain forward: it counts torch's kernels, below all hooks.

It shares no code and no mechanism with the package: it stands in torch's dispatcher, where ``softmax`` is
``aten::_softmax`` and a product ``aten::bmm``, and follows the memory of what a softmax gave.
"""

from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_FUSED: Final = {
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention", "_flash_attention_forward",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_fused_attention_overrideable",
    "_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_scaled_dot_product_cudnn_attention",
}  # fmt: skip
_SOFTMAX: Final = {"_softmax", "_safe_softmax"}
_PRODUCT: Final = {"bmm", "baddbmm"}
_CUT: Final = {"slice", "narrow", "split", "select"}


class Witness(TorchDispatchMode):
    """Counts while it is on.

    Attributes:
        kernels: fused attention kernels.
        products: softmaxes whose result went into a product of matrices.
        sums: softmaxes whose result was multiplied with something larger and summed.
        softmaxes: all softmaxes, whatever became of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.products = self.sums = self.softmaxes = 0
        self._held: list[torch.Tensor] = []  # alive, so that no address comes back for other data
        self._weights: dict[int, int] = {}
        self._spread: dict[int, int] = {}
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and look at it."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, torch.Tensor)]
        if name in _FUSED:
            self.kernels += 1
        elif name in _SOFTMAX:
            self.softmaxes += 1
            self._mark(self._weights, result, self.softmaxes)
        elif name in _PRODUCT:
            self.products += self._once([self._weights.get(_address(t)) for t in tensors])
        elif name == "sum":
            self.sums += self._once([self._spread.get(_address(t)) for t in tensors])
        else:
            self._follow(name, tensors, result)
        return result

    def _once(self, origins: list[int | None]) -> bool:
        fresh = [one for one in origins if one is not None and one not in self._counted]
        self._counted.update(fresh)
        return bool(fresh)

    def _follow(self, name: str, tensors: list[torch.Tensor], result: Any) -> None:
        for source in tensors:
            for known in (self._weights, self._spread):
                origin = known.get(_address(source))
                if origin is None:
                    continue
                for made in result if isinstance(result, (list, tuple)) else [result]:
                    if not isinstance(made, torch.Tensor) or not made.is_floating_point():
                        continue
                    if made.numel() == source.numel() or name in _CUT or name == "expand":
                        self._mark(known, made, origin)
                    elif name == "mul" and made.numel() > source.numel():
                        self._mark(self._spread, made, origin)

    def _mark(self, known: dict[int, int], tensor: torch.Tensor, origin: int) -> None:
        self._held.append(tensor)
        known[_address(tensor)] = origin


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else -1
