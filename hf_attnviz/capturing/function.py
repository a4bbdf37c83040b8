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
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.proof import Proved, attending_rows, prove
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import CaptureError

_SOFTMAX: Final = frozenset({"softmax", "_softmax"})
_PRODUCT: Final = frozenset({"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm"})
_MULTIPLY: Final = frozenset({"mul", "multiply", "__mul__", "__rmul__"})
_CUT: Final = frozenset({"__getitem__", "narrow"})
_SDPA: Final = "scaled_dot_product_attention"
_ATTENDS: Final = frozenset({*_SOFTMAX, _SDPA})

# Python functions of torch that would run unseen, because the mode is off while they run: they are run from their
# own code with the check for modes taken out, so that what they call inside is seen.
_COMPOSITE: Final = {"multi_head_attention_forward": F.multi_head_attention_forward}
_MANY: Final = 256  # remembered tensors after which the dead ones are swept out


@dataclass(frozen=True, eq=False)
class _Origin:
    """Where a tensor comes from: a softmax.

    Attributes:
        shape: the shape that the softmax gave.
        clean: what the tensor would be without dropout, once there was some.
        weights: for a product with values that is not summed yet: the weights in it.
    """

    shape: torch.Size
    clean: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def undropped(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor``, which comes from here, as it would be without dropout."""
        return tensor if self.clean is None else self.clean


class FunctionObserver(TorchFunctionMode):
    """Sees the torch functions called in this thread while a session is open."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled = False
        self._heads: list[int] = []
        self._found: dict[int, tuple[weakref.ref[torch.Tensor], _Origin]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func`` as it is, and look at it when it is one of ours."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # compiled code passes us by; attention in it is told when the session ends
            self.compiled = self.compiled or getattr(func, "__name__", "") in _ATTENDS
            return func(*args, **kwargs)
        if not scope.sessions():
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _COMPOSITE:
            return self._open(name, args, kwargs)
        result = func(*args, **kwargs)
        try:
            self._look(name, func, args, kwargs, result)
        except Exception as problem:  # ours, and never the model's
            for session in scope.sessions():
                session.recording.blame(session, session.contexts[-1].module if session.contexts else None, problem)
        return result

    def _open(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        given = dict(zip(inspect.signature(_COMPOSITE[name]).parameters, args, strict=False)) | dict(kwargs)
        self._heads.append(int(given["num_heads"]))
        try:
            with self:
                return _opened(_COMPOSITE[name])(*args, **kwargs)
        finally:
            self._heads.pop()

    def _look(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        if name == _SDPA:
            for session in _listeners():
                see = functools.partial(_sdpa_seen, func, args, kwargs, result, session.recording.exact)
                session.recording.receive(session, session.contexts[-1].module, see)
        elif name in _SOFTMAX and isinstance(result, torch.Tensor):
            self._put(result, _Origin(result.shape))
        elif self._found:
            if name in _PRODUCT:
                self._product(name, args, kwargs)
            elif name == "einsum":
                self._einsum(args)
            elif name == "sum":
                self._sum(args, kwargs)
            elif not (name in _MULTIPLY and self._multiply(args, result)):
                self._follow(name, func, args, kwargs, result)

    # ---- what comes from a softmax

    def _get(self, tensor: object) -> _Origin | None:
        entry = self._found.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def _put(self, tensor: torch.Tensor, origin: _Origin) -> None:
        if len(self._found) > _MANY:
            self._found = {key: entry for key, entry in self._found.items() if entry[0]() is not None}
        self._found[id(tensor)] = (weakref.ref(tensor), origin)

    def _follow(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """A view, a cast, a dropout, a masking of something that comes from a softmax comes from it too."""
        source = next((a for a in (*args, *kwargs.values()) if self._get(a) is not None), None)
        if source is None or not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return
        if result.numel() != source.numel() and name not in _CUT:
            return
        origin = self._get(source)
        assert origin is not None
        if origin.weights is not None:
            return
        clean = origin.clean
        if "dropout" in name:
            clean = source if clean is None and result is not source else clean
        elif clean is not None:
            clean = self._replayed(name, func, args, kwargs, source, clean)
        self._put(result, replace(origin, clean=clean))

    def _replayed(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        source: torch.Tensor,
        clean: torch.Tensor,
    ) -> torch.Tensor:
        """What the function makes of the weights without dropout."""
        if name.endswith("_") and not name.endswith("__"):
            clean = clean.clone()  # it works in place, and the tensor may be the model's own
        with torch.no_grad(), scope.deaf():
            new_args = tuple(clean if a is source else a for a in args)
            result: torch.Tensor = func(*new_args, **{key: clean if a is source else a for key, a in kwargs.items()})
        return result

    # ---- products with the values

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        operands = [a for a in args if isinstance(a, torch.Tensor)]
        operands += [a for key, a in kwargs.items() if isinstance(a, torch.Tensor) and key != "out"]
        left, right = operands[-2:] if name != "__rmatmul__" else (operands[1], operands[0])
        if left.dim() != right.dim() or left.dim() < 3:
            return  # a matrix that serves every row is no set of values: soft embeddings, class probabilities
        for operand, turned in ((left, False), (right, True)):
            origin = self._get(operand)
            if origin is not None and origin.weights is None:
                weights = origin.undropped(operand)
                self._receive(weights.transpose(-1, -2) if turned else weights, origin, f"softmax + {name}")
                self._found.pop(id(operand), None)
                return

    def _einsum(self, args: tuple[Any, ...]) -> None:
        operands = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        if not isinstance(args[0], str) or len(operands) != 2:
            return
        place = next((n for n, operand in enumerate(operands) if self._get(operand) is not None), None)
        if place is None:
            return
        order = _order(args[0], place)
        origin = self._get(operands[place])
        if order is None or origin is None or origin.weights is not None:
            return
        with torch.no_grad(), scope.deaf():
            ordered = torch.einsum(order, origin.undropped(operands[place]))
        self._receive(ordered, origin, "softmax + einsum")
        self._found.pop(id(operands[place]), None)

    def _multiply(self, args: tuple[Any, ...], result: torch.Tensor) -> bool:
        """Weights ``[…, query, key, 1]`` times values that all queries share: attention, once summed over keys."""
        if len(args) != 2 or not all(isinstance(a, torch.Tensor) for a in args):
            return False
        for source, other in (args, args[::-1]):
            origin = self._get(source)
            if origin is None or origin.weights is not None or source.dim() < 4 or source.shape[-1] != 1:
                continue
            shared = other.dim() < 3 or (source.shape[-3] > 1 and other.shape[-3] == 1)
            if shared and result.numel() > source.numel():
                self._put(result, replace(origin, weights=origin.undropped(source).squeeze(-1)))
                return True
        return False

    def _sum(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        product = args[0] if args else kwargs.get("input")
        origin = self._get(product)
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        axis = axis[0] if isinstance(axis, (tuple, list)) and len(axis) == 1 else axis
        if origin is None or origin.weights is None or not isinstance(axis, int) or product is None:
            return
        if axis % product.dim() == product.dim() - 2:
            self._receive(origin.weights, origin, "softmax + multiply and sum")

    def _receive(self, weights: torch.Tensor, origin: _Origin, implementation: str) -> None:
        for session in _listeners():
            found = self._batched(weights.detach().clone(), origin, session)
            proved = Proved(found, torch.zeros(()), 0.0, "exact", "operand of the product with the values")
            seen = Seen(proved, implementation)
            session.recording.receive(session, session.contexts[-1].module, functools.partial(_same, seen))

    def _batched(self, weights: torch.Tensor, origin: _Origin, session: scope.Session) -> torch.Tensor:
        """``[batch · head, query, key]`` as ``[batch, head, query, key]``, where something says how many heads."""
        if weights.dim() != 3:
            return weights
        rows = len(weights)
        batch = session.current.batch if session.current is not None else None
        if len(origin.shape) == 4 and origin.shape[0] * origin.shape[1] == rows:
            batch = origin.shape[0]
        elif self._heads:
            batch = rows // self._heads[-1]
        return weights.reshape(batch, -1, *weights.shape[1:]) if batch and rows % batch == 0 else weights[:, None]


def _listeners() -> list[scope.Session]:
    """The sessions that want what happens in the module each of them is in."""
    return [s for s in scope.sessions() if s.contexts and s.recording.wants(s.contexts[-1].module)]


def _same(seen: Seen) -> Seen:
    return seen


def _order(equation: str, place: int) -> str | None:
    """An equation that brings the weights of ``weights,values->output`` into the order ``…, query, key``."""
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not output or len(terms) != 2:
        return None
    weights, values = terms[place], terms[1 - place]
    letters = weights.replace("...", "")
    keys = [c for c in letters if c in values and c not in output]
    queries = [c for c in letters if c in output and c not in values]
    if len(keys) != 1 or len(queries) != 1:
        return None
    others = "".join(c for c in letters if c not in (keys[0], queries[0]))
    lead = "..." if "..." in weights else ""
    return f"{weights}->{lead}{others}{queries[0]}{keys[0]}"


_SDPA_NAMES: Final = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def _sdpa_seen(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: torch.Tensor, exact: bool
) -> Seen:
    given = dict(zip(_SDPA_NAMES, args, strict=False)) | dict(kwargs)
    query, key, value = (given[name] for name in ("query", "key", "value"))
    rest = {name: given[name] for name in _SDPA_NAMES[3:] if name in given} | {"dropout_p": 0.0}
    mask, scale = rest.get("attn_mask"), rest.get("scale") or query.shape[-1] ** -0.5

    def four(tensor: torch.Tensor) -> torch.Tensor:
        """``[batch, head, position, size]``, whatever stood before the positions."""
        return tensor[:, None] if tensor.dim() == 3 else tensor.reshape(-1, *tensor.shape[-3:])

    def kernel(v: torch.Tensor) -> torch.Tensor:
        with scope.deaf(), torch.no_grad():
            out = func(query, key, v.reshape(*value.shape[:-1], v.shape[-1]), **rest)
        return four(out).transpose(1, 2)

    def formula() -> torch.Tensor:
        keys = four(key).repeat_interleave(four(query).shape[1] // four(key).shape[1], dim=1)
        scores = four(query) @ keys.transpose(-1, -2) * scale
        if rest.get("is_causal"):
            scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights: torch.Tensor = scores.softmax(-1)
        return weights

    if query.dim() < 3:
        raise CaptureError("scaled_dot_product_attention on two axes only; expected at least [batch, position, size]")
    with torch.no_grad(), scope.deaf():
        output = kernel(value) if given.get("dropout_p") else four(result).transpose(1, 2)
        candidates = [("softmax of the scores", formula)] if mask is None or query.dim() == 4 else []
        proved = prove(candidates, kernel, four(value), output, attending_rows(mask), exact=exact)

    def vectors() -> Mapping[str, torch.Tensor]:
        return {"query": four(query.detach()) * scale, "key": four(key.detach()), "value": four(value.detach())}

    return Seen(proved, _SDPA, vectors)


def _opened(function: Any) -> Callable[..., Any]:
    """The function's own code, without its question whether a mode is on (which would send it round in circles)."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    opened = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened
