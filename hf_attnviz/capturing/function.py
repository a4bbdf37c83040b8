"""The function observer: attention that a model computes by itself, seen in the functions it calls.

A softmax whose result flows into a product with the values *is* an attention map; ``scaled_dot_product_attention`` is
one that keeps its weights to itself. A torch function mode sees both without changing what is computed. The operand
of the product is taken as it stands at that moment, so it is exact by construction; weights of
``scaled_dot_product_attention`` are proved like those of the interface.
"""

import functools
import inspect
import types
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.proof import Proved, attending_rows, prove
from hf_attnviz.capturing.seen import Seen

_SOFTMAX: Final = frozenset({"softmax", "_softmax"})
_PRODUCT: Final = frozenset({"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm"})
_SDPA: Final = "scaled_dot_product_attention"

# Python functions of torch that would run unseen, because the mode is off while they run: they are run from their
# own code with the check for modes taken out, so that what they call inside is seen.
_COMPOSITE: Final = {"multi_head_attention_forward": F.multi_head_attention_forward}


@dataclass(eq=False)
class _Origin:
    """Where a tensor comes from: a softmax, perhaps through dropout (then ``clean`` is the tensor before it)."""

    clean: torch.Tensor | None = None


@dataclass(eq=False)
class _Traced:
    """The tensors that come from a softmax, by identity, as long as they live."""

    found: dict[int, tuple["weakref.ref[torch.Tensor]", _Origin]] = field(default_factory=dict)

    def get(self, tensor: object) -> _Origin | None:
        entry = self.found.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def put(self, tensor: torch.Tensor, origin: _Origin) -> None:
        self.found[id(tensor)] = (weakref.ref(tensor), origin)


class FunctionObserver(TorchFunctionMode):
    """Sees the torch functions called in this thread while a session is open."""

    def __init__(self) -> None:
        super().__init__()
        self._traced = _Traced()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func`` as it is, and look at it when it is one of ours."""
        kwargs = kwargs or {}
        if not scope.sessions():
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _COMPOSITE:
            with self:
                return _opened(_COMPOSITE[name])(*args, **kwargs)
        result = func(*args, **kwargs)
        if name == _SDPA:
            self._sdpa(func, args, kwargs, result)
        elif name in _SOFTMAX and isinstance(result, torch.Tensor):
            self._traced.put(result, _Origin())
        elif self._traced.found:
            if name in _PRODUCT:
                self._product(name, args, kwargs)
            else:
                self._follow(name, args, kwargs, result)
        return result

    def _follow(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """A view, a cast, a dropout, a masking of something that comes from a softmax comes from it too."""
        source = next(
            (a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor) and self._traced.get(a)), None
        )
        if source is None or not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return
        origin = self._traced.get(source)
        assert origin is not None
        if "dropout" in name and result is not source:
            self._traced.put(result, _Origin(clean=origin.clean if origin.clean is not None else source))
        elif result.numel() == source.numel():
            clean = origin.clean
            self._traced.put(
                result, _Origin(clean if clean is None or clean.shape == result.shape else clean.view_as(result))
            )

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        operands = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        left, right = operands[-2:] if name != "__rmatmul__" else (operands[1], operands[0])
        origin = self._traced.get(left)
        if origin is None or left.dim() < 3 or left.shape[-1] != right.shape[-2]:
            return
        module = scope.innermost()
        if module is None:
            return
        for session in scope.listeners(module):
            weights = (left if origin.clean is None else origin.clean).detach().clone()
            seen = Seen(_by_construction(_batched(weights, session)), f"softmax + {name}")
            session.recording.receive(session, module, functools.partial(_same, seen))

    def _sdpa(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        module = scope.innermost()
        if module is None:
            return
        for session in scope.listeners(module):
            see = functools.partial(_sdpa_seen, func, args, kwargs, result, session.recording.exact)
            session.recording.receive(session, module, see)


def _same(seen: Seen) -> Seen:
    return seen


def _by_construction(weights: torch.Tensor) -> Proved:
    return Proved(weights, torch.zeros(()), 0.0, "exact", "operand of the product with the values")


def _batched(weights: torch.Tensor, session: scope.Session) -> torch.Tensor:
    """``[batch · head, query, key]`` as ``[batch, head, query, key]``, where the batch is known to divide it."""
    if weights.dim() != 3:
        return weights
    current = session.current
    batch = len(current.ids) if current is not None and current.ids is not None else 1
    return weights.reshape(batch, -1, *weights.shape[1:]) if len(weights) % batch == 0 else weights[:, None]


_SDPA_NAMES: Final = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def _sdpa_seen(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: torch.Tensor, exact: bool
) -> Seen:
    given = dict(zip(_SDPA_NAMES, args, strict=False)) | dict(kwargs)
    query, key, value = (given[name] for name in ("query", "key", "value"))
    rest = {name: given[name] for name in _SDPA_NAMES[3:] if name in given} | {"dropout_p": 0.0}
    lead = query.shape[:-3] if query.dim() > 3 else ()

    def flat(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.dim() == 4 else tensor.reshape(-1, *tensor.shape[-3:]) if lead else tensor[:, None]

    def kernel(v: torch.Tensor) -> torch.Tensor:
        with scope.deaf(), torch.no_grad():
            out = func(query, key, v.reshape(*value.shape[:-1], v.shape[-1]), **rest)
        return flat(out).transpose(1, 2)

    mask = rest.get("attn_mask")

    def formula() -> torch.Tensor:
        scale = rest.get("scale") or query.shape[-1] ** -0.5
        keys = flat(key).repeat_interleave(flat(query).shape[1] // flat(key).shape[1], dim=1)
        scores = flat(query) @ keys.transpose(-1, -2) * scale
        if rest.get("is_causal"):
            scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights: torch.Tensor = scores.softmax(-1)
        return weights

    with torch.no_grad(), scope.deaf():
        output = kernel(value) if given.get("dropout_p") else flat(result).transpose(1, 2)
        candidates = [("softmax of the scores", formula)] if mask is None or mask.dim() == query.dim() == 4 else []
        proved = prove(candidates, kernel, flat(value), output, attending_rows(mask), exact=exact)
    scaled = flat(query) * (rest.get("scale") or query.shape[-1] ** -0.5)
    vectors = {"query": scaled.detach(), "key": flat(key).detach(), "value": flat(value).detach()}
    return Seen(proved, "scaled_dot_product_attention", vectors)


def _opened(function: Any) -> Callable[..., Any]:
    """The function's own code, without its question whether a mode is on (which would send it round in circles)."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    opened = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    opened.__kwdefaults__ = inspect.unwrap(function).__kwdefaults__
    return opened
