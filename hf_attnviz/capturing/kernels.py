"""What a fused kernel was really given: its arguments and its log-sum-exp, read where torch hands them to it.

Whoever calls ``scaled_dot_product_attention`` gets the output alone. Below it, after masks were converted and the
backend was chosen, stands one operator that has a second result, the log-sum-exp of each row. A dispatch mode around
the call sees that operator at work; what it computes is not touched.

What holds of them in torch 2.6 to 2.13, read off ``scaled_dot_product_attention`` (ATen/native/transformers/
attention.cpp), its CUDA and cuDNN kernels, and the registrations of their shapes (torch/_meta_registrations.py):

======================= ================== =========================================== ================================
operator                mask               log-sum-exp, natural, in float32            what stands above the operator
======================= ================== =========================================== ================================
flash, CPU              additive           [batch, head, query]                        nothing
flash, CUDA             none               [batch, head, query]; +inf: sees nothing    pads query, key and value to a
                                                                                       multiple of 8 numbers a head
                                                                                       with zeros, gives the scale of
                                                                                       the true size, cuts the output
efficient               additive, expanded [batch, head, query filled up to 32], or    pads the mask's memory
                        to four axes       [batch, head, 0] where no gradient is due
cuDNN                   additive; -65504   [batch, head, query, 1] (2.6: no last       turns boolean masks into 0 and
                        says never         axis), or none where no gradient is due     -65504, whatever the dtype
fused, overrideable     additive           [batch, head, query]                        nothing
======================= ================== =========================================== ================================

``is_causal`` is from the top left in all: flash takes it for square calls only. Heads that share keys come unexpanded.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hf_attnviz.reducing.ran import Ran

_WHOLE: Final = "aten::scaled_dot_product_attention"
_KERNELS: Final = {  # the operator below it, and where in its results the log-sum-exp stands
    "aten::_scaled_dot_product_flash_attention_for_cpu": 1,
    "aten::_scaled_dot_product_flash_attention": 1,
    "aten::_scaled_dot_product_efficient_attention": 1,
    "aten::_scaled_dot_product_cudnn_attention": 1,
    "aten::_scaled_dot_product_fused_attention_overrideable": 1,
}

_NEVER: Final = {"aten::_scaled_dot_product_cudnn_attention": -65504.0}  # bfloat16 rounds it to -65536


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True  # such as flex_attention uncompiled: they go on as they are

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """What a model has compiled runs compiled all the same; nothing in it is seen."""
        return True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Ran] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.name().partition(".")[0]
        if name == _WHOLE:  # under inference mode the call comes here in one piece
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if name in _KERNELS:
            given = dict(zip((one.name for one in func._schema.arguments), args, strict=False)) | dict(kwargs)
            self.seen.append(_ran(given, result, _KERNELS[name], _NEVER.get(name)))
        return result


def _ran(given: Mapping[str, Any], result: tuple[Any, ...], place: int, never: float | None = None) -> Ran:
    query, key = given["query"].detach(), given["key"].detach()
    mask, lse, scale = given.get("attn_mask", given.get("attn_bias")), result[place], given.get("scale")
    queries = query.shape[2]
    if isinstance(lse, Tensor) and lse.dim() == 4 and lse.shape[3] == 1:
        lse = lse[..., 0]
    known = isinstance(lse, Tensor) and lse.dim() == 3 and lse.shape[2] >= queries
    if mask is not None and never is not None:
        mask = mask.masked_fill(mask <= never, -torch.inf)
    return Ran(
        query=query,
        key=key,
        value=given["value"].detach(),
        output=result[0].detach().transpose(1, 2),
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        mask=None if mask is None else mask.detach()[(None,) * (4 - mask.dim())],
        causal=bool(given.get("is_causal", False)),
        lse=lse.detach()[:, :, :queries] if known else None,  # a kernel may keep it, or fill it up
    )


@contextmanager
def watched() -> Iterator[Callable[[], Ran | None]]:
    """Inside, kernels of torch are seen at work; what comes gives the one that ran, or None: none, or several."""
    watch = _Watch()
    with watch:
        yield lambda: watch.seen[0] if len(watch.seen) == 1 else None
