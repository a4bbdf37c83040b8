"""From runs, batch still inside, to traces: one a sequence, padding dropped, decoding steps joined, beams re-ordered.

Everything is done in places of the one sequence: place 0 is its first real token. A row is kept once, from the first
pass that read it; without a cache the later passes read it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from hf_attnviz.capturing.runs import AttentionCall, Pass, Run
from hf_attnviz.errors import CaptureError
from hf_attnviz.labels import Labels, label_tokens
from hf_attnviz.trace import AttentionMap, Trace


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
    return tuple(
        Trace(tuple(_Sequence(run, number, each, tokenizer).maps()), run.number, number // each, number % each, model)
        for number in range(count)
    )


def _batch(run: Run) -> int:
    first = next(one for one in run.passes if one.calls)
    return len(first.ids) if first.ids is not None else len(first.calls[0].rows.weights)


@dataclass(eq=False)
class _Sequence:
    """One sequence of a run, and where its rows stand in each pass."""

    run: Run
    number: int
    each: int
    tokenizer: Any

    @property
    def item(self) -> int:
        return self.number // self.each

    @cached_property
    def passes(self) -> Sequence[Pass]:
        """The forwards that this sequence took part in."""
        forwards = [one for one in self.run.passes if one.step >= 0]
        return forwards[: self.new_tokens] if self.run.generated is not None else forwards

    @cached_property
    def prompt(self) -> int:
        """How many positions ``sequences`` holds of the prompt, padding included."""
        first = next(one for one in self.run.passes if one.step >= 0)
        return 0 if first.ids is None else first.ids.shape[1]

    @cached_property
    def new_tokens(self) -> int:
        """How many tokens were put out for this sequence, its end token included, the filling after it not."""
        generated = self.run.generated
        assert generated is not None
        if generated.beams is not None:
            return int((generated.beams[self.number] >= 0).sum())
        new = generated.sequences[self.number, self.prompt :].tolist()
        end = next((place + 1 for place, token in enumerate(new) if token in generated.ends), None)
        if end is not None:
            return end
        while new and generated.pad is not None and new[-1] == generated.pad:
            new.pop()
        return len(new)

    def row(self, one: Pass, batch: int, call: str) -> int:
        """The row of this sequence in the batch of a pass."""
        generated = self.run.generated
        if generated is None:
            if self.number < batch:
                return self.number
        elif one.step >= 0 and generated.beams is not None:
            return int(generated.beams[self.number, one.step])
        elif batch == len(generated.sequences):
            return self.number
        elif batch * self.each == len(generated.sequences):
            return self.item
        raise CaptureError(f"{call}: a batch of {batch} does not fit the sequences of this run; see recording.calls")

    # ---- tokens

    @cached_property
    def ids(self) -> list[int] | None:
        """The tokens of the decoder (or only) side, padding dropped, with the last one put out."""
        generated = self.run.generated
        if generated is not None and self.prompt:
            tokens = generated.sequences[self.number, : self.prompt + self.new_tokens].tolist()
            real = self._real(len(tokens))
            return [token for token, kept in zip(tokens, real, strict=True) if kept]
        if any(one.ids is None for one in self.passes):
            return None
        rows = [one.ids[self.row(one, len(one.ids), "ids")].tolist() for one in self.passes if one.ids is not None]
        tokens = rows[-1] if self.passes[-1].past == 0 else [token for row in rows for token in row]
        real = self._real(len(tokens))
        return [token for token, kept in zip(tokens, real, strict=True) if kept]

    def _real(self, length: int) -> list[bool]:
        """Which of the positions read are no padding; positions after the mask are the tokens put out."""
        masks = [one for one in self.passes if one.mask is not None]
        if not masks:
            return [True] * length
        mask = masks[-1].mask
        assert mask is not None
        row = mask[self.row(masks[-1], len(mask), "attention_mask")].bool().tolist()
        return (row + [True] * length)[:length]

    @cached_property
    def source(self) -> tuple[list[int] | None, list[bool] | None]:
        """The tokens of the encoder side and which of its positions are no padding."""
        ids, mask = self.run.source_ids, self.run.source_mask
        real = None
        if mask is not None:
            real = mask[self._source_row(len(mask))].bool().tolist()
        if ids is None:
            return None, real
        tokens = ids[self._source_row(len(ids))].tolist()
        kept = real if real is not None and len(real) == len(tokens) else [True] * len(tokens)
        return [token for token, keep in zip(tokens, kept, strict=True) if keep], kept

    def _source_row(self, batch: int) -> int:
        generated = self.run.generated
        if generated is None:
            return self.number
        items = len(generated.sequences) // self.each
        return self.item * (batch // items)  # expanded for beams or candidates: the copies stand together

    # ---- maps

    def maps(self) -> list[AttentionMap]:
        """The maps of this sequence, joined over its passes."""
        joined: dict[tuple[str, int, str, int], list[tuple[Pass, AttentionCall]]] = {}
        taken = [one for one in self.run.passes if one.step < 0] + list(self.passes)
        for one in taken:
            for call in one.calls:
                joined.setdefault((call.module, call.index, call.kind, call.layer), []).append((one, call))
        maps = [self._map(parts) for parts in joined.values()]
        order = list(dict.fromkeys(m.group for m in maps))
        return sorted(maps, key=lambda m: (order.index(m.group), m.layer))

    def _map(self, parts: list[tuple[Pass, AttentionCall]]) -> AttentionMap:
        call = parts[-1][1]
        pieces = [self._piece(one, each) for one, each in parts]
        read, rows, places = 0, [], []
        for (one, _), (weights, at) in zip(parts, pieces, strict=True):
            fresh = [n for n, place in enumerate(at) if place >= read]
            rows.append(weights[:, fresh])
            places += [at[n] for n in fresh]
            read = max(read, self._read_after(one, at))
        width = max(part.shape[-1] for part in rows)
        joined = [torch.nn.functional.pad(part, (0, width - part.shape[-1])) for part in rows]
        weights = joined[0] if len(joined) == 1 else torch.cat(joined, dim=1)
        queries = self._query_labels(call, places)
        keys = self._key_labels(call, width)
        if call.kind == "self" and len(keys) == len(places) and places == list(range(width)):
            queries = keys
        error = max(float(part.error) for _, part in parts)
        return AttentionMap(
            weights,
            queries,
            keys,
            stack=call.stack,
            layer=call.layer,
            index=call.index,
            kind=call.kind,
            module=call.module,
            steps=tuple(max(0, place - self._first_new) for place in places)
            if self._decodes(call)
            else (0,) * len(places),
            positions=tuple(places) if call.kind == "self" else None,
            produced=self._produced(places) if self._decodes(call) else None,
            error=error,
            **self._vectors(parts),
        )

    def _piece(self, one: Pass, call: AttentionCall) -> tuple[torch.Tensor, list[int]]:
        """The rows of this sequence in one call: weights ``[head, row, key]`` without padding, and their places."""
        kept = call.rows
        row = self.row(one, len(kept.weights), call.module)
        places = kept.positions[row].tolist()
        rows = [n for n, place in enumerate(places) if place >= 0]
        weights = kept.weights[row]
        weights = weights if len(rows) == len(places) else weights[:, rows]
        columns, width = self._columns(one, call, weights.shape[-1])
        if columns is not None:
            weights = weights[..., columns]
            weights = torch.nn.functional.pad(weights, (width - len(columns), 0))  # keys that a window has dropped
        return weights, [places[n] for n in rows]

    def _columns(self, one: Pass, call: AttentionCall, keys: int) -> tuple[list[int] | None, int]:
        """Which key columns are real and how many keys there are by now; None when all columns are, as they stand."""
        if call.kind == "cross" or (call.stack == "encoder" and self.run.source_mask is not None):
            real = self.source[1]
            if real is None or len(real) != keys or all(real):
                return None, keys
            return [n for n, kept in enumerate(real) if kept], sum(real)
        if one.ids is None and one.mask is None:
            return None, keys
        read = one.past + (one.ids.shape[1] if one.ids is not None else 0)
        if one.ids is None or (keys != read and call.stack not in ("decoder", "encoder")):
            return None, keys
        real = self._real(read)
        dropped = max(0, read - keys)  # a sliding cache holds the last keys only
        columns = [n - dropped for n in range(dropped, read) if real[n]]
        if dropped == 0 and len(columns) == keys:
            return None, keys
        return columns, sum(real)

    def _read_after(self, one: Pass, places: Sequence[int]) -> int:
        return max([*places, -1]) + 1

    @cached_property
    def _first_new(self) -> int:
        """The place of the row that put out the first new token: the prompt's last."""
        first = self.passes[0]
        length = first.ids.shape[1] if first.ids is not None else 0
        return max(0, sum(self._real(first.past + length)) - 1)

    def _decodes(self, call: AttentionCall) -> bool:
        return call.stack == "decoder" and (self.run.generated is not None or len(self.passes) > 1)

    def _produced(self, places: Sequence[int]) -> tuple[str | None, ...]:
        labels = self._own_labels
        return tuple(
            labels.texts[place + 1] if labels is not None and self._first_new <= place < len(labels) - 1 else None
            for place in places
        )

    @cached_property
    def _own_labels(self) -> Labels | None:
        return None if self.ids is None else label_tokens(self.ids, self.tokenizer)

    @cached_property
    def _source_labels(self) -> Labels | None:
        return None if self.source[0] is None else label_tokens(self.source[0], self.tokenizer)

    def _query_labels(self, call: AttentionCall, places: Sequence[int]) -> Labels:
        labels = self._side(call.stack)
        if labels is None or any(place >= len(labels) for place in places):
            return Labels.plain((str(place) for place in places), "latent")
        return labels.at(places)

    def _key_labels(self, call: AttentionCall, width: int) -> Labels:
        labels = self._source_labels if call.kind == "cross" else self._side(call.stack)
        extra = 1 if self.run.generated is not None and call.kind == "self" and call.stack != "encoder" else 0
        if labels is None or not width <= len(labels) <= width + extra:
            return Labels.plain(map(str, range(width)), "latent")
        return labels[:width]

    def _side(self, stack: str) -> Labels | None:
        return self._source_labels if stack == "encoder" and self.run.source_ids is not None else self._own_labels

    def _vectors(self, parts: list[tuple[Pass, AttentionCall]]) -> dict[str, torch.Tensor | None]:
        if any("query" not in call.kept.get("vectors", ()) for _, call in parts):
            return {}
        queries, read = [], 0
        for one, call in parts:
            kept = call.kept["vectors"]
            row = self.row(one, len(kept["query"]), call.module)
            places = kept["positions"][row].tolist()
            queries.append(kept["query"][row][:, [n for n, place in enumerate(places) if place >= read]])
            read = self._read_after(one, places)
        one, call = parts[-1]
        keys = call.kept["vectors"]["key"][self.row(one, len(call.kept["vectors"]["key"]), call.module)]
        columns, _ = self._columns(one, call, keys.shape[1])
        return {
            "query_vectors": torch.cat(queries, dim=1),
            "key_vectors": keys if columns is None else keys[:, columns],
        }
