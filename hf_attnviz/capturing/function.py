"""The function observer: attention that a model computes by itself, seen in the functions it calls.

A softmax whose result flows into a product with the values *is* an attention map; ``scaled_dot_product_attention`` is
one that keeps its weights to itself. A torch function mode sees both without changing what is computed. The operand
of the product is taken as it stands at that moment, so it is exact by construction; weights of
``scaled_dot_product_attention`` are proved like those of the interface.
"""

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.arranging import Arrange, as_matrix, batched, first_of_last, one_query, order_of, ordered_by
from hf_attnviz.capturing.families import ATTENDS, HEADS, SLICED, no_map
from hf_attnviz.capturing.following import JOINED, PARTED, joined, parted, written
from hf_attnviz.capturing.gradients import UNFINISHED, Gradient, Watched, hindrance, in_the_graph
from hf_attnviz.capturing.origin import DIVIDE, MULTIPLY, SOFTMAX, Known, Origin, begun, one_axis
from hf_attnviz.capturing.proof import Proved
from hf_attnviz.capturing.runs import Pass
from hf_attnviz.capturing.sdpa import SDPA, named, sdpa_seen
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import CaptureError

_PRODUCT: Final = frozenset({"matmul", "__matmul__", "__rmatmul__", "linalg_matmul", "bmm", "baddbmm", "mm", "mv"})
_RESIZE: Final = frozenset({"__getitem__", "narrow", "expand", "expand_as", "repeat", "pad"})
_ATTENDS: Final = SOFTMAX | {SDPA}
_MIXES: Final = _ATTENDS | _PRODUCT | {"einsum", "grid_sample", "conv1d", "cumsum", "fftn"}

# Python functions of torch that would run unseen, because the mode is off while they run: they are run from their
# own code with the check for modes taken out, so that what they call inside is seen.
_COMPOSITE: Final = {"multi_head_attention_forward": F.multi_head_attention_forward}


class FunctionObserver(TorchFunctionMode):
    """Sees the torch functions called in this thread while a session is open."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled = False
        self._heads: list[int] = []
        self._found, self._features = Known[Origin](), Known[int]()

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
        result = truth = func(*args, **kwargs)
        watched: Watched | None = None
        try:
            if name == SDPA and any(session.recording.gradients for session in _listeners()):
                result, watched = in_the_graph(named(args, kwargs), truth)
            self._look(name, func, args, kwargs, truth, watched)
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
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,
        watched: Watched | None,
    ) -> None:
        if name in _MIXES:
            for session in scope.sessions():
                for context in session.contexts:
                    context.mixed = True
        if name == SDPA:
            for session in _listeners():
                see = functools.partial(sdpa_seen, func, args, kwargs, result, session.recording.exact, watched)
                session.recording.receive(session, session.contexts[-1].module, see)
            return
        tensor = isinstance(result, torch.Tensor)
        origin = begun(name, args, kwargs, result, self._found.get) if tensor else None
        if origin is not None:
            routes = name in SOFTMAX and self._routes(args, kwargs, result)
            self._found.put(result, replace(origin, routes=True) if routes else origin)
        elif self._found:
            if name in _PRODUCT:
                self._product(name, args, kwargs, result)
            elif name == "einsum":
                self._einsum(args)
            elif name == "sum":
                self._sum(args, kwargs)
            elif name in JOINED:
                joined(func, args, kwargs, result, self._found)
            elif name in PARTED:
                parted(func, args, kwargs, result, self._found)
            elif not (name in MULTIPLY and self._multiply(args, result)) and not self._divide(name, args):
                self._follow(name, func, args, kwargs, result)
        self._follow_features(name, args, result)

    # ---- what comes from a linear layer: its last axis is made of features, and is no row of positions

    def _follow_features(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name == "linear":
            self._features.put(result, result.shape[-1])
        elif self._features and args and name not in _PRODUCT and self._features.get(args[0]) is not None:
            result = result[0] if name == "topk" else result
            same = isinstance(result, torch.Tensor) and result.numel() == args[0].numel()
            if name == "topk" or (same and result.shape[-1:] == args[0].shape[-1:]):
                self._features.put(result, result.shape[-1])

    def _routes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: torch.Tensor) -> bool:
        """Whether a softmax is over the features of a linear layer."""
        axis = one_axis(args, kwargs)
        last = axis is not None and axis % result.dim() == result.dim() - 1
        return last and bool(args) and self._features.get(args[0]) == result.shape[-1]

    # ---- what comes from a softmax

    def _follow(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """A view, a cast, a dropout, a masking of something that comes from a softmax comes from it too."""
        source = next((a for a in (*args, *kwargs.values()) if self._found.get(a) is not None), None)
        if source is None or not isinstance(result, torch.Tensor) or not result.is_floating_point():
            if source is not None and name == "__setitem__":
                self._set(func, args, source)
            return
        if result.numel() != source.numel() and name not in _RESIZE:
            return
        origin = self._found.get(source)
        assert origin is not None
        if origin.factor is not None or (origin.stage != "weights" and "dropout" in name):
            return
        clean = origin.clean
        if "dropout" in name:
            clean = source if clean is None and result is not source else clean
        elif clean is not None:
            clean = self._replayed(name, func, args, kwargs, source, clean)
        self._found.put(result, replace(origin, clean=clean))

    def _set(self, func: Callable[..., Any], args: tuple[Any, ...], source: torch.Tensor) -> None:
        """Weights that are written into: what they would be without dropout is written into too."""
        if isinstance(args[-1], torch.Tensor) and self._found.get(args[-1]) is not None:
            written(func, args, self._found)
            return
        origin = self._found.get(source)
        if origin is None or origin.clean is None or args[0] is not source:
            return
        clean = origin.clean.clone()
        with torch.no_grad(), scope.deaf():
            func(clean, *args[1:])
        self._found.put(source, replace(origin, clean=clean))

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

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: torch.Tensor) -> None:
        operands = [a for a in args if isinstance(a, torch.Tensor)]
        operands += [a for key, a in kwargs.items() if isinstance(a, torch.Tensor) and key != "out"]
        left, right = operands[-2:] if name != "__rmatmul__" else (operands[1], operands[0])
        most = max(left.dim(), right.dim())
        if (left.dim() != right.dim() or most < 3) and not (most == 2 and _in_attention()):
            return  # a matrix that serves every row is no set of values: soft embeddings, class probabilities
        for operand, turned in ((left, False), (right, True)):
            origin = self._found.get(operand)
            if origin is None or origin.factor is not None:
                continue
            arrange = functools.partial(as_matrix, turned=turned)
            if origin.stage == "weights":
                self._receive(operand, arrange, origin, f"softmax + {name}")
                self._found.forget(operand)
            elif origin.stage == "exp" and not turned:
                self._found.put(result, replace(origin, stage="mixed", factor=(operand, arrange)))
            return

    def _divide(self, name: str, args: tuple[Any, ...]) -> bool:
        """A product of exp and values, divided by the total of exp only now."""
        if name not in DIVIDE or len(args) != 2:
            return False
        mixed, total = (self._found.get(a) for a in args)
        if mixed is None or total is None or (mixed.stage, total.stage) != ("mixed", "total"):
            return False
        if mixed.root is not total.root or mixed.factor is None:
            return False
        operand, arrange = mixed.factor
        self._receive(operand, lambda exp: arrange(exp) / args[1], mixed, "exp, product, division", UNFINISHED)
        return True

    def _einsum(self, args: tuple[Any, ...]) -> None:
        operands = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        if not isinstance(args[0], str) or len(operands) != 2:
            return
        place = next((n for n, operand in enumerate(operands) if self._found.get(operand) is not None), None)
        if place is None:
            return
        order = order_of(args[0], place)
        origin = self._found.get(operands[place])
        if order is None or origin is None or origin.factor is not None or origin.stage != "weights":
            return
        if order.endswith("?") and origin.routes and not _in_attention():
            return  # one query for each row of the batch, and so may a router look
        self._receive(operands[place], functools.partial(ordered_by, order), origin, "softmax + einsum")
        self._found.forget(operands[place])

    def _multiply(self, args: tuple[Any, ...], result: torch.Tensor) -> bool:
        """Weights ``[…, key, 1]`` times values: attention, once summed over keys."""
        if len(args) != 2 or not all(isinstance(a, torch.Tensor) for a in args):
            return False
        for source, other in (args, args[::-1]):
            origin = self._found.get(source)
            if origin is None or origin.factor is not None or origin.stage != "weights" or source.dim() < 3:
                continue
            single = source.shape[-1] == 1 or source.stride(-1) == 0
            if not single or result.shape[-1] == 1:
                continue
            shared = source.dim() > 3 and (other.dim() < 3 or (source.shape[-3] > 1 and other.shape[-3] == 1))
            if shared or _is_alone(source, other, origin):
                self._found.put(result, replace(origin, factor=(source, first_of_last), alone=not shared))
                return True
        return False

    def _sum(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        product = args[0] if args else kwargs.get("input")
        origin, axis = self._found.get(product), one_axis(args, kwargs)
        if product is None or origin is None or origin.factor is None or origin.stage != "weights" or axis is None:
            return
        self._found.forget(product)
        (operand, arrange), axis = origin.factor, axis % product.dim()
        if origin.alone and axis < operand.dim() - 1:  # [batch, key], [batch, head, key], or in another order
            if origin.axis is not None and operand.shape[axis] > origin.shape[origin.axis]:
                return  # a softmax over something else than what is summed
            arrange = functools.partial(one_query, arrange, axis)
        elif axis != product.dim() - 2:
            return
        why = UNFINISHED if operand.shape[-1] > 1 else ""
        self._receive(operand, arrange, origin, "softmax + multiply and sum", why)

    def _receive(
        self, operand: torch.Tensor, arrange: Arrange, origin: Origin, implementation: str, unwatched: str = ""
    ) -> None:
        """Weights, as ``arrange`` reads them from an operand; ``unwatched`` says why it shows no gradient of theirs."""
        for session in _listeners():
            module = session.contexts[-1].module
            what = no_map(module, origin.axis)
            if what is not None:
                session.recording.note_other(session, module, what)
                continue
            if SLICED in type(getattr(module, "processor", None)).__name__:
                raise CaptureError(
                    "attention is computed in slices of the batch, which cannot be put together; expected it whole. "
                    "Turn slicing off: pipe.disable_attention_slicing()"
                )
            if origin.piece:
                raise CaptureError(
                    "weights are cut along the queries, and each piece meets the values by itself; expected all "
                    "rows of a map at once. Say what the weights are with av.register_attention"
                )
            with torch.no_grad(), scope.deaf():
                ordered = arrange(origin.undropped(operand).detach())
            if origin.single and ordered.shape[-1] > 1:
                continue  # ones for every key: that softmax was over something else
            batch = self._batch(ordered, origin, session)
            proved = Proved(
                batched(ordered, batch).clone(),
                torch.zeros(()),
                0.0,
                "exact",
                "operand of the product with the values",
            )
            gradient = None
            if session.recording.gradients:
                gradient = Gradient(unwatched or hindrance(dropout=origin.clean is not None, replaced=False))
                if not gradient.reason:
                    gradient.watch(operand, functools.partial(_flowing, arrange, batch))
            seen = Seen(proved, implementation, gradient=gradient)
            session.recording.receive(session, module, functools.partial(_same, seen))

    def _batch(self, weights: torch.Tensor, origin: Origin, session: scope.Session) -> int | None:
        """The batch in ``[batch · head, query, key]``, where something says how many heads."""
        rows, one = len(weights), session.current
        batch = one.batch if one is not None else None
        if len(origin.shape) == 4 and origin.shape[0] * origin.shape[1] == rows:
            batch = origin.shape[0]
        elif self._heads:
            batch = rows // self._heads[-1]
        elif (heads := _own_heads(session.contexts[-1].module)) and rows % heads == 0:
            batch = rows // heads
        elif origin.shape[:-1] == (rows,) or (one is not None and _time_first(one, weights.shape)):
            batch = rows
        elif one is not None and _either_first(one, weights.shape):
            raise CaptureError(
                f"weights {list(weights.shape)} of inputs [{one.batch}, {one.second}, …]: which of the two is the "
                "batch cannot be told. Choose another batch size, or say it with av.register_attention"
            )
        return batch if batch and rows % batch == 0 else None


def _own_heads(module: torch.nn.Module) -> int | None:
    """How many heads a module says that it has."""
    said = (getattr(module, name, None) for name in HEADS)
    return next((heads for heads in said if isinstance(heads, int) and heads > 0), None)


def _is_alone(weights: torch.Tensor, values: torch.Tensor, origin: Origin) -> bool:
    """Whether weights ``[…, key, 1]`` that multiply values of just that shape may be attention with one query.

    So it is beside an RNN; but a gate or a router looks alike. With more axes than batch and key only a name tells.
    """
    same = weights.shape[:-1] == values.shape[:-1]
    return same and (_in_attention() or (weights.dim() == 3 and not origin.routes))


def _in_attention() -> bool:
    """Whether the innermost module under way says by its name that it attends."""
    return any(s.contexts and ATTENDS.search(type(s.contexts[-1].module).__name__) for s in scope.sessions())


def _time_first(one: Pass, shape: torch.Size) -> bool:
    """Whether weights ``[batch, query, key]`` belong to inputs ``[position, batch, …]``."""
    return shape[0] == one.second and one.batch in shape[1:] and one.second not in shape[1:]


def _either_first(one: Pass, shape: torch.Size) -> bool:
    """Whether weights ``[batch · head, query, key]`` may as well belong to inputs ``[position, batch, …]``."""
    if not one.batch or not one.second or one.batch == one.second:
        return False
    both = shape[0] % one.batch == 0 and shape[0] % one.second == 0
    return both and one.batch in shape[1:] and one.second not in shape[1:]


def _listeners() -> list[scope.Session]:
    """The sessions that want what happens in the module each of them is in."""
    open_ones = [s for s in scope.sessions() if s.contexts and not s.stated]
    return [s for s in open_ones if s.recording.wants(s.contexts[-1].module)]


def _flowing(arrange: Arrange, batch: int | None, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient of an operand, arranged as its weights are."""
    with scope.deaf():
        return batched(arrange(gradient), batch)


def _same(seen: Seen) -> Seen:
    return seen


def _opened(function: Any) -> Callable[..., Any]:
    """The function's own code, without its question whether a mode is on (which would send it round in circles)."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    opened = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened
