"""What a capture hands out for one sequence: attention maps with labels, in stacks, and their file.

A trace never changes. Padding is gone from it, decoding steps are joined, beams are in the order of the sequence
that was returned.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from hf_attnviz.decomposition import Decomposition, description_of, tensors_of
from hf_attnviz.errors import NotKeptError, ShapeError, UnknownNameError, UnknownStackError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.storage import write_archive

FORMAT: Final = "hf_attnviz.trace"
VERSION: Final = 3  # 2: parts and cells of labels, where in a pipeline's inputs a trace belongs; 3: decompositions
LAYOUT: Final = ("head", "query", "key")
_TENSORS: Final = ("weights", "query_vectors", "key_vectors", "gradient")


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The attention of one layer for one sequence.

    Attributes:
        weights: ``[head, query, key]``; rows over keys, as they ran.
        queries, keys: labels of the rows and of the columns.
        stack: where the block stands: ``"encoder"``, ``"decoder"``, ``"vision"`` …
        layer: the block's index in its stack.
        index: which map of this module it is (a module may compute several).
        kind: ``"self"`` or ``"cross"``.
        module: the attention module's name in ``model.named_modules()``.
        steps: the decoding step in which each row came (0 for a plain pass and for the prompt).
        positions: the key position at which each row stands; None for cross-attention.
        produced: the token that each row put out, None for a prompt's rows before its last; None for plain passes.
        error: the proof: the largest deviation from what the kernel computed (see :mod:`hf_attnviz.capturing`); NaN for
            a map that is not proved, but stated by a user.
        query_vectors: ``[head, query, size]``, times the model's scaling; None unless ``keep`` has ``Vectors``.
        key_vectors: ``[key_value_head, key, size]``: a query times its group's key is the score before mask and bias.
        layout: the axes of ``weights``; anything but head, query, key is the model's own (blocks, windows), and
            such a map is neither stacked nor drawn.
        gradient: d(scalar)/d(weights), shaped like ``weights``; None unless captured with ``gradients=True`` and read
            after ``backward()``.
        decomposition: of what the layer's output is made; None unless ``keep`` has ``"contributions"``.
        undecomposed: why that is not known, though it was asked for.
    """

    weights: torch.Tensor
    queries: Labels
    keys: Labels
    stack: str
    layer: int
    index: int = 0
    kind: str = "self"
    module: str = ""
    steps: tuple[int, ...] = ()
    positions: tuple[int, ...] | None = None
    produced: tuple[str | None, ...] | None = None
    error: float = float("nan")
    query_vectors: torch.Tensor | None = None
    key_vectors: torch.Tensor | None = None
    layout: tuple[str, ...] = LAYOUT
    gradient: torch.Tensor | None = None
    decomposition: Decomposition | None = None
    undecomposed: str = ""

    def __post_init__(self) -> None:
        expected = (len(self.queries), len(self.keys))
        if self.weights.dim() != len(self.layout) or tuple(self.weights.shape[-2:]) != expected:
            raise ShapeError(
                f"{self.module}: expected weights [{', '.join(self.layout)}] with {expected[0]} queries and "
                f"{expected[1]} keys, got {tuple(self.weights.shape)}"
            )
        if self.gradient is not None and self.gradient.shape != self.weights.shape:
            raise ShapeError(
                f"{self.module}: expected a gradient shaped like the weights, {tuple(self.weights.shape)}, got "
                f"{tuple(self.gradient.shape)}"
            )
        if self.decomposition is not None:
            self.decomposition.check(self.module, self.weights.shape)

    @property
    def heads(self) -> int:
        """How many heads the map has."""
        return int(self.weights.shape[0])

    def plain(self) -> "AttentionMap":
        """This map, when it is ``[head, query, key]``.

        Raises:
            ShapeError: it keeps a layout of the model's own (blocks, windows).
        """
        if self.layout != LAYOUT:
            raise ShapeError(
                f"{self.module or self.stack} attends in a layout of its own, [{', '.join(self.layout)}] of "
                f"{tuple(self.weights.shape)}; such a map cannot be stacked or drawn: look at its .weights"
            )
        return self

    def taken_apart(self) -> Decomposition:
        """Of what the layer's output is made.

        Raises:
            NotKeptError: that was not asked for, or could not be proved; the message says which.
        """
        if self.decomposition is not None:
            return self.decomposition
        if self.undecomposed:
            raise NotKeptError(f"what {self.module} adds to the stream could not be taken apart: {self.undecomposed}")
        raise NotKeptError(
            f"this needs to know of what the output of {self.module or self.stack} is made; capture with "
            'keep=["maps", "contributions"]'
        )

    @property
    def whole(self) -> bool:
        """True for a self-attention map that holds the row of every position."""
        return self.positions == tuple(range(len(self.keys)))

    @cached_property
    def causal(self) -> bool:
        """True when no row of this self-attention map looks at a later position."""
        if self.kind != "self" or self.positions is None:
            return False
        later = torch.arange(len(self.keys)) > torch.tensor(self.positions)[:, None]
        return not bool(self.weights.cpu()[:, later].any())

    @property
    def row_texts(self) -> tuple[str, ...]:
        """What a picture writes beside each row: the token read there; for cross-attention of a generation ``→`` and
        the token put out, since that is what the row was looking for."""
        if self.kind != "cross" or self.produced is None or None in self.produced:
            return self.queries.texts
        return tuple(f"→ {text}" for text in self.produced)

    @property
    def group(self) -> str:
        """The name of the stack of a trace that this map belongs to: ``"cross"`` for cross-attention."""
        return "cross" if self.kind == "cross" else self.stack


@dataclass(frozen=True, eq=False)
class AttentionStack:
    """The maps of one stack of a trace, layer 0 nearest the input."""

    name: str
    maps: tuple[AttentionMap, ...]

    def __repr__(self) -> str:
        return f"{self.name} with {len(self.maps)} × {'×'.join(map(str, self.maps[-1].weights.shape))}"

    def __len__(self) -> int:
        return len(self.maps)

    def __iter__(self) -> Iterator[AttentionMap]:
        return iter(self.maps)

    @property
    def layers(self) -> tuple[int, ...]:
        """The block indices of the maps, in order."""
        return tuple(m.layer for m in self.maps)

    @property
    def queries(self) -> Labels:
        """The labels of the rows."""
        return self.maps[0].queries

    @property
    def keys(self) -> Labels:
        """The labels of the columns."""
        return self.maps[0].keys

    def layer(self, layer: int) -> AttentionMap:
        """The (first) map of a layer."""
        for candidate in self.maps:
            if candidate.layer == layer:
                return candidate
        raise UnknownNameError(f"stack {self.name!r} has no layer {layer}; it has: {listed(self.layers)}")

    def head(self, layer: int, head: int) -> torch.Tensor:
        """The weights ``[query, key]`` of one head."""
        found = self.layer(layer)
        if not 0 <= head < found.heads:
            raise UnknownNameError(f"layer {layer} of stack {self.name!r} has heads 0 to {found.heads - 1}, not {head}")
        return found.weights[head]

    def stacked(self) -> torch.Tensor:
        """All maps as one tensor ``[layer, head, query, key]``.

        Raises:
            ShapeError: layers differ in heads or lengths; the message says which.
        """
        shapes = {tuple(m.plain().weights.shape) for m in self.maps}
        if len(shapes) > 1:
            differ = "; ".join(f"layer {m.layer} ({m.module}): {tuple(m.weights.shape)}" for m in self.maps)
            raise ShapeError(
                f"the layers of stack {self.name!r} cannot be stacked, [head, query, key] differ: {differ}"
            )
        return torch.stack([m.weights for m in self.maps])

    def whole(self) -> "AttentionStack":
        """This stack, when every map holds all its rows and stands on the diagonal.

        Raises:
            NotKeptError: cross-attention, or rows left out by ``keep``.
        """
        for m in self.maps:
            if not m.whole:
                raise NotKeptError(f"this needs self-attention maps with every row; {_lacking(m, self.name)}")
        return self


@dataclass(frozen=True)
class Origin:
    """Which piece of a pipeline's inputs a trace belongs to.

    Attributes:
        input: which of the inputs that one call of the pipeline was given, from 0.
        chunk: which piece of that input, from 0: a stretch of a long sound, a span of a document, a candidate label
            that is asked for in a pass of its own, a batch of points.
        candidate: the candidate label, None where the piece has none.
        seconds: at which second of the sound a chunk begins, None where it is not cut into chunks.
    """

    input: int
    chunk: int = 0
    candidate: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """Everything kept of one sequence.

    Its stacks are attributes: ``trace.encoder``, ``trace.decoder``, ``trace.cross``, ``trace.vision`` …; several
    pictures, or tiles of one, have one each: ``trace.vision_0``, ``trace.vision_1`` …

    Attributes:
        maps: every map, in the order of stacks and layers.
        run: the number of the run in its recording (a run is one ``generate()`` or one forward pass).
        item: the row of the batch, that is, which input it was.
        candidate: which of the returned sequences of that input it is; or which text, where a forward compares each of
            several pictures (the items) with each of several texts.
        model: the name of the model.
        origin: which piece of a pipeline's inputs it was; None outside pipelines.
    """

    maps: tuple[AttentionMap, ...]
    run: int = 0
    item: int = 0
    candidate: int = 0
    model: str = ""
    origin: Origin | None = None

    def __repr__(self) -> str:
        return f"Trace({self.model or 'a model'}: {', '.join(map(repr, self.stacks.values())) or 'no maps'})"

    @cached_property
    def stacks(self) -> Mapping[str, AttentionStack]:
        """The stacks by name, in the order in which they ran."""
        names = dict.fromkeys(m.group for m in self.maps)
        return {name: AttentionStack(name, tuple(m for m in self.maps if m.group == name)) for name in names}

    def __getattr__(self, name: str) -> AttentionStack:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._find(name)

    def stack(self, name: str | None = None) -> AttentionStack:
        """The stack called ``name``; without a name the only one.

        Raises:
            UnknownStackError: no such stack, or several and no name; the message lists them.
        """
        if name is not None:
            return self._find(name)
        if len(self.stacks) == 1:
            return next(iter(self.stacks.values()))
        raise UnknownStackError(f"this trace has several stacks; choose one with stack=…: {listed(self.stacks)}")

    def _find(self, name: str) -> AttentionStack:
        try:
            return self.stacks[name]
        except KeyError:
            raise UnknownStackError(f"this trace has no stack {name!r}; it has: {listed(self.stacks)}") from None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace as one safetensors file with a JSON header, in one atomic step.

        Raises:
            SaveError: the file could not be written; what stood there before is untouched.
        """
        tables: list[dict[str, Any]] = []
        described = []
        for m in self.maps:
            about = {
                name: getattr(m, name) for name in ("stack", "layer", "index", "kind", "module", "steps", "layout")
            }
            described.append(
                about
                | {"positions": m.positions, "produced": m.produced, "undecomposed": m.undecomposed}
                | {"decomposition": None if m.decomposition is None else description_of(m.decomposition)}
                | {"error": str(float(m.error))}  # JSON has neither NaN nor infinity
                | {"queries": _entered(m.queries, tables), "keys": _entered(m.keys, tables)}
            )
        meta = {"format": FORMAT, "version": VERSION, "model": self.model}
        meta |= {"origin": None if self.origin is None else asdict(self.origin)}
        meta |= {"run": self.run, "item": self.item, "candidate": self.candidate, "labels": tables, "maps": described}
        tensors = {f"{n}.{name}": getattr(m, name) for n, m in enumerate(self.maps) for name in _TENSORS}
        for n, m in enumerate(self.maps):
            tensors |= {} if m.decomposition is None else tensors_of(m.decomposition, f"{n}.decomposition")
        return write_archive(path, {name: t for name, t in tensors.items() if t is not None}, meta)


def _lacking(found: AttentionMap, stack: str) -> str:
    name = found.module or repr(stack)
    if found.kind == "cross":
        return f"{name} is cross-attention, whose rows and keys are different tokens: choose a self-attention stack"
    if found.positions is None:
        return f"it is not known on which keys the rows of {name} stand: choose another stack"
    held = f"{len(found.queries)} of {len(found.keys)} rows"
    return f'{name} holds {held}: capture the whole run from its first token, with keep="maps" and without queries='


def _entered(labels: Labels, tables: list[dict[str, Any]]) -> int:
    """The number of these labels in the file's list, entering them when they are new: maps share most of them."""
    table = asdict(labels)
    if table not in tables:
        tables.append(table)
    return tables.index(table)
