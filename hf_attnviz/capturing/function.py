"""The function observer: attention that a model computes by itself, seen in the functions it calls.

A softmax whose result flows into a product with the values *is* an attention map; ``scaled_dot_product_attention`` is
one that keeps its weights to itself. A torch function mode sees both without changing what is computed. The operand
of the product is taken as it stands at that moment, so it is exact by construction; weights of
``scaled_dot_product_attention`` are proved like those of the interface.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode

from hf_attnviz.capturing import kernels, scope, steering
from hf_attnviz.capturing.arranging import (
    Arrange,
    Placed,
    as_matrix,
    batched,
    first_of_last,
    four,
    one_query,
    order_of,
    ordered_by,
)
from hf_attnviz.capturing.composite import COMPOSITE, opened
from hf_attnviz.capturing.families import ATTENDS
from hf_attnviz.capturing.following import JOINED, PARTED, joined, parted, written
from hf_attnviz.capturing.gradients import UNFINISHED, Watched, in_the_graph
from hf_attnviz.capturing.origin import DIVIDE, MULTIPLY, SOFTMAX, Known, Origin, begun, one_axis
from hf_attnviz.capturing.products import Product, batch_of, checked, gradient_of, other_than_attention
from hf_attnviz.capturing.proof import Proved
from hf_attnviz.capturing.sdpa import SDPA, differentiated, named, sdpa_seen
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.language import Text
from hf_attnviz.reducing.ran import Ran

_PRODUCT: Final = frozenset({"matmul", "__matmul__", "__rmatmul__", "linalg_matmul", "bmm", "baddbmm", "mm", "mv"})
_RESIZE: Final = frozenset({"__getitem__", "narrow", "expand", "expand_as", "repeat", "pad"})
_ATTENDS: Final = SOFTMAX | {SDPA}
_MIXES: Final = _ATTENDS | _PRODUCT | {"einsum", "grid_sample", "conv1d", "cumsum", "fftn"}


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
        if not scope.sessions() and not steering.active():
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _ATTENDS or name in COMPOSITE:
            scope.note_by_hand()
        if name in COMPOSITE:
            return self._open(name, args, kwargs)
        if name == SDPA and any(session.recording.tiled for session in scope.innermost_listeners()):
            with kernels.watched() as watching:
                result = truth = func(*args, **kwargs)
            ran = watching()
        else:
            result = truth = func(*args, **kwargs)
            ran = None
        watched: Watched | None = None
        try:
            if name == SDPA and differentiated(scope.innermost_listeners(), args, kwargs):
                result, watched = in_the_graph(named(args, kwargs), truth)
            if name == SDPA:
                result = self._kernel(func, args, kwargs, result, truth, watched, ran)
            else:
                result = self._look(name, func, args, kwargs, result)
        except Exception as problem:  # ours, and never the model's
            for session in scope.sessions():
                session.recording.blame(session, session.contexts[-1].module if session.contexts else None, problem)
        return result

    def _open(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        given = dict(zip(inspect.signature(COMPOSITE[name]).parameters, args, strict=False)) | dict(kwargs)
        self._heads.append(int(given["num_heads"]))
        try:
            with self:
                return opened(COMPOSITE[name])(*args, **kwargs)
        finally:
            self._heads.pop()

    def _look(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,
    ) -> Any:
        """Look at what a function gave; what the model goes on with is the same, unless somebody intervenes."""
        if name in _MIXES:
            scope.note_mixing()
        tensor = isinstance(result, torch.Tensor)
        origin = begun(name, args, kwargs, result, self._found.get) if tensor else None
        if origin is not None:
            scope.note_by_hand()
            routes = name in SOFTMAX and self._routes(args, kwargs, result)
            self._found.put(result, replace(origin, routes=True) if routes else origin)
        elif self._found:
            if name in _PRODUCT:
                result = self._product(name, args, kwargs, result)
            elif name == "einsum":
                result = self._einsum(args, result)
            elif name == "sum":
                result = self._sum(args, kwargs, result)
            elif name in JOINED:
                joined(func, args, kwargs, result, self._found)
            elif name in PARTED:
                parted(func, args, kwargs, result, self._found)
            elif name in DIVIDE and self._divides(args):
                result = self._divide(args, result)
            elif not (name in MULTIPLY and self._multiply(args, result)):
                self._follow(name, func, args, kwargs, result)
        self._follow_features(name, args, result)
        return result

    def _kernel(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: torch.Tensor,
        truth: torch.Tensor,
        watched: Watched | None,
        ran: Ran | None,
    ) -> torch.Tensor:
        """A call of ``scaled_dot_product_attention``: ``result`` goes on, ``truth`` is what the kernel gave."""
        scope.note_mixing()
        listening = scope.innermost_listeners()
        see = functools.partial(sdpa_seen, func, args, kwargs, truth, watched=watched, ran=ran)
        after = None
        if steering.wanted(listening):
            before = steering.Mixed(
                four(result).transpose(1, 2), named(args, kwargs)["key"].shape[-2], lambda: see(False)
            )
            module = scope.all_sessions()[-1].contexts[-1].module
            after = steering.steered(module, before, listening)
        for session in listening:
            seen = functools.partial(see, session.recording.exact)
            session.recording.receive(session, session.contexts[-1].module, after.seeing(seen) if after else seen)
        return result if after is None else after.put(result, lambda output: output.transpose(1, 2))

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

    def _product(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: torch.Tensor
    ) -> torch.Tensor:
        operands = [a for a in args if isinstance(a, torch.Tensor)]
        operands += [a for key, a in kwargs.items() if isinstance(a, torch.Tensor) and key != "out"]
        left, right = operands[-2:] if name != "__rmatmul__" else (operands[1], operands[0])
        most = max(left.dim(), right.dim())
        if (left.dim() != right.dim() or most < 3) and not (most == 2 and _in_attention()):
            return result  # a matrix that serves every row is no set of values: soft embeddings, class probabilities
        for operand, values, turned in ((left, right, False), (right, left, True)):
            origin = self._found.get(operand)
            if origin is None or origin.factor is not None:
                continue
            arrange = functools.partial(as_matrix, turned=turned)
            if origin.stage == "weights":
                product = Product(result, Placed.of_matrix(turned), values)
                result = self._receive(operand, arrange, origin, f"softmax + {name}", product=product)
                self._found.forget(operand)
            elif origin.stage == "exp" and not turned:
                self._found.put(result, replace(origin, stage="mixed", factor=(operand, arrange)))
            return result
        return result

    def _divides(self, args: tuple[Any, ...]) -> bool:
        """Whether a product of exp and values is divided by the total of exp only now."""
        mixed, total = (self._found.get(a) for a in args) if len(args) == 2 else (None, None)
        if mixed is None or total is None or (mixed.stage, total.stage) != ("mixed", "total"):
            return False
        return mixed.root is total.root and mixed.factor is not None

    def _divide(self, args: tuple[Any, ...], result: torch.Tensor) -> torch.Tensor:
        mixed = self._found.get(args[0])
        assert mixed is not None
        assert mixed.factor is not None
        operand, arrange = mixed.factor
        product = Product(result, Placed.of_matrix(False))
        way = "exp, product, division"
        return self._receive(
            operand, lambda exp: arrange(exp) / args[1], mixed, way, unwatched=UNFINISHED, product=product
        )

    def _einsum(self, args: tuple[Any, ...], result: torch.Tensor) -> torch.Tensor:
        operands = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        if not isinstance(args[0], str) or len(operands) != 2:
            return result
        place = next((n for n, operand in enumerate(operands) if self._found.get(operand) is not None), None)
        if place is None:
            return result
        order = order_of(args[0], place)
        origin = self._found.get(operands[place])
        if order is None or origin is None or origin.factor is not None or origin.stage != "weights":
            return result
        if order.endswith("?") and origin.routes and not _in_attention():
            return result  # one query for each row of the batch, and so may a router look
        placed = Placed.of_einsum(args[0], place)
        product = Product(result, placed, operands[1 - place])
        arrange = functools.partial(ordered_by, order)
        result = self._receive(operands[place], arrange, origin, "softmax + einsum", product=product)
        self._found.forget(operands[place])
        return result

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

    def _sum(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: torch.Tensor) -> torch.Tensor:
        product = args[0] if args else kwargs.get("input")
        origin, axis = self._found.get(product), one_axis(args, kwargs)
        if product is None or origin is None or origin.factor is None or origin.stage != "weights" or axis is None:
            return result
        self._found.forget(product)
        (operand, arrange), axis = origin.factor, axis % product.dim()
        if origin.alone and axis < operand.dim() - 1:  # [batch, key], [batch, head, key], or in another order
            if origin.axis is not None and operand.shape[axis] > origin.shape[origin.axis]:
                return result  # a softmax over something else than what is summed
            arrange = functools.partial(one_query, arrange, axis)
        elif axis != product.dim() - 2:
            return result
        why = UNFINISHED if operand.shape[-1] > 1 else None
        return self._receive(
            operand, arrange, origin, "softmax + multiply and sum", unwatched=why, product=Product(result)
        )

    def _receive(
        self,
        operand: torch.Tensor,
        arrange: Arrange,
        origin: Origin,
        implementation: str,
        *,
        product: Product,
        unwatched: Text | None = None,
    ) -> torch.Tensor:
        """Weights, as ``arrange`` reads them from an operand; gives what the model goes on with.

        Args:
            product: what they were multiplied to.
            unwatched: why the operand shows no gradient of theirs.
        """
        listening = [session for session in scope.innermost_listeners() if not other_than_attention(session, origin)]
        inner = listening or scope.all_sessions()[-1:]
        if not listening and not steering.active():
            return product.result
        for session in listening:
            checked(session, origin)
        with torch.no_grad(), scope.deaf():
            ordered = arrange(origin.undropped(operand).detach())
        if origin.single and ordered.shape[-1] > 1:
            return product.result  # ones for every key: that softmax was over something else
        heads = self._heads[-1] if self._heads else None
        found: list[tuple[Seen, int | None]] = []
        for session in inner:
            batch = batch_of(ordered, origin, session, heads)
            way = "operand of the product with the values"
            proved = Proved(batched(ordered, batch).clone(), torch.zeros(()), 0.0, "exact", way)
            seen = Seen(functools.partial(_same, proved), implementation, functools.partial(product.vectors, batch))
            found.append((seen, batch))
        result, after = product.result, None
        if steering.wanted(listening):
            seen, batch = found[-1]
            result, after = product.steered(batch, seen, listening)
        for session, (seen, batch) in zip(listening, found, strict=False):
            if session.recording.gradients:
                seen = replace(seen, gradient=gradient_of(operand, arrange, origin, batch, unwatched))
            see = functools.partial(_same, seen)
            module = session.contexts[-1].module
            session.recording.receive(session, module, see if after is None else after.seeing(see))
        return result


def _is_alone(weights: torch.Tensor, values: torch.Tensor, origin: Origin) -> bool:
    """Whether weights ``[…, key, 1]`` that multiply values of just that shape may be attention with one query.

    So it is beside an RNN; but a gate or a router looks alike. With more axes than batch and key only a name tells.
    """
    same = weights.shape[:-1] == values.shape[:-1]
    return same and (_in_attention() or (weights.dim() == 3 and not origin.routes))


def _in_attention() -> bool:
    """Whether the innermost module under way says by its name that it attends."""
    return any(s.contexts and ATTENDS.search(type(s.contexts[-1].module).__name__) for s in scope.sessions())


def _same(known: Any) -> Any:
    return known
