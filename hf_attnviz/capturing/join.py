"""From runs, batch still inside, to traces: one a sequence, padding dropped, decoding steps joined, beams re-ordered.

Everything is done in places of the one sequence: place 0 is its first real token. A row is kept once, from the first
pass that read it; without a cache the later passes read it again.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import torch
from torch import nn
from torch.nn.functional import pad

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.axes import BATCH, PIECE
from hf_attnviz.capturing.address import model_name
from hf_attnviz.capturing.families import FOLDED
from hf_attnviz.capturing.naming import compared, media, rate
from hf_attnviz.capturing.positions import Positions
from hf_attnviz.capturing.reading import Reading
from hf_attnviz.capturing.runs import LAYOUT, AttentionCall, Pass, Run, Side
from hf_attnviz.errors import NotKeptError
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.packed import PackedRows
from hf_attnviz.reduced import Reduced, joined
from hf_attnviz.reducing.rows import KeptRows, PackedMaps
from hf_attnviz.trace import Trace

Part = tuple[Pass, AttentionCall]
Kept = KeptRows | PackedMaps
Weights = torch.Tensor | PackedRows
_LAYOUT: Final = Text("its map is in a layout of its own", "它的图有自己的布局")
_PASSES: Final = Text("it ran in several passes; run the model once", "它分多次前向运行；请运行模型一次")
_DRAFTS: Final = Text(
    "it is a sum over rows, and some were drafts that were rejected; generate without an assistant, or keep maps",
    "它是对各行求和，其中有些行是被否决的草稿；请不用辅助模型生成，或保留注意力图",
)


def traces_of(run: Run, processor: Any, model: nn.Module) -> tuple[Trace, ...]:
    """The traces of a run, in the order in which its sequences were returned.

    Raises:
        CaptureError: a map whose batch does not fit the sequences; the message names the module.
    """
    if not run.calls:
        return ()
    tokenizer = getattr(processor, "tokenizer", processor)
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        tokenizer = None
    generated = run.generated
    count = len(generated.sequences) if generated is not None else _batch(run)
    each = generated.each if generated is not None else 1
    positions = Positions(model, media(run), rate(run, processor))
    others = compared(run, positions, count)
    sequences = (
        _Sequence(run, number, count, each, tokenizer, positions, other, others)
        for other in range(others)
        for number in range(count)
    )
    name = model_name(model)
    return tuple(Trace(tuple(s.maps()), run.number, *s.names.place, name, s.names.origin) for s in sequences)


def _batch(run: Run) -> int:
    first = next(one for one in run.passes if one.calls)
    sizes = {call.shape[0] for call in first.calls}
    if sizes == {1}:
        return 1  # one sequence, also where it holds the patches of several pictures, or several codes a step
    if first.side.ids is not None:
        return len(first.side.ids)
    known = [size for size in (first.batch, first.second) if size is not None]  # the second one where time is first
    return next((size for size in known if size in sizes), known[0] if known else min(sizes))


class _Sequence(Reading):
    """The maps of one sequence of a run."""

    # ---- maps

    def maps(self) -> list[AttentionMap]:
        """The maps of this sequence, joined over its passes."""
        joined: dict[tuple[str, int, str, int], list[Part]] = {}
        for one in [one for one in self.run.passes if one.step < 0] + list(self.passes):
            for call in one.calls:
                if not call.kept and call.layout == LAYOUT:
                    continue  # nothing that was asked for can be made of it
                joined.setdefault((call.module, call.index, call.kind, call.layer), []).append((one, call))
        maps = [found for parts in joined.values() for found in self._maps(parts)]
        order = list(dict.fromkeys(m.group for m in maps))
        return sorted(maps, key=lambda m: (order.index(m.group), m.layer))

    def _maps(self, parts: list[Part]) -> list[AttentionMap]:
        """The map of a module; several where a tower reads several pictures, or tiles of one, for this sequence."""
        one, call = parts[0]
        if call.layout != LAYOUT:
            return [self._native(one, call, self._rows(one, call))]
        share, vision = self.names.share, call.stack == "vision"
        if self.positions.blockwise and vision:  # one picture after another, each in a call of its own
            own = share.pieces if share is not None else range(len(self.positions.grids))
            return [self._picture(one, call, 0, own.index(call.index), len(own))] if call.index in own else []
        rows = self._rows(one, call)
        if len(rows) == 1 and not vision:
            return [self._map(parts)]
        if len(rows) > 1 and self.names.tower(call, call.shape[-1]) is None:
            return [self._native(one, call, rows)]
        return [self._picture(one, call, row, n, len(rows)) for n, row in enumerate(rows)]

    def _rows(self, one: Pass, call: AttentionCall) -> Sequence[int]:
        """The rows of a call that are this sequence's; several where a model makes several pieces of it."""
        batch, share = call.shape[0], self.names.share
        if share is not None and call.stack == "vision" and batch == share.total:
            return share.pieces
        known = (1, self.others, self.count, self.items, len(one.prefix) if one.prefix is not None else 1)
        if batch in known or call.tokens or batch % self.items or not (self.items == 1 or self._in_order(call)):
            return [self.row(one, batch, call.module)]
        each = batch // self.items
        return range(self.item * each, (self.item + 1) * each)  # what is made of one row stands together

    def _in_order(self, call: AttentionCall) -> bool:
        """Whether what a module makes of one input stands together in its batch."""
        return FOLDED.fullmatch(type(self.positions.model.get_submodule(call.module)).__name__) is not None

    def _picture(self, one: Pass, call: AttentionCall, row: int, number: int, count: int) -> AttentionMap:
        """The map of one picture, tile or sound; several have a stack each: ``vision_0``, ``vision_1`` …"""
        weights, places = self._piece(one, call, call.rows, row) if call.has_rows else (None, None)
        reduced, places, _ = self._reduced([(one, call)], places, row)
        gradient = call.gradient_if_any(zeros=False)
        flowed = None if gradient is None else self._piece(one, call, gradient, row)[0]
        assert not isinstance(flowed, PackedRows)
        keys = self.names.piece(call, number, count)
        place = _place(call) | ({"index": 0} if self.positions.blockwise else {})
        place |= {"stack": f"{call.stack}_{number}"} if count > 1 else {}  # no layer of one is above that of another
        queries, vectors = self._vectors([(one, call)], row)
        return AttentionMap(
            weights,
            self.names.queries(call, places, keys),
            keys,
            **place,
            steps=(0,) * len(places),
            positions=tuple(places) if call.kind == "self" else None,
            error=call.error,
            query_vectors=queries,
            key_vectors=vectors,
            gradient=flowed,
            reduced=reduced,
            looks_back=call.looks_back,
            head_count=call.shape[1],
            **self._decomposition([(one, call)], row),
        )

    def _map(self, parts: list[Part]) -> AttentionMap:
        call = parts[-1][1]
        weights, places = (
            self._joined([(one, part, part.rows) for one, part in parts]) if call.has_rows else (None, None)
        )
        reduced, places, width = self._reduced(parts, places)
        if not (reduced or call.has_rows):
            call.rows  # noqa: B018  (it says what to keep)
        width = width if weights is None else weights.shape[-1]
        turns = any(part.step > max(one.step, 0) for one, part in parts)
        keys = self.names.keys(call, width, turns)
        whole = call.kind == "self" and places == list(range(width))
        decodes = not turns and call.stack == "decoder" and (self.run.generated is not None or len(self.passes) > 1)
        queries, vectors = self._vectors(parts)
        return AttentionMap(
            weights,
            keys if whole else self.names.queries(call, places, keys),
            keys,
            **_place(call),
            steps=tuple(place if turns else max(0, place - self._last_of_prompt) if decodes else 0 for place in places),
            positions=tuple(places) if call.kind == "self" else None,
            produced=self._produced(places) if decodes else None,
            error=max(float(part.error) for _, part in parts),
            query_vectors=queries,
            key_vectors=vectors,
            gradient=self._gradient(parts),
            reduced=reduced,
            looks_back=None
            if any(part.looks_back is None for _, part in parts)
            else all(p.looks_back for _, p in parts),
            head_count=call.shape[1],
            **self._decomposition(parts),
        )

    def _joined(self, parts: Sequence[tuple[Pass, AttentionCall, Kept]]) -> tuple[Weights, list[int]]:
        """The rows of all passes ``[head, row, key]``, each once, and their places."""
        read, width, rows, places = 0, 0, list[Weights](), list[int]()
        for one, part, kept in parts:
            weights, at = self._piece(one, part, kept)
            fresh = [n for n, place in enumerate(at) if place >= read]
            if fresh:
                rows.append(_cut(weights, fresh) if len(fresh) < len(at) else weights)
            places += [at[n] for n in fresh]
            read = max([read - 1, *at]) + 1
            width = max(width, weights.shape[-1])
        if not places:
            raise NotKeptError(
                Text(
                    f"none of the rows asked for is in {parts[-1][1].module}: its keys are 0 to {width - 1}; "
                    "ask for rows that it has, or count from the end: queries=[-1]",
                    f"所要的行都不在 {parts[-1][1].module} 中：它的键为 0 到 {width - 1}；请要它有的行，或从末尾数起："
                    "queries=[-1]",
                )
            )
        return _one_after_another(rows, width), places

    def _reduced(
        self, parts: list[Part], chosen: list[int] | None, of: int | None = None
    ) -> tuple[dict[str, Reduced], list[int], int]:
        """What reducers made of the calls, joined like rows: by name; the places of its rows; and how many keys.

        Args:
            chosen: the places whose weights are kept: what was made of other rows is left out; None: all rows.
            of: which row of the batch is this sequence's, where that is known.
        """
        read, places, width, pieces, drafts = 0, [], 0, [], False
        for one, call in parts:
            row = self.row(one, call.shape[0], call.module) if of is None else of
            at, stands = call.positions[row].tolist(), self.stands(one) if call.tokens else None
            last = len(at) if stands is None else stands
            rows = [n for n, place in enumerate(at) if read <= place and (stands is None or place < last)]
            drafts = drafts or (stands is not None and any(place >= stands for place in at))
            rows = rows if chosen is None else [n for n in rows if at[n] in chosen]
            columns, dropped = self._columns(one, call, call.shape[-1]) or (None, 0)
            if stands is not None and call.kind == "self":  # the keys of rejected drafts are none of this sequence
                columns = (list(range(call.shape[-1])) if columns is None else columns)[: max(0, stands - dropped)]
            kept = {name: found for name, found in call.kept.items() if isinstance(found, Reduced)}
            pieces.append({name: found.at("batch", row).cut(rows, columns, dropped) for name, found in kept.items()})
            places += [at[n] for n in rows]
            read = max([read - 1, *(place for place in at if stands is None or place < last)]) + 1
            width = max(width, dropped + (call.shape[-1] if columns is None else len(columns)))
        lost = _DRAFTS if drafts else ""
        return {name: joined([piece[name] for piece in pieces], width, lost) for name in pieces[0]}, places, width

    def _gradient(self, parts: list[Part]) -> torch.Tensor | None:
        """The gradient, cut and joined like the weights; None where a pass has none (yet)."""
        reached = any(call.gradient_if_any(zeros=False) is not None for _, call in parts)
        known = [(one, call, kept) for one, call in parts if (kept := call.gradient_if_any(zeros=reached)) is not None]
        if len(known) < len(parts):
            return None
        gradient = self._joined(known)[0]
        assert isinstance(gradient, torch.Tensor)
        return gradient

    def _native(self, one: Pass, call: AttentionCall, rows: Sequence[int]) -> AttentionMap:
        """A map in a layout of the model's own, as it is; with an axis more where it has several pieces."""
        chosen = list(rows) if len(rows) > 1 else rows[0]
        found = {name: one for name, one in call.kept.items() if isinstance(one, Reduced)}
        if not (found or call.has_rows) and call.layout != LAYOUT:
            raise NotKeptError(
                Text(
                    f"{call.module} attends in a layout of its own, [{', '.join(call.layout)}], which is not reduced; "
                    "keep "
                    'its weights: keep="maps"',
                    f"{call.module} 的注意力有自己的布局：[{', '.join(call.layout)}]，无法归约；请保留它的权重："
                    'keep="maps"',
                )
            )
        weights, gradient = call.weights[chosen] if call.has_rows else None, call.gradient_if_any(zeros=False)
        sizes = call.shape[-2:] if weights is None else weights.shape[-2:]
        queries, keys = (Labels.plain(map(str, range(size)), "latent") for size in sizes)
        return AttentionMap(
            PackedRows.of(weights) if weights is not None and isinstance(call.rows, PackedMaps) else weights,
            queries,
            keys,
            **_place(call),
            steps=(0,) * len(queries),
            error=call.error,
            layout=(PIECE, *call.layout[1:]) if len(rows) > 1 else call.layout[1:],
            gradient=None if gradient is None else gradient.weights[chosen],
            reduced={name: one.at(BATCH, chosen).named(BATCH, PIECE) for name, one in found.items()},
            looks_back=call.looks_back,
            head_count=call.shape[1],
            undecomposed=_LAYOUT if "contributions" in call.kept else "",
        )

    def _piece(self, one: Pass, call: AttentionCall, kept: Kept, row: int | None = None) -> tuple[Weights, list[int]]:
        """The rows of this sequence in one call: weights ``[head, row, key]`` without padding, and their places."""
        row = self.row(one, len(kept.positions), call.module) if row is None else row
        places, stands = kept.positions[row].tolist(), self.stands(one) if call.tokens else None
        rows = [n for n, place in enumerate(places) if place >= 0 and (stands is None or place < stands)]
        weights: Weights = kept.packed[row] if isinstance(kept, PackedMaps) else kept.weights[row]
        columns, dropped = self._columns(one, call, weights.shape[-1]) or (None, 0)
        if stands is not None and call.kind == "self":
            columns = list(range(weights.shape[-1])) if columns is None else columns
            columns = columns[: max(0, stands - dropped)]
        if len(rows) < len(places) or columns is not None:
            weights = _cut(weights, rows if len(rows) < len(places) else None, columns, dropped)
        return weights, [places[n] for n in rows]

    def _columns(self, one: Pass, call: AttentionCall, keys: int) -> tuple[list[int], int] | None:
        """The key columns that are real, and how many real keys a window has dropped; None: all, as they stand."""
        if call.kind == "cross" or (self.run.two_sided and call.stack == "encoder"):
            real = self.source_real if self.run.two_sided else None
            if real is None or len(real) != keys or all(real):
                return None
            return [n for n, kept in enumerate(real) if kept], 0
        side: Side = self.run.side(call.stack, one)
        if not call.tokens or side.new is None:
            return None
        read = side.past + side.new
        if keys != read and not side.cached:
            return None  # fewer or other keys than tokens, and no cache to explain it
        real, dropped = self.real(read), max(0, read - keys)
        columns = [n - dropped for n in range(dropped, read) if real[n]]
        return None if len(columns) == keys and not dropped else (columns, sum(real[:dropped]))

    @cached_property
    def _last_of_prompt(self) -> int:
        """The place of the row that put out the first new token."""
        return max(0, self.real_prompt - 1)

    def _produced(self, places: Sequence[int]) -> tuple[str | None, ...]:
        labels = self.names.own
        return tuple(
            labels.texts[place + 1] if labels is not None and self._last_of_prompt <= place < len(labels) - 1 else None
            for place in places
        )

    def _decomposition(self, parts: list[Part], of: int | None = None) -> dict[str, Any]:
        """Of what the output of a layer is made, for this sequence; or why that is not known, if it was asked for."""
        kept = [call.kept["contributions"] for _, call in parts if "contributions" in call.kept]
        if not kept:
            return {}
        one, call = parts[0]
        refusals = [part.refusal for part in kept if part.refusal]
        if len(parts) > 1 or refusals:
            return {"undecomposed": refusals[-1] if refusals else _PASSES}
        row = self.row(one, len(kept[0].positions), call.module) if of is None else of
        places = kept[0].positions[row].tolist()
        columns = self._columns(one, call, call.shape[-1])
        queries = [n for n, place in enumerate(places) if place >= 0]
        return {"decomposition": kept[0].of(row, queries, None if columns is None else columns[0])}

    def _vectors(self, parts: list[Part], of: int | None = None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Queries of the rows and keys of the columns; None where they were not kept."""
        if any("query" not in call.kept.get("vectors", ()) for _, call in parts):
            return None, None
        queries, keys, read, known = [], [], 0, 0
        for one, call in parts:
            kept = call.kept["vectors"]
            row = self.row(one, len(kept["query"]), call.module) if of is None else of
            places = kept["positions"][row].tolist()
            stands = self.stands(one)
            places = [-1 if stands is not None and place >= stands else place for place in places]
            queries.append(kept["query"][row][:, [n for n, place in enumerate(places) if place >= read]])
            read = max([read - 1, *places]) + 1
            key = kept["key"][row]
            columns, dropped = self._columns(one, call, key.shape[1]) or (list(range(key.shape[1])), 0)
            if stands is not None and call.kind == "self":
                columns = columns[: max(0, stands - dropped)]
            keys.append(key[:, columns][:, max(0, known - dropped) :])  # those that no earlier pass had
            known = max(known, dropped + len(columns))
        return torch.cat(queries, dim=1), torch.cat(keys, dim=1)


def _cut(
    weights: Weights, rows: Sequence[int] | None, columns: Sequence[int] | None = None, dropped: int = 0
) -> Weights:
    """These rows and columns (None: all), after ``dropped`` keys of which a window let go and which weigh nothing."""
    if isinstance(weights, PackedRows):
        return weights.cut(rows, columns, before=dropped) if rows is None or len(rows) else weights
    weights = weights if rows is None else weights[:, list(rows)]
    return weights if columns is None else pad(weights[..., list(columns)], (dropped, 0))


def _one_after_another(rows: Sequence[Weights], width: int) -> Weights:
    """Rows of several passes as those of one map; early passes saw fewer keys."""
    packed = [one for one in rows if isinstance(one, PackedRows)]
    if packed:
        return packed[0] if len(packed) == 1 else PackedRows.joined(packed).cut()  # in whole blocks again
    filled = [pad(one, (0, width - one.shape[-1])) for one in rows if isinstance(one, torch.Tensor)]
    return filled[0] if len(filled) == 1 else torch.cat(filled, dim=1)


def _place(call: AttentionCall) -> dict[str, Any]:
    """Which map of the model a call is, as an :class:`AttentionMap` says it."""
    return {name: getattr(call, name) for name in ("stack", "layer", "index", "kind", "module")}
