"""A trace's file, read: nothing in it is executed, and nothing that it says is believed unseen."""

import os
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.decomposition import restored
from hf_attnviz.errors import TraceFileError
from hf_attnviz.labels import Labels, Segment
from hf_attnviz.language import Text, told
from hf_attnviz.packed import PackedRows
from hf_attnviz.reduced import Reduced
from hf_attnviz.storage import read_archive, restored_text, typed
from hf_attnviz.trace import FORMAT, VERSION, Origin, Trace


def load(path: str | os.PathLike[str]) -> Trace:
    """Read a trace that :meth:`Trace.save` wrote. Nothing in the file is executed.

    Raises:
        TraceFileError: no such file, damaged, foreign, or from a newer version.
    """
    tensors, meta = read_archive(path, expected_format=FORMAT, newest_version=VERSION)
    try:
        labels = [_labels(table) for table in meta["labels"]]
        maps = tuple(_map(n, about, tensors, labels) for n, about in enumerate(meta["maps"]))
        run, item, candidate = (typed(meta[name], int) for name in ("run", "item", "candidate"))
        origin, notes = _origin(meta.get("origin")), _notes(meta.get("notes", []))
        return Trace(maps, run, item, candidate, typed(meta["model"], str), origin, notes)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = told(error)
        raise TraceFileError(
            Text(
                f"{str(path)!r} is damaged: its description and its tensors do not fit ({why.en})",
                f"{str(path)!r} 已损坏：其中的说明与张量不符（{why.zh}）",
            )
        ) from error


def _labels(table: Mapping[str, Any]) -> Labels:
    segments = tuple(
        Segment(
            s["kind"],
            typed(s["start"], int),
            typed(s["stop"], int),
            _pair(s["grid"], int),
            _pair(s["seconds"], int, float),
            typed(s.get("part"), int, NoneType),
        )
        for s in table["segments"]
    )
    cells = table.get("cells")
    if cells is not None:
        cells = tuple(_pair(cell, int) for cell in typed(cells, list))
    ids, words = (typed(table[name], int, NoneType, each=True) for name in ("ids", "words"))
    return Labels(typed(table["texts"], str, each=True), ids, words, segments, cells)


def _origin(about: Mapping[str, Any] | None) -> Origin | None:
    if about is None:
        return None
    given, chunk = (typed(about[name], int) for name in ("input", "chunk"))
    return Origin(given, chunk, typed(about["candidate"], str, NoneType), typed(about["seconds"], int, float, NoneType))


def _notes(told: Sequence[Any]) -> tuple[Text, ...]:
    return tuple(Text(*_pair(note, str)) for note in typed(told, list))


def _pair(value: Any, *types: type) -> Any:
    if value is None:
        return None
    first, second = typed(value, *types, each=True)
    return first, second


def _map(
    number: int, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], labels: Sequence[Labels]
) -> AttentionMap:
    positions, produced, kind = about["positions"], about["produced"], about["kind"]
    if kind not in ("self", "cross"):
        raise ValueError(Text("a kind of attention that is neither self nor cross", "注意力的种类既非 self 也非 cross"))
    return AttentionMap(
        _kept(number, about, tensors),
        labels[typed(about["queries"], int)],
        labels[typed(about["keys"], int)],
        stack=typed(about["stack"], str),
        layer=typed(about["layer"], int),
        index=typed(about["index"], int),
        kind=kind,
        module=typed(about["module"], str),
        steps=typed(about["steps"], int, each=True),
        layout=typed(about["layout"], str, each=True),
        positions=None if positions is None else typed(positions, int, each=True),
        produced=None if produced is None else typed(produced, str, NoneType, each=True),
        error=float(typed(about["error"], str)),
        query_vectors=tensors.get(f"{number}.query_vectors"),
        key_vectors=tensors.get(f"{number}.key_vectors"),
        gradient=tensors.get(f"{number}.gradient"),
        decomposition=restored(about.get("decomposition"), tensors, f"{number}.decomposition"),
        undecomposed=restored_text(about, "undecomposed"),
        reduced={
            name: Reduced.restored(one, tensors, f"{number}.reduced.{name}")
            for name, one in typed(about.get("reduced", {}), dict).items()
        },
        looks_back=typed(about.get("looks_back"), bool, NoneType),
        head_count=typed(about.get("head_count", 0), int),
    )


def _kept(
    number: int, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor | PackedRows | None:
    """The weights of a map; packed, or none where the file has only what was made of them."""
    if about.get("packed") is not None:
        return PackedRows.restored(about["packed"], tensors, f"{number}.packed")
    return tensors.get(f"{number}.weights") if about.get("reduced") else tensors[f"{number}.weights"]
