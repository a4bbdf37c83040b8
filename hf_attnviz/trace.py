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

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.decomposition import description_of, tensors_of
from hf_attnviz.errors import NotKeptError, ShapeError, UnknownNameError, UnknownStackError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.packed import PackedRows
from hf_attnviz.storage import described_text, write_archive

FORMAT: Final = "hf_attnviz.trace"
# 2: parts and cells of labels, where in a pipeline's inputs a trace belongs; 3: decompositions; 4: packed rows, what is
# reduced, maps without weights
VERSION: Final = 4
_TENSORS: Final = ("query_vectors", "key_vectors", "gradient")
_PLACE: Final = ("stack", "layer", "index", "kind", "module", "steps", "layout", "positions", "produced")
_TOLD: Final = (*_PLACE, "looks_back", "head_count")


@dataclass(frozen=True, eq=False)
class AttentionStack:
    """The maps of one stack of a trace, layer 0 nearest the input."""

    name: str
    maps: tuple[AttentionMap, ...]

    def __repr__(self) -> str:
        last = self.maps[-1]
        kept = "" if last.has_weights else f" (no weights; {listed(last.reduced)})"
        return f"{self.name} with {len(self.maps)} × {'×'.join(map(str, last.shape))}{kept}"

    def __len__(self) -> int:
        return len(self.maps)

    def __iter__(self) -> Iterator[AttentionMap]:
        return iter(self.maps)

    @property
    def layers(self) -> tuple[int, ...]:
        """The block indices of the maps, in order."""
        return tuple(m.layer for m in self.maps)

    @property
    def has_weights(self) -> bool:
        """Whether all maps keep their weights."""
        return all(m.has_weights for m in self.maps)

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
        raise UnknownNameError(
            Text(
                f"stack {self.name!r} has no layer {layer}; it has: {listed(self.layers)}",
                f"堆栈 {self.name!r} 没有第 {layer} 层；它有：{listed(self.layers, '无')}",
            )
        )

    def head(self, layer: int, head: int) -> torch.Tensor:
        """The weights ``[query, key]`` of one head.

        Raises:
            NotKeptError: its weights were not kept.
        """
        found = self.layer(layer)
        if not 0 <= head < found.heads:
            raise UnknownNameError(
                Text(
                    f"layer {layer} of stack {self.name!r} has heads 0 to {found.heads - 1}, not {head}",
                    f"堆栈 {self.name!r} 第 {layer} 层的头为 0 到 {found.heads - 1}，没有 {head}",
                )
            )
        return found.weights[head]

    def stacked(self) -> torch.Tensor:
        """All maps as one tensor ``[layer, head, query, key]``.

        Raises:
            NotKeptError: weights were not kept.
            ShapeError: layers differ in heads or lengths; the message says which.
        """
        for m in self.maps:
            m.plain()
        return torch.stack([m.weights for m in self.alike()])

    def alike(self) -> "AttentionStack":
        """This stack, when all its maps have one shape.

        Raises:
            ShapeError: layers differ in heads or lengths; the message says which.
        """
        if len({m.shape for m in self.maps}) > 1:
            differ = "; ".join(f"layer {m.layer} ({m.module}): {tuple(m.shape)}" for m in self.maps)
            raise ShapeError(
                Text(
                    f"the layers of stack {self.name!r} cannot be stacked, [head, query, key] differ: {differ}",
                    f"堆栈 {self.name!r} 的各层无法堆叠，[head, query, key] 不同：{differ}",
                )
            )
        return self

    def whole(self) -> "AttentionStack":
        """This stack, when every map keeps the weights of all its rows and stands on the diagonal.

        Raises:
            NotKeptError: cross-attention, or rows or weights left out by ``keep``.
        """
        for m in self.maps:
            if not m.whole:
                lacking = _lacking(m, self.name)
                raise NotKeptError(
                    Text(
                        f"this needs self-attention maps with every row; {lacking.en}",
                        f"这需要含有每一行的自注意力图；{lacking.zh}",
                    )
                )
            m.plain()
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
        notes: what was done to it since it was captured, which whoever draws it should say.
    """

    maps: tuple[AttentionMap, ...]
    run: int = 0
    item: int = 0
    candidate: int = 0
    model: str = ""
    origin: Origin | None = None
    notes: tuple[Text, ...] = ()

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
        raise UnknownStackError(
            Text(
                f"this trace has several stacks; choose one with stack=…: {listed(self.stacks)}",
                f"这个 trace 有多个堆栈；请用 stack=… 选定一个：{listed(self.stacks)}",
            )
        )

    def _find(self, name: str) -> AttentionStack:
        try:
            return self.stacks[name]
        except KeyError:
            raise UnknownStackError(
                Text(
                    f"this trace has no stack {name!r}; it has: {listed(self.stacks)}",
                    f"这个 trace 没有堆栈 {name!r}；它有：{listed(self.stacks, '无')}",
                )
            ) from None

    def to_bertviz(self, *, stack: str | None = None) -> dict[str, Any]:
        """The arguments for BertViz' own functions: ``bertviz.head_view(**trace.to_bertviz())``.

        Raises:
            ArgumentError: stacks of unequal depth or heads, which BertViz cannot draw together: choose one.
        """
        from hf_attnviz.views.original import to_bertviz  # a view, two floors up: only when it is asked for

        return to_bertviz(self, stack=stack)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace as one safetensors file with a JSON header, in one atomic step.

        Raises:
            SaveError: the file could not be written; what stood there before is untouched.
        """
        tables: list[dict[str, Any]] = []
        meta = {"format": FORMAT, "version": VERSION, "model": self.model}
        meta |= {"origin": None if self.origin is None else asdict(self.origin)}
        meta |= {"notes": [[note.en, note.zh] for note in self.notes]}
        meta |= {"run": self.run, "item": self.item, "candidate": self.candidate, "labels": tables}
        meta |= {"maps": [_described(m, tables) for m in self.maps]}
        tensors: dict[str, torch.Tensor] = {}
        for n, m in enumerate(self.maps):
            tensors |= _tensors(m, str(n))
        return write_archive(path, tensors, meta)


def _described(m: AttentionMap, tables: list[dict[str, Any]]) -> dict[str, Any]:
    """What a file says of a map, beside its tensors; labels that are new are entered in the file's tables."""
    kept = m.kept_weights
    return {
        **{name: getattr(m, name) for name in _TOLD},
        **described_text("undecomposed", m.undecomposed),
        "packed": kept.described() if isinstance(kept, PackedRows) else None,
        "reduced": {name: one.described() for name, one in m.reduced.items()},
        "decomposition": None if m.decomposition is None else description_of(m.decomposition),
        "error": str(float(m.error)),  # JSON has neither NaN nor infinity
        "queries": _entered(m.queries, tables),
        "keys": _entered(m.keys, tables),
    }


def _tensors(m: AttentionMap, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of a map by name, for a file."""
    kept = m.kept_weights
    found: dict[str, torch.Tensor | None] = {f"{prefix}.{name}": getattr(m, name) for name in _TENSORS}
    if isinstance(kept, PackedRows):
        found |= kept.tensors(f"{prefix}.packed")
    else:
        found[f"{prefix}.weights"] = kept
    for name, one in m.reduced.items():
        found |= one.tensors(f"{prefix}.reduced.{name}")
    if m.decomposition is not None:
        found |= tensors_of(m.decomposition, f"{prefix}.decomposition")
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _lacking(found: AttentionMap, stack: str) -> Text:
    name = found.module or repr(stack)
    if found.kind == "cross":
        return Text(
            f"{name} is cross-attention, whose rows and keys are different tokens: choose a self-attention stack",
            f"{name} 是交叉注意力，其行与键是不同的词元：请选择自注意力的堆栈",
        )
    if found.positions is None:
        return Text(
            f"it is not known on which keys the rows of {name} stand: choose another stack",
            f"不知道 {name} 的各行对应哪些键：请选择另一个堆栈",
        )
    rows, keys = len(found.queries), len(found.keys)
    return Text(
        f'{name} holds {rows} of {keys} rows: capture the whole run from its first token, with keep="maps" and '
        "without queries=",
        f'{name} 有 {keys} 行，只保留了 {rows} 行：请从第一个词元起捕获整个运行，用 keep="maps"，不要用 queries=',
    )


def _entered(labels: Labels, tables: list[dict[str, Any]]) -> int:
    """The number of these labels in the file's list, entering them when they are new: maps share most of them."""
    table = asdict(labels)
    if table not in tables:
        tables.append(table)
    return tables.index(table)
