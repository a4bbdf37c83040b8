"""From runs, batch still inside, to traces: one a sequence, padding dropped, decoding steps joined, beams re-ordered.

Everything is done in places of the one sequence: place 0 is its first real token. A row is kept once, from the first
pass that read it; without a cache the later passes read it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch.nn.functional import pad

from hf_attnviz.capturing.reducers import KeptRows
from hf_attnviz.capturing.runs import LAYOUT, AttentionCall, Pass, Run, Side
from hf_attnviz.errors import CaptureError, NotKeptError
from hf_attnviz.labels import Labels, label_tokens
from hf_attnviz.trace import AttentionMap, Trace

Part = tuple[Pass, AttentionCall]


def traces_of(run: Run, processor: Any, model: str) -> tuple[Trace, ...]:
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
    sequences = (_Sequence(run, number, count, each, tokenizer) for number in range(count))
    return tuple(Trace(tuple(s.maps()), run.number, s.item, s.number % each, model) for s in sequences)


def _batch(run: Run) -> int:
    first = next(one for one in run.passes if one.calls)
    if first.side.ids is not None:
        return len(first.side.ids)
    sizes = {len(call.rows.weights) for call in first.calls}
    known = [size for size in (first.batch, first.second) if size is not None]  # the second one where time is first
    return next((size for size in known if size in sizes), known[0] if known else min(sizes))


@dataclass(eq=False)
class _Sequence:
    """One sequence of a run, and where its rows stand in each pass."""

    run: Run
    number: int
    count: int
    each: int
    tokenizer: Any

    @property
    def item(self) -> int:
        return self.number // self.each

    @property
    def items(self) -> int:
        return self.count // self.each

    # ---- which passes, and which row of them

    @cached_property
    def prefill(self) -> Sequence[Pass]:
        """The forwards that read the prompt: the first, and those that read further chunks of it."""
        first, *later = self.run.forwards

        def chunk(one: Pass) -> bool:
            return one.prefix is not None and one.side.past > 0 and first.has_all_tokens and not one.has_all_tokens

        return [first, *takewhile(chunk, later)] if self.run.generated is not None else [first]

    @cached_property
    def prompt(self) -> int:
        """How many positions the prompt has, padding included."""
        if self.run.drafted_from is not None:
            return self.run.drafted_from + self.run.forwards[0].beyond
        return self.prefill[-1].side.past + (self.prefill[-1].side.new or 0)

    @cached_property
    def tokens(self) -> list[int] | None:
        """The tokens returned for this sequence, prompt first where tokens were the prompt; None for plain passes."""
        generated = self.run.generated
        if generated is None:
            return None
        returned: list[int] = generated.sequences[self.number].tolist()
        first = self.run.forwards[0].prefix
        if first is None or not self.run.forwards[0].has_all_tokens:
            return returned
        # A model's own generate() may strip the prompt off again: what the rows had read tells.
        start: list[int] = first[self.item * (len(first) // self.items)].tolist()
        if self.run.drafted_from is not None:
            start = start[: self.prompt]
            return returned if returned[: self.prompt] == start else start + returned
        return max(returned, start + returned, key=self._times_read)

    def _times_read(self, tokens: list[int]) -> int:
        """In how many passes some row had read just these tokens by then."""
        return sum(
            bool(self._rows_that_read(tokens, one.prefix)) for one in self.run.forwards if one.prefix is not None
        )

    def _stands(self, one: Pass) -> int | None:
        """Before which place the rows of a pass stand in the returned sequence: after it are rejected drafts."""
        if self.run.drafted_from is None or self.tokens is None or one.prefix is None:
            return None
        read = zip(one.prefix[0].tolist(), self.tokens[:-1], strict=False)  # the last token was put out, never read
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], read))
        return sum(self._real(one.beyond + same))

    def _rows_that_read(self, tokens: list[int], prefix: torch.Tensor) -> list[int]:
        """The rows of this sequence's input, in a pass, that had read the beginning of ``tokens``."""
        width = len(prefix) // self.items
        if prefix.shape[1] > len(tokens):
            return []
        block = prefix[self.item * width : (self.item + 1) * width]
        return [int(n) for n in (block == torch.tensor(tokens[: prefix.shape[1]])).all(1).nonzero()[:, 0]]

    @cached_property
    def untold(self) -> int:
        """How many positions at the start have no token: embeddings, or a cache filled before, as by prefix tuning."""
        first = self.run.forwards[0].side
        if self.run.drafted_from is not None:
            return self.run.forwards[0].beyond  # what was read is no measure here: drafts may have been rejected
        if self.tokens is None or first.ids is None:
            read = max(one.side.past + (one.side.new or 0) for one in self.run.forwards)
            return first.past if self.tokens is None else max(0, read + 1 - len(self.tokens))
        row = first.ids[self.item * (len(first.ids) // self.items)].tolist()
        return first.past if first.past and row == self.tokens[: len(row)] else 0

    @cached_property
    def new_tokens(self) -> int:
        """How many tokens were put out for this sequence, its end token included, the filling after it not."""
        generated, tokens = self.run.generated, self.tokens
        assert generated is not None
        assert tokens is not None
        new = tokens[self.prompt - self.untold :]
        end = next((place + 1 for place, token in enumerate(new) if token in generated.ends), None)
        if end is not None:
            return end
        while new and generated.ends and new[-1] == generated.pad:  # nothing is filled up where nothing ends
            new.pop()
        return len(new)

    @cached_property
    def passes(self) -> Sequence[Pass]:
        """The forwards that this sequence took part in."""
        if self.run.generated is None:
            return self.run.forwards
        return self.run.forwards[: len(self.prefill) + max(self.new_tokens - 1, 0)]

    def row(self, one: Pass, batch: int, what: str) -> int:
        """The row of this sequence in a batch of a pass."""
        if batch == 1:
            return 0  # one image, one source for all
        if self.run.generated is None:
            if batch == self.count:
                return self.number
        elif one.step >= 0 and one.prefix is not None and batch == len(one.prefix):
            return self._row_by_prefix(one, one.prefix, what)
        elif batch == self.count:
            return self.number
        elif batch == self.items:
            return self.item
        raise CaptureError(
            f"{what} has a batch of {batch}, and the run {self.count} sequences; they cannot be told apart. "
            "Pass one input at a time; the maps themselves are in recording.calls"
        )

    def _row_by_prefix(self, one: Pass, prefix: torch.Tensor, what: str) -> int:
        """The row that had read just this sequence by then: running beams are never alike, and change places."""
        width = len(prefix) // self.items
        own = self.number % self.each if width == self.each else 0
        if one in self.prefill:
            return self.item * width + own
        assert self.tokens is not None
        same = self._rows_that_read(self.tokens, prefix)
        if not same:
            raise CaptureError(f"{what}: no row of step {one.step} had read the sequence that was returned")
        return self.item * width + (own if own in same else same[0])  # candidates still alike keep their own rows

    # ---- tokens

    @cached_property
    def ids(self) -> list[int | None] | None:
        """The tokens of the decoder (or only) side, padding dropped, with the last one put out; None where unknown."""
        known: list[int | None]
        if self.tokens is not None:
            known = [*[None] * self.untold, *self.tokens[: self.prompt - self.untold + self.new_tokens]]
        elif all(one.side.ids is not None for one in self.passes):
            rows = [
                one.side.ids[self.row(one, len(one.side.ids), "input_ids")]
                for one in self.passes
                if one.side.ids is not None
            ]
            known = [None] * self.untold + (torch.cat(rows) if self.passes[-1].side.past else rows[-1]).tolist()
        else:
            return None
        real = self._real(len(known))
        return [token for token, kept in zip(known, real, strict=True) if kept]

    def _real(self, length: int) -> list[bool]:
        """Which of the positions read are no padding; positions after the mask are the tokens put out."""
        masks = [one for one in self.passes if one.side.mask is not None]
        if not masks:
            return [True] * length
        mask = masks[-1].side.mask
        assert mask is not None
        row: list[bool] = mask[self.row(masks[-1], len(mask), "attention_mask")].bool().tolist()
        return (row + [True] * length)[:length]

    def _source_row(self, batch: int) -> int:
        return self.item * (batch // self.items) if batch >= self.items else 0  # copies for beams stand together

    @cached_property
    def source_real(self) -> list[bool] | None:
        """Which positions of the encoder side are no padding; None when nothing says."""
        mask = self.run.source.mask
        return None if mask is None else mask[self._source_row(len(mask))].bool().tolist()

    @cached_property
    def _own_labels(self) -> Labels | None:
        if self.ids is None:
            return None
        known = [token for token in self.ids if token is not None]
        unknown = len(self.ids) - len(known)  # a prompt of embeddings has no tokens
        labels = label_tokens(known, self.tokenizer)
        if not unknown:
            return labels
        return Labels.of(
            [*(f"⟨{n}⟩" for n in range(unknown)), *labels.texts],
            [*([None] * unknown), *labels.ids],
            [*([None] * unknown), *labels.words],
            [*(["latent"] * unknown), *labels.kinds],
        )

    @cached_property
    def _source_labels(self) -> Labels | None:
        ids = self.run.source.ids
        if ids is None:
            return None
        tokens = ids[self._source_row(len(ids))].tolist()
        if tokens and min(tokens) < 0:
            return None  # hidden states that no text encoder was seen to make
        real = self.source_real if self.source_real and len(self.source_real) == len(tokens) else [True] * len(tokens)
        return label_tokens([token for token, kept in zip(tokens, real, strict=True) if kept], self.tokenizer)

    # ---- maps

    def maps(self) -> list[AttentionMap]:
        """The maps of this sequence, joined over its passes."""
        joined: dict[tuple[str, int, str, int], list[Part]] = {}
        for one in [one for one in self.run.passes if one.step < 0] + list(self.passes):
            for call in one.calls:
                joined.setdefault((call.module, call.index, call.kind, call.layer), []).append((one, call))
        maps = [self._map(parts) for parts in joined.values()]
        order = list(dict.fromkeys(m.group for m in maps))
        return sorted(maps, key=lambda m: (order.index(m.group), m.layer))

    def _map(self, parts: list[Part]) -> AttentionMap:
        call = parts[-1][1]
        if call.layout != LAYOUT or self._folded(call):
            return self._native(*parts[0])
        weights, places = self._joined([(one, part, part.rows) for one, part in parts])
        turns = any(part.step > max(one.step, 0) for one, part in parts)
        keys = self._key_labels(call, weights.shape[-1], turns)
        whole = call.kind == "self" and places == list(range(weights.shape[-1]))
        decodes = not turns and call.stack == "decoder" and (self.run.generated is not None or len(self.passes) > 1)
        queries, vectors = self._vectors(parts)
        return AttentionMap(
            weights,
            keys if whole else self._query_labels(call, places),
            keys,
            **_place(call),
            steps=tuple(place if turns else max(0, place - self._last_of_prompt) if decodes else 0 for place in places),
            positions=tuple(places) if call.kind == "self" else None,
            produced=self._produced(places) if decodes else None,
            error=max(float(part.error) for _, part in parts),
            query_vectors=queries,
            key_vectors=vectors,
            gradient=self._gradient(parts),
        )

    def _folded(self, call: AttentionCall) -> bool:
        """Whether the batch of a call holds pieces (windows, frames) of one input, and not inputs."""
        return self.run.generated is None and self.count == 1 < len(call.rows.weights)

    def _joined(self, parts: list[tuple[Pass, AttentionCall, KeptRows]]) -> tuple[torch.Tensor, list[int]]:
        """The rows of all passes ``[head, row, key]``, each once, and their places."""
        read, rows, places = 0, [], []
        for one, part, kept in parts:
            weights, at = self._piece(one, part, kept)
            fresh = [n for n, place in enumerate(at) if place >= read]
            rows.append(weights[:, fresh] if len(fresh) < len(at) else weights)
            places += [at[n] for n in fresh]
            read = max([read - 1, *at]) + 1
        if not places:
            raise NotKeptError(
                f"none of the rows asked for is in {parts[-1][1].module}: its keys are 0 to {rows[0].shape[-1] - 1}; "
                "ask for rows that it has, or count from the end: queries=[-1]"
            )
        width = max(part.shape[-1] for part in rows)
        filled = [pad(part, (0, width - part.shape[-1])) for part in rows]
        return filled[0] if len(filled) == 1 else torch.cat(filled, dim=1), places

    def _gradient(self, parts: list[Part]) -> torch.Tensor | None:
        """The gradient, cut and joined like the weights; None where a pass has none (yet)."""
        reached = any(call.gradient_if_any(zeros=False) is not None for _, call in parts)
        known = [(one, call, kept) for one, call in parts if (kept := call.gradient_if_any(zeros=reached)) is not None]
        return self._joined(known)[0] if len(known) == len(parts) else None

    def _native(self, one: Pass, call: AttentionCall) -> AttentionMap:
        """A map in a layout of the model's own, as it is."""
        folded = self._folded(call)
        row = slice(None) if folded else self.row(one, len(call.weights), call.module)
        weights, gradient = call.weights[row], call.gradient_if_any(zeros=False)
        queries, keys = (Labels.plain(map(str, range(size)), "latent") for size in weights.shape[-2:])
        return AttentionMap(
            weights,
            queries,
            keys,
            **_place(call),
            steps=(0,) * len(queries),
            error=call.error,
            layout=("window", *call.layout[1:]) if folded else call.layout[1:],
            gradient=None if gradient is None else gradient.weights[row],
        )

    def _piece(self, one: Pass, call: AttentionCall, kept: KeptRows) -> tuple[torch.Tensor, list[int]]:
        """The rows of this sequence in one call: weights ``[head, row, key]`` without padding, and their places."""
        row = self.row(one, len(kept.weights), call.module)
        places = kept.positions[row].tolist()
        rows = [n for n, place in enumerate(places) if place >= 0]
        weights = kept.weights[row]
        if len(rows) < len(places):
            weights = weights[:, rows]
        columns = self._columns(one, call, weights.shape[-1])
        if columns is not None:
            chosen, dropped = columns
            weights = pad(weights[..., chosen], (dropped, 0))  # keys that a sliding window has dropped weigh nothing
        at, stands = [places[n] for n in rows], self._stands(one) if call.tokens else None
        if stands is not None:
            kept_rows = [n for n, place in enumerate(at) if place < stands]
            weights, at = weights[:, kept_rows], [at[n] for n in kept_rows]
            weights = weights[..., :stands] if call.kind == "self" else weights
        return weights, at

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
        real, dropped = self._real(read), max(0, read - keys)
        columns = [n - dropped for n in range(dropped, read) if real[n]]
        return None if len(columns) == keys and not dropped else (columns, sum(real[:dropped]))

    @cached_property
    def _last_of_prompt(self) -> int:
        """The place of the row that put out the first new token."""
        return max(0, sum(self._real(self.prompt)) - 1)

    def _produced(self, places: Sequence[int]) -> tuple[str | None, ...]:
        labels = self._own_labels
        return tuple(
            labels.texts[place + 1] if labels is not None and self._last_of_prompt <= place < len(labels) - 1 else None
            for place in places
        )

    def _query_labels(self, call: AttentionCall, places: Sequence[int]) -> Labels:
        labels = self._side_labels(call.stack)
        if not call.tokens or labels is None or any(place >= len(labels) for place in places):
            return Labels.plain((str(place) for place in places), "latent")
        return labels.at(places)

    def _key_labels(self, call: AttentionCall, width: int, turns: bool) -> Labels:
        of_source = call.kind == "cross" and (self.run.two_sided or self.run.source.ids is not None)
        labels = self._source_labels if of_source else self._side_labels(call.stack)
        # What was put out last was never read, so a generation has one label more than keys.
        extra = 1 if self.run.generated is not None and call.kind == "self" and call.stack != "encoder" else 0
        fits = labels is not None and width <= len(labels) <= width + extra
        if labels is None or not fits or not (call.tokens or of_source or turns):
            return Labels.plain(map(str, range(width)), "latent")
        return labels[:width]

    def _side_labels(self, stack: str) -> Labels | None:
        return self._source_labels if self.run.two_sided and stack == "encoder" else self._own_labels

    def _vectors(self, parts: list[Part]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Queries of the rows and keys of the columns; None where they were not kept."""
        if any("query" not in call.kept.get("vectors", ()) for _, call in parts):
            return None, None
        queries, keys, read, known = [], [], 0, 0
        for one, call in parts:
            kept = call.kept["vectors"]
            row = self.row(one, len(kept["query"]), call.module)
            places = kept["positions"][row].tolist()
            stands = self._stands(one)
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


def _place(call: AttentionCall) -> dict[str, Any]:
    """Which map of the model a call is, as an :class:`AttentionMap` says it."""
    return {name: getattr(call, name) for name in ("stack", "layer", "index", "kind", "module")}
