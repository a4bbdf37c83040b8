"""The interface observer: attention functions that a model asks transformers' AttentionInterface for.

The model is handed the function it asked for, wrapped. The function itself computes the output, so the output has
the same bits; beside it, the model's *own* eager function (which the model passes as the default) gives the weights
for the same query, key and arguments: learned sinks, soft-caps, position biases, groups and windows are in it. Only
the mask has to be turned into the additive form that eager functions read. What comes out is believed only if the
kernel's own output confirms it.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn
from transformers.modeling_utils import AttentionInterface

from hf_attnviz.capturing import kernels, scope, steering
from hf_attnviz.capturing.gradients import Gradient, agreed, hindrance, led_by_gradient, precisely
from hf_attnviz.capturing.proof import Candidate, Proved, attending_rows, prove
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text, told
from hf_attnviz.reducing.outline import Outline
from hf_attnviz.reducing.ran import Ran

Result = tuple[torch.Tensor, torch.Tensor | None]
AttentionFunction = Callable[..., Result]

_EAGER: Final = "the model's own eager function"
_RETURNED: Final = "returned by the kernel"
_FORWARD: Final = "the model's own eager function, run as the forward"
_NAMES: Final = ("query", "key", "value", "attention_mask")
_NO_WEIGHTS: Final = Text("the eager function returned no weights", "eager 函数没有返回权重")
_lock = threading.Lock()
_original: Callable[..., Any] | None = None
_users = 0


def install() -> None:
    """Begin to watch; installed once, however many recordings are open."""
    global _original, _users
    with _lock:
        _users += 1
        if _original is None:
            _original = AttentionInterface.get_interface
            AttentionInterface.get_interface = _watching(_original)


def remove() -> None:
    """Stop watching when the last recording closes; transformers is then as it was."""
    global _original, _users
    with _lock:
        _users -= 1
        if _users == 0 and _original is not None:
            AttentionInterface.get_interface = _original
            _original = None


def _watching(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_interface(self: Any, attn_implementation: str, default: Any = None) -> Any:
        function = original(self, attn_implementation, default)
        if function is None or torch.compiler.is_compiling() or not (scope.sessions() or steering.active()):
            return function
        return _observed(function, default, attn_implementation)

    return get_interface


def _observed(function: AttentionFunction, eager: AttentionFunction | None, implementation: str) -> AttentionFunction:
    @functools.wraps(function)
    def attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        lane = scope.lane(module)
        if lane is not None:
            result: Result = function(module, *args, **kwargs)
            lane.take(dict(zip(_NAMES, args, strict=False)) | kwargs, result[0])
            return result
        listening = scope.listeners(module)
        for session in scope.sessions():
            session.recording.expect(session, module)
        edited = steering.wanted(listening)
        with scope.deaf():
            if not listening and not edited:
                return function(module, *args, **kwargs)
            tiled = any(session.recording.tiled for session in listening)
            call = _Call(function, eager, implementation or "eager", module, args, kwargs, tiled)
            differentiated = any(one.recording.differentiates(one, module, call.outline) for one in listening)
            went_on, truth = call.run(differentiated)
            mixed = call.mixed(went_on, truth) if edited else None
            after = None if mixed is None else steering.steered(module, mixed, listening)
            for session in listening:
                see = functools.partial(call.seen, truth, session.recording.exact)
                session.recording.receive(session, module, see if after is None else after.seeing(see))
            call.forget()
        return went_on if mixed is None or after is None else (after.put(went_on[0]), went_on[1])

    return attention


class _Call:
    """One call of an attention function, with its arguments found by name whether they came by place or by name."""

    def __init__(
        self,
        function: AttentionFunction,
        eager: AttentionFunction | None,
        implementation: str,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tiled: bool,
    ) -> None:
        self.function, self.eager, self.implementation = function, eager, implementation
        self.module, self.args, self.kwargs = module, args, kwargs
        given = dict(zip(_NAMES, args, strict=False)) | dict(kwargs)
        # A call without them is for the model to judge; what we miss is told where problems of ours are.
        self.query: Any = given.get("query")
        self.key: Any = given.get("key")
        self.value: Any = given.get("value")
        self.mask = given.get("attention_mask")
        self._cached: dict[bool, Seen] = {}
        self._gradient: Gradient | None = None
        self._watched: torch.Tensor | None = None
        self._tiled = tiled
        self._ran: Ran | None = None

    def run(self, gradients: bool) -> tuple[Result, Result]:
        """The call, as the model asked for it: what it goes on with, and what its kernel gives.

        They are one unless gradients are wanted; then the eager function runs, and the two differ by rounding.
        """
        if not gradients:
            result = self._as_it_is()
            return result, result
        eager, dropout = self.eager, bool(self.kwargs.get("dropout")) and self.module.training
        replaced = self.function is not eager
        self._gradient = Gradient(hindrance(dropout=dropout, replaced=replaced))
        readable = self.mask is None or (isinstance(self.mask, torch.Tensor) and self.mask.dim() == 4)
        if not self._gradient.reason and (eager is None or (replaced and not readable)):
            self._gradient.reason = Text(
                f'{self.implementation} has no eager function for this mask; load the model as "sdpa"',
                f'{self.implementation} 没有适用于此掩码的 eager 函数；请以 "sdpa" 加载模型',
            )
        if self._gradient.reason or eager is None:
            result = self._as_it_is()
            return result, result
        query = led_by_gradient(self.query, self.key)
        if not replaced:
            result = self._run(eager, self.value, self.mask, query=query)
            self._watch(result[1])
            return result, result
        try:
            return self._replaced(eager, query)
        except Exception as problem:  # a twin that cannot run here, or gives something else: the kernel goes on
            self._gradient.reason = told(problem)
            result = self._as_it_is()
            return result, result

    def _as_it_is(self) -> Result:
        with steering.paused(), kernels.watched() if self._tiled else nullcontext() as ran:
            result: Result = self.function(self.module, *self.args, **self.kwargs)
        self._ran = None if ran is None else self._own(ran(), result[0])
        return result

    def _own(self, ran: Ran | None, output: torch.Tensor) -> Ran | None:
        """The kernel's call, when it did this call's work: its output is judged as the model goes on with it."""
        if ran is None or not self.query.dim() == self.key.dim() == 4:
            return None
        heads, queries, keys = self.query.shape[1], self.query.shape[2], self.key.shape[2]
        if queries == 1:
            ran = ran.unpacked(heads)
        if ran.causal and ran.shape[2] == ran.shape[3] < keys:  # keys that lie ahead of all rows were cut off
            ran = replace(ran, key=self.key.detach(), value=self.value.detach())
        if tuple(ran.shape) != (max(len(self.query), len(self.key)), heads, queries, keys):
            return None
        shaped = self._shaped(output.detach())
        return replace(ran, output=shaped, value=ran.value[..., : shaped.shape[-1]])  # some kernels are given padding

    def _replaced(self, eager: AttentionFunction, query: torch.Tensor) -> tuple[Result, Result]:
        """The eager function's output, its weights watched, with whatever else the kernel returns; and the kernel's."""
        with precisely(query) as dtype:
            value, query, key = (tensor.to(dtype) for tensor in (self.value, query, self.key))
            output, weights = self._run(eager, value, self._additive_mask(), query=query, key=key)
        with torch.no_grad():
            truth = self._as_it_is()
        shaped = agreed(
            self._shaped(output),
            self._shaped(truth[0]),
            attending_rows(self.mask),
            lambda: self._shaped(self._as_it_is()[0]),
            self.value,
        )
        self._watch(weights)
        return (shaped.reshape(truth[0].shape), truth[1]), truth

    def _watch(self, weights: torch.Tensor | None) -> None:
        assert self._gradient is not None
        self._watched = weights
        if weights is None:
            self._gradient.reason = _NO_WEIGHTS
        else:
            self._gradient.watch(weights, lambda gradient: gradient.to(self.query.dtype))

    def mixed(self, result: Result, truth: Result) -> steering.Mixed:
        """What goes on through the model, head by head."""
        see = functools.partial(self.seen, truth, False)
        return steering.Mixed(
            self._shaped(result[0]), self.key.shape[2], see, masked=functools.partial(self._masked, see)
        )

    def _masked(self, see: Callable[[], Seen], forbidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The output and the weights of the eager function with these forbidden, where it gave the weights seen."""
        eager, plain = self.eager, self.function is self.eager
        readable = self.mask is None or (isinstance(self.mask, torch.Tensor) and self.mask.dim() == 4)
        if eager is None or not readable or not (plain or see().proved.way == _EAGER):
            return None
        lowest, mask = torch.finfo(self.query.dtype).min, self._additive_mask()
        free = torch.zeros((), dtype=self.query.dtype, device=self.query.device) if mask is None else mask
        free = free if free.dim() == 0 else free[..., : forbidden.shape[-1]]
        masked = torch.where(forbidden, lowest, free)
        with torch.no_grad(), _same_numbers(self.query.device):
            output, weights = self._run(eager, self.value, masked)
        if weights is None:
            return None
        attends = (masked > lowest / 2).any(-1)
        put = self._shaped(output).masked_fill(~attends.transpose(1, 2)[..., None], 0)
        return put, weights.masked_fill(~attends[..., None], 0)

    def seen(self, result: tuple[torch.Tensor, torch.Tensor | None], exact: bool) -> Seen:
        """The weights of this call, proved; worked out once for all recordings that listen."""
        if exact not in self._cached:
            if self.kwargs.get("cache") is not None:
                raise CaptureError(
                    Text(
                        "continuous batching keeps many sequences in one paged cache; capture plain generate()",
                        "连续批处理把许多序列放在同一个分页缓存中；请捕获普通的 generate()",
                    )
                )
            prove, vectors = functools.partial(self._prove, result, exact), functools.partial(self._vectors, result[0])
            gradient = self._gradient
            fused = self.implementation not in ("eager", "sdpa")
            told = self.outline()
            self._cached[exact] = Seen(prove, self.implementation, vectors, False, gradient, self._ran, fused, told)
        return self._cached[exact]

    def forget(self) -> None:
        """What was seen refers to the call, and the call to it: such a ring would hold its tensors for long."""
        self._cached.clear()

    def outline(self) -> Outline:
        """What the call will be like, before anything is made of it."""
        query, key = self.query, self.key
        shape = (max(len(query), len(key)), *query.shape[1:3], key.shape[2])
        causal = bool(self.kwargs.get("is_causal", getattr(self.module, "is_causal", False))) and shape[2] > 1
        return Outline(shape, query.element_size(), query.shape[-1], key.shape[1], causal=causal, device=query.device)

    def _prove(self, result: tuple[torch.Tensor, torch.Tensor | None], exact: bool) -> Proved:
        with torch.no_grad(), _same_numbers(self.query.device):
            return self._proved(result, exact)

    def _proved(self, result: tuple[torch.Tensor, torch.Tensor | None], exact: bool) -> Proved:
        dropped = bool(self.kwargs.get("dropout")) and self.module.training
        output = self._kernel(self.value) if dropped else self._shaped(result[0])
        proved = prove(
            self._candidates(None if dropped else result[1]),
            self._kernel,
            self.value,
            output,
            attending_rows(self.mask),
            exact=exact,
        )
        if self._gradient is not None and self._watched is not None and proved.way not in (_FORWARD, _RETURNED):
            self._gradient.reason = Text(
                "the weights that the eager function returns are not those that it uses",
                "eager 函数返回的权重不是它所用的权重",
            )
        return proved

    def _vectors(self, result: torch.Tensor) -> Mapping[str, torch.Tensor]:
        scaling = self.kwargs.get("scaling")
        scaling = self.query.shape[-1] ** -0.5 if scaling is None else scaling
        query = self.query.detach() * scaling
        output = self._shaped(result.detach()).transpose(1, 2)
        return {"query": query, "key": self.key.detach(), "value": self.value.detach(), "output": output}

    def _candidates(self, returned: torch.Tensor | None) -> Iterator[Candidate]:
        heads, queries = self.query.shape[1:3]
        if self._watched is not None:
            watched = self._watched
            yield _FORWARD, lambda: watched.detach().to(self.query.dtype, copy=True)
        if (
            isinstance(returned, torch.Tensor)
            and returned.dim() == 4
            and tuple(returned.shape[1:3]) == (heads, queries)
        ):
            yield _RETURNED, lambda: returned.detach().clone()  # the model may go on to change its own
        eager = self.eager
        if eager is not None and (self.mask is None or (isinstance(self.mask, torch.Tensor) and self.mask.dim() == 4)):
            yield _EAGER, lambda: self._eager_weights(eager)

    def _eager_weights(self, eager: AttentionFunction) -> torch.Tensor:
        weights: torch.Tensor | None = self._run(eager, self.value, self._additive_mask())[1]
        if weights is None:
            raise CaptureError(_NO_WEIGHTS)
        return weights

    def _kernel(self, value: torch.Tensor) -> torch.Tensor:
        """The kernel as it ran, on another V and without dropout."""
        return self._shaped(self._run(self.function, value, self.mask)[0])

    def _run(
        self, function: AttentionFunction, value: torch.Tensor, mask: Any, **others: torch.Tensor
    ) -> tuple[torch.Tensor, Any]:
        new = {"value": value, "attention_mask": mask} | others
        args = [new.get(name, old) for name, old in zip(_NAMES, self.args, strict=False)] + list(self.args[4:])
        kwargs = {name: new.get(name, old) for name, old in self.kwargs.items()}
        if mask is not None and len(args) < len(_NAMES):
            kwargs["attention_mask"] = mask
        if "dropout" in kwargs:
            kwargs["dropout"] = 0.0
        with scope.deaf(), steering.paused():
            result: tuple[torch.Tensor, Any] = function(self.module, *args, **kwargs)
        return result

    def _shaped(self, output: torch.Tensor) -> torch.Tensor:
        heads, queries = self.query.shape[1:3]
        batch = max(len(self.query), len(self.key))  # one set of queries may serve a batch of keys
        return output.reshape(batch, queries, heads, -1)

    def _additive_mask(self) -> torch.Tensor | None:
        """The mask as eager functions read it: added to the scores."""
        lowest = torch.finfo(self.query.dtype).min
        mask = self.mask
        if self.implementation == "eager":
            return mask
        if mask is None:
            queries, keys = self.query.shape[2], self.key.shape[2]
            if queries == 1 or not self._causal():
                return None
            mask = torch.ones(queries, keys, dtype=torch.bool, device=self.query.device).tril()[None, None]
        if mask.dtype == torch.bool:
            zero = torch.zeros((), dtype=self.query.dtype, device=mask.device)
            return torch.where(mask, zero, lowest)
        return mask

    def _causal(self) -> bool:
        asked = self.kwargs.get("is_causal")
        return bool(getattr(self.module, "is_causal", True) if asked is None else asked)


def _same_numbers(device: torch.device) -> AbstractContextManager[None]:
    """Afterwards the stream of random numbers is where it was: a kernel run again may draw some of its own accord."""
    devices = [] if device.type == "cpu" else [device]
    forked: AbstractContextManager[None] = torch.random.fork_rng(
        devices, device_type=device.type if devices else "cuda"
    )
    return forked
