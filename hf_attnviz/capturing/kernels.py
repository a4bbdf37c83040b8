"""What a fused kernel was really given: its arguments and its log-sum-exp, read where torch hands them to it.

Whoever calls ``scaled_dot_product_attention`` gets the output alone. Below it, after masks were converted and the
backend was chosen, stands one operator that has a second result, the log-sum-exp of each row. A dispatch mode around
the call sees that operator at work; what it computes is not touched.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

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
            self.seen.append(_ran(given, result, _KERNELS[name]))
        return result


def _ran(given: Mapping[str, Any], result: tuple[Any, ...], place: int) -> Ran:
    query, key = given["query"].detach(), given["key"].detach()
    mask, lse, scale = given.get("attn_mask", given.get("attn_bias")), result[place], given.get("scale")
    queries = query.shape[2]
    known = isinstance(lse, Tensor) and lse.dim() == 3 and lse.shape[2] >= queries
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
