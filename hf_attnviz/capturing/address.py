"""Where a module stands in a model: its stack, its block index, and whether it attends to itself or across."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing.families import (
    ATTENDS,
    ATTENTION_CLASS,
    CROSS_INPUTS,
    CROSS_NAMES,
    KNOWN_PACKAGES,
    NO_SEQUENCE,
    ORDER,
    STACK_OF_INPUT,
    STACK_OF_PACKAGE,
    STACK_OF_SEGMENT,
)
from hf_attnviz.errors import ArgumentError, UnknownNameError
from hf_attnviz.language import Text


@dataclass(frozen=True)
class Address:
    """The place of a module: its name, its stack and the index of its block (None outside any list of blocks)."""

    module: str
    stack: str
    layer: int | None


def addresses(target: nn.Module, whole: nn.Module | None = None) -> dict[int, Address]:
    """The address of each module of ``target``, by ``id(module)``; its name is that in ``whole``, around it."""
    names = {id(module): name for name, module in (whole or target).named_modules()}
    modules = dict(target.named_modules())
    places = {name: _block_path(name, modules) for name in modules}
    numbers: dict[str, dict[tuple[int, ...], int]] = {}
    for pattern, indices in places.values():
        numbers.setdefault(pattern, {}).setdefault(indices, len(numbers[pattern]))
    found = {}
    for name, module in modules.items():
        pattern, indices = places[name]
        # One list: its own index, so that a hybrid model keeps its numbering. Lists in lists: a running number.
        layer = None if not indices else indices[0] if len(indices) == 1 else numbers[pattern][indices]
        found[id(module)] = Address(names[id(module)], _stack(name, module, target), layer)
    if not of_transformers(target):  # those number their own blocks
        found |= _numbered([(found[id(module)], places[name], id(module)) for name, module in modules.items()], modules)
    return found


def _numbered(
    known: Sequence[tuple[Address, tuple[str, tuple[int, ...]], int]], modules: Mapping[str, nn.Module]
) -> dict[int, Address]:
    """Attending modules of one stack that stand in several lists of blocks: the lists are numbered on and on."""
    stacks: dict[str, dict[tuple[str, tuple[int, ...]], list[tuple[Address, int]]]] = {}
    for address, place, key in known:
        if address.layer is not None and ATTENTION_CLASS.search(type(modules[address.module]).__name__):
            stacks.setdefault(address.stack, {}).setdefault(place, []).append((address, key))
    new: dict[int, Address] = {}
    for blocks in stacks.values():
        if len({pattern for pattern, _ in blocks}) > 1:
            for number, place in enumerate(sorted(blocks, key=lambda place: _turn(place[0]))):
                new |= {key: replace(address, layer=number) for address, key in blocks[place]}
    return new


def of_transformers(target: nn.Module) -> bool:
    return hasattr(getattr(target, "config", None), "model_type")


def _turn(pattern: str) -> int:
    return next((turn for turn, name in enumerate(ORDER) if pattern.startswith(name)), len(ORDER))


def of_attention(target: nn.Module, places: Mapping[int, Address]) -> tuple[str, ...]:
    """The stacks in which modules attend, by their names; ``"cross"`` where one looks across."""
    modules = [m for m in target.modules() if id(m) in places and ATTENTION_CLASS.search(type(m).__name__)]
    stacks = dict.fromkeys(places[id(m)].stack for m in modules)
    names = (f"{places[id(m)].module}.{type(m).__name__}".lower() for m in modules)
    crosses = any(hint in name for name in names for hint in CROSS_NAMES)
    return (*stacks, "cross") if crosses else tuple(stacks)


def is_joint(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], shape: torch.Size) -> bool:
    """Whether the two sequences of a call attend as one: as many queries, and keys, as both have together."""
    given = [value for value in named_arguments(module, args, kwargs).values() if isinstance(value, torch.Tensor)]
    lengths = [value.shape[1] for value in given if value.dim() == 3 and not value.is_nested]
    return shape[-1] == shape[-2] and any(lengths[0] + other == shape[-1] for other in lengths[1:])


def checked_layers(
    model: nn.Module, places: dict[int, Address], layers: Sequence[int] | None
) -> tuple[frozenset[int] | None, bool]:
    """The layers to keep, and whether one module serves many blocks (then only its calls can be told apart)."""
    blocks = max((place.layer for place in places.values() if place.layer is not None), default=-1) + 1
    called = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    called = called if isinstance(called, int) else 0
    shared = 0 < blocks < called
    if layers is None:
        return None, shared
    if isinstance(layers, (str, int)) or not all(isinstance(layer, int) for layer in layers):
        raise ArgumentError(
            Text(
                f"layers={layers!r}: expected a list of block indices such as [0, 3]",
                f"layers={layers!r}：应为层号的列表，例如 [0, 3]",
            )
        )
    count = max(blocks, called) if shared else blocks
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong or not layers:
        known = Text("this model has no list of layers", "此模型没有层的列表")
        known = Text(f"this model has layers 0 to {count - 1}", f"此模型的层为 0 到 {count - 1}") if count else known
        raise UnknownNameError(Text(f"layers={list(layers)}: {known.en}", f"layers={list(layers)}：{known.zh}"))
    return frozenset(layers), shared


def model_name(model: nn.Module) -> str:
    """What to call a model: its hub id, the name of its folder, or its class."""
    name = str(getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__)
    return Path(name).name if Path(name).is_dir() else name  # whose folders these are is nobody's business


def is_cross(address: Address, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether this call of an attention module looks at another sequence than its own."""
    name = f"{address.module}.{type(module).__name__}".lower()
    if any(hint in name for hint in CROSS_NAMES):
        return True
    given = named_arguments(module, args, kwargs)
    own = next((value for value in given.values() if isinstance(value, torch.Tensor)), None)
    if any(isinstance(given.get(name), torch.Tensor) and given[name] is not own for name in CROSS_INPUTS):
        return True
    return of_users(module) and any(_is_sequence(name, value) and value is not own for name, value in given.items())


def of_users(module: nn.Module) -> bool:
    """Whether a module is written by somebody whose names for things we do not know."""
    return type(module).__module__.partition(".")[0] not in KNOWN_PACKAGES


def _is_sequence(name: str, value: Any) -> bool:
    tensor = isinstance(value, torch.Tensor) and not value.is_nested
    return tensor and value.dim() == 3 and value.is_floating_point() and NO_SEQUENCE.search(name.lower()) is None


@functools.cache
def parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a forward's parameters, without ``self``."""
    return tuple(inspect.signature(forward).parameters)[1:]


def named_arguments(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of ``module`` by name, whether they came by place or by name."""
    return dict(zip(parameters(type(module).forward), args, strict=False)) | dict(kwargs)


def block_of(name: str, target: nn.Module) -> str | None:
    """The name of the block that a module of ``target`` stands in, or None outside any list of blocks."""
    pattern, indices = _block_path(name, dict(target.named_modules()))
    numbers = map(str, indices)
    return ".".join(next(numbers) if part == "*" else part for part in pattern.split(".")) if indices else None


def _block_path(name: str, modules: Mapping[str, nn.Module]) -> tuple[str, tuple[int, ...]]:
    """The lists of blocks on the way to a module: their names with ``*`` for the index, and the indices."""
    parts = name.split(".")
    pattern: list[str] = []
    indices: list[int] = []
    for depth, part in enumerate(parts):
        parent = modules[".".join(parts[:depth])]
        if part.isdigit() and isinstance(parent, (nn.ModuleList, nn.Sequential)) and _is_block_list(parent, indices):
            indices.append(int(part))
            pattern = [*parts[:depth], "*"] if len(indices) == 1 else [*pattern, *parts[len(pattern) : depth], "*"]
    return ".".join(pattern), tuple(indices)


def blocks(target: nn.Module) -> frozenset[int]:
    """The modules that stand in a list of blocks, by ``id(module)``, as far as something in them may attend."""
    modules = dict(target.named_modules())
    found = set()
    for name in modules:
        parts, (pattern, indices) = name.split("."), _block_path(name, modules)
        if indices and parts[-1].isdigit() and pattern.endswith("*") and pattern.count(".") + 1 == len(parts):
            found.add(name)
    return frozenset(id(modules[name]) for name in found if _may_attend(modules[name]))


def _may_attend(module: nn.Module) -> bool:
    return any(ATTENDS.search(type(part).__name__) for part in module.modules())


def _is_block_list(parent: nn.Module, outer: Sequence[int]) -> bool:
    # Inside a block, a list of unlike parts (T5: self-attention, cross-attention, feed-forward) is no list of blocks.
    kinds = [type(child) for child in parent.children()]
    return not outer or len(set(kinds)) == 1 or len(set(kinds)) < len(kinds)


def _stack(name: str, module: nn.Module, target: nn.Module) -> str:
    parts = name.split(".")
    config = getattr(target, "config", None)
    if not of_transformers(target) or getattr(config, "is_encoder_decoder", False):
        for part in parts:
            if part in ("encoder", "decoder"):
                return part
    for part in parts:
        if part in STACK_OF_SEGMENT:
            return STACK_OF_SEGMENT[part]
    causal = getattr(module, "is_causal", None)
    if causal is None:
        causal = getattr(config, "is_decoder", False) or type(target).__name__.endswith("ForCausalLM")
    if causal:
        return "decoder"
    main = getattr(target, "main_input_name", "")
    package = type(target).__module__.partition(".")[0]
    return STACK_OF_INPUT.get(main if isinstance(main, str) else main[0], STACK_OF_PACKAGE.get(package, "encoder"))
