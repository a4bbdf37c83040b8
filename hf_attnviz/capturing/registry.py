"""Attention that no observer can see, told by the user: a class of modules, and a function that gives its weights.

Such a map is the user's own statement. It is graded ``"stated"``; ``"consistent"`` where the statement names values and
the product that the module made of them, and they agree; never ``"exact"``.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import torch
from torch import nn

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.proof import Proved, consistency, tolerance
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.errors import ArgumentError, CaptureError, ProofError, listed
from hf_attnviz.language import Text

Extract = Callable[[Any, Sequence[Any], Mapping[str, Any], Any], "torch.Tensor | Mapping[str, torch.Tensor]"]
"""``extract(module, args, kwargs, output)``: the weights of one call, or a dictionary that holds them."""

_NAMES: Final = ("weights", "query", "key", "value", "product")
_registered: dict[type[nn.Module], Extract] = {}


class Registration:
    """What :func:`register_attention` gives: ends with :meth:`unregister`, or as a ``with`` block does."""

    def __init__(self, module_class: type[nn.Module], extract: Extract) -> None:
        self.module_class, self.extract = module_class, extract

    def unregister(self) -> None:
        """From now on the class is what it was before. Calling it twice does no harm."""
        if _registered.get(self.module_class) is self.extract:
            del _registered[self.module_class]

    def __enter__(self) -> "Registration":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.unregister()


def register_attention(module_class: type[nn.Module], *, extract: Extract) -> Registration:
    """Say what the attention of a class of modules is, where the observers cannot see it.

    Inside such a module the observers are silent: what ``extract`` gives is what is recorded, graded ``"stated"``.

    Args:
        module_class: the class; its subclasses are meant too, unless they are registered themselves.
        extract: called as ``extract(module, args, kwargs, output)`` after each call of the module. Gives the weights
            ``[batch, head, query, key]``; or a dictionary with ``weights``, and where they are known ``query``
            ``[batch, head, query, size]`` (times the scaling), ``key`` and ``value`` ``[batch, head, key, size]``, and
            ``product`` ``[batch, head, query, size]``: what the module made of weights and values. With ``value`` and
            ``product`` the statement is checked and graded ``"consistent"``.

    Raises:
        ArgumentError: no class of modules, no function, or a class that is registered already.
    """
    if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
        raise ArgumentError(
            Text(
                f"expected a class of torch modules, such as type(model.attention); got {module_class!r}",
                f"应为 torch 模块的类，例如 type(model.attention)；得到 {module_class!r}",
            )
        )
    if not callable(extract):
        raise ArgumentError(
            Text(
                f"extract={extract!r}: expected a function extract(module, args, kwargs, output)",
                f"extract={extract!r}：应为函数 extract(module, args, kwargs, output)",
            )
        )
    if module_class in _registered:
        raise ArgumentError(
            Text(
                f"{module_class.__name__} is registered already; end that first with .unregister()",
                f"{module_class.__name__} 已经登记；请先用 .unregister() 结束它",
            )
        )
    _registered[module_class] = extract
    return Registration(module_class, extract)


def extract_of(module: nn.Module) -> Extract | None:
    """The function registered for a module's class, or for the nearest of its bases."""
    return next((_registered[base] for base in type(module).__mro__ if base in _registered), None)


def stated(extract: Extract, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> Seen:
    """What a user's function states about one call, checked as far as it can be; the model's random numbers stay.

    Raises:
        CaptureError: the function failed, or gave something else than weights.
        ProofError: values, weights and product do not agree.
    """
    devices = {parameter.device for parameter in module.parameters() if parameter.is_cuda}
    function, of = getattr(extract, "__qualname__", type(extract).__name__), type(module).__name__
    name = Text(f"{function} (registered for {of})", f"{function}（为 {of} 登记）")
    with torch.random.fork_rng(devices), torch.no_grad(), scope.deaf():
        try:
            given = extract(module, args, kwargs, output)
        except Exception as problem:
            what = f"{type(problem).__name__}: {problem}"
            raise CaptureError(Text(f"{name.en} failed: {what}", f"{name.zh} 出错：{what}")) from problem
        # Clones: the model may go on to change its own tensors.
        parts = {part: tensor.detach().clone() for part, tensor in _checked(name, given).items()}
        proved = _proved(name, parts)
    shown = ("query", "key", "value") if {"query", "key"} <= parts.keys() else ()
    return Seen(lambda: proved, "registered", lambda: {part: parts[part] for part in shown if part in parts})


def _checked(name: Text, given: Any) -> Mapping[str, torch.Tensor]:
    parts = given if isinstance(given, Mapping) else {"weights": given}
    unknown = [part for part in parts if part not in _NAMES]
    if unknown or "weights" not in parts:
        raise CaptureError(
            Text(
                f"{name.en} gave a dictionary with {listed(parts)}; expected weights, and maybe {_NAMES[1:]}",
                f"{name.zh} 给出的字典含有 {listed(parts, '无')}；应有 weights，另可有 {_NAMES[1:]}",
            )
        )
    for part, tensor in parts.items():
        axes = "[batch, head, query, key]" if part == "weights" else "[batch, head, position, size]"
        if not isinstance(tensor, torch.Tensor) or tensor.dim() != 4 or not tensor.is_floating_point():
            what = type(tensor).__name__
            what = f"{tuple(tensor.shape)} of {tensor.dtype}" if isinstance(tensor, torch.Tensor) else what
            raise CaptureError(
                Text(
                    f"{name.en} gave {part} as {what}; expected a floating-point tensor {axes}: "
                    "give a single head an axis of its own with tensor[:, None]",
                    f"{name.zh} 给出的 {part} 是 {what}；应为浮点张量 {axes}：单个头也请用 tensor[:, None] 给它一个轴",
                )
            )
    _check_sizes(name, {part: tuple(tensor.shape) for part, tensor in parts.items()})
    return parts


def _check_sizes(name: Text, shapes: Mapping[str, tuple[int, ...]]) -> None:
    batch, heads, queries, keys = shapes["weights"]
    for part, shape in shapes.items():
        positions = queries if part in ("query", "product", "weights") else keys
        fits = shape[0] == batch and shape[2] == positions and shape[1] > 0 and heads % shape[1] == 0
        if not fits or (part == "product" and shape[1] != heads):
            raise CaptureError(
                Text(
                    f"{name.en} gave {part} {shape} with weights {shapes['weights']}; expected "
                    f"({batch}, {heads}, {positions}, …)",
                    f"{name.zh} 给出的 {part} 为 {shape}，权重为 {shapes['weights']}；应为 ({batch}, {heads}, "
                    f"{positions}, …)",
                )
            )


def _proved(name: Text, parts: Mapping[str, torch.Tensor]) -> Proved:
    weights = parts["weights"]
    if not {"value", "product"} <= parts.keys():
        unknown = torch.full((), float("nan"))
        return Proved(weights, unknown, float("nan"), "stated", f"stated by {name.en}, not proved")
    error = consistency(weights, parts["value"], parts["product"].transpose(1, 2))
    bound = tolerance(parts["value"])
    if not float(error) <= bound:
        raise ProofError(
            Text(
                f"{name.en}: weights · value differ from the product it names by {float(error):.2g}",
                f"{name.zh}：权重 · 值 与它所说的 product 相差 {float(error):.2g}",
            )
        )
    return Proved(weights, error, bound, "consistent", f"stated by {name.en}, agrees with its product")
