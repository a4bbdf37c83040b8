"""What stands at the positions of one sequence: its tokens, its source's tokens, its pictures and its sound."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_attnviz.capturing.families import COMPARING, SOUND_TOKENS, TOKENS_AND_PATCHES, TOWERS
from hf_attnviz.capturing.mixed import Share, filled, placeholders, share
from hf_attnviz.capturing.pairs import parted
from hf_attnviz.capturing.positions import Positions, numbered
from hf_attnviz.capturing.runs import AttentionCall, Run
from hf_attnviz.labels import Labels, label_tokens
from hf_attnviz.trace import Origin

if TYPE_CHECKING:
    from hf_attnviz.capturing.reading import Reading


def media(run: Run) -> Mapping[str, Any]:
    """What the run was given of pictures and sound; nothing where its forwards were given different ones."""
    return run.media[0] if run.media and all(one == run.media[0] for one in run.media) else {}


def rate(run: Run, processor: Any) -> float | None:
    """Samples, or columns of a spectrogram, a second; None where nothing says, or a sound is read in several passes."""
    reader = getattr(processor, "feature_extractor", None) or processor
    samples, hop = getattr(reader, "sampling_rate", None), getattr(reader, "hop_length", None)
    heard = Counter((call.module, call.index) for call in run.calls if call.stack in ("encoder", *TOWERS))
    if not samples or max(heard.values(), default=0) > 1:
        return None
    columns = any(len(media(run).get(name, ())) == 3 for name in ("input_features", "input_values"))
    return float(samples) if not columns else samples / hop if hop else None


def compared(run: Run, positions: Positions, count: int) -> int:
    """How many pictures a forward compares with each of its ``count`` texts, where these are different in number."""
    if not positions.media or positions.setting("model_type") not in COMPARING:
        return 1
    pictures = positions.pictures
    return pictures if run.generated is None and count not in (1, pictures) else 1


@dataclass(eq=False)
class Names:
    """The labels of one sequence's maps."""

    of: "Reading"
    positions: Positions
    _begun: dict[tuple[int, int], Labels] = field(default_factory=dict)  # maps share most of their labels

    @property
    def place(self) -> tuple[int, int]:
        """The item and the candidate: a row and which sequence was returned for it, or a picture and its text."""
        of = self.of
        return (of.item, of.number % of.each) if of.others == 1 else (of.other, of.number)

    @property
    def origin(self) -> Origin | None:
        """Which piece of a pipeline's inputs this is, where a row is a piece, or all rows are the same one's."""
        of, origins = self.of, self.of.run.origins
        if of.others > 1:
            return origins[of.other].of(of.number, of.count) if len(origins) == of.others else None
        if len(origins) == 1:
            return origins[0].of(of.item, of.items)
        return origins[of.item].of(0, 1) if len(origins) == of.items else None

    # ---- tokens

    @cached_property
    def own(self) -> Labels | None:
        """The decoder's (or only) side; None where its tokens are not known."""
        ids = self.of.ids
        if ids is None:
            return None
        known = [token for token in ids if token is not None]
        unknown = len(ids) - len(known)  # a prompt of embeddings has no tokens
        labels = label_tokens(known, self.of.tokenizer)
        if unknown:
            none = [None] * unknown
            before = Labels.of([f"⟨{n}⟩" for n in range(unknown)], none, none, ["latent"] * unknown)
            return Labels.joined([before, labels])
        labels = parted(labels, self._types, self.of.tokenizer)
        if not self.positions.media:
            return labels
        pictures = self.share.labels if self.share is not None else None
        # A placeholder that is put out stands for nothing.
        read = ids if self.of.run.generated is None else ids[: self.of.real_prompt]
        labels = filled(labels, placeholders(self.positions, read), pictures)
        return filled(labels, placeholders(self.positions, read, SOUND_TOKENS), None)

    @cached_property
    def source(self) -> Labels | None:
        """The encoder's side of an encoder-decoder; None where it read no tokens."""
        ids, types, real = self.of.run.source.ids, self.of.run.source.types, self.of.source_real
        if ids is None:
            return None
        row = self.of.source_row(len(ids))
        if ids.shape[1] and int(ids[row].min()) < 0:
            return None  # hidden states that no text encoder was seen to make
        kept = real if real and len(real) == ids.shape[1] else [True] * ids.shape[1]

        def chosen(values: Sequence[int]) -> list[int]:
            return [value for value, known in zip(values, kept, strict=True) if known]

        told = chosen(types[row].tolist()) if types is not None and types.shape == ids.shape else None
        return parted(label_tokens(chosen(ids[row].tolist()), self.of.tokenizer), told, self.of.tokenizer)

    def side(self, stack: str) -> Labels | None:
        """The tokens that the blocks of a stack read."""
        return self.source if self.of.run.two_sided and stack == "encoder" else self.own

    @cached_property
    def _types(self) -> list[int] | None:
        """Which text of a pair each token belongs to, as the model was told, padding dropped."""
        one = self.of.passes[0]
        if self.of.run.generated is not None or len(self.of.passes) > 1 or one.side.types is None:
            return None
        row: list[int] = one.side.types[self.of.row(one, len(one.side.types), "token_type_ids")].tolist()
        return [kind for kind, kept in zip(row, self.of.real(len(row)), strict=True) if kept]

    # ---- pictures and sound

    @cached_property
    def share(self) -> Share | None:
        """Which pictures are this sequence's, where its tokens tell."""
        first, tower = self.of.run.forwards[0], self._tower("vision")
        ids = first.side.ids
        if ids is None or tower is None or not self.positions.media:
            return None
        each = max(1, len(ids) // self.of.items)  # copies for beams stand together, and read the same pictures
        return share(self.positions, tower, ids[::each], self.of.item)

    def _tower(self, stack: str) -> str:
        """A module that attends in a stack; "" where none was seen."""
        return next((call.module for call in self.of.run.calls if call.stack == stack and call.kind == "self"), "")

    def tower(self, call: AttentionCall, length: int) -> Labels | None:
        """What the keys of a map are, where they are patches or frames, to be numbered."""
        module, stack = call.module, call.stack
        two_sided = self.of.run.two_sided
        if call.kind == "cross" and stack not in TOWERS:
            stack = "encoder" if two_sided else "vision"
            module = self._tower(stack)
            if self.own is not None and len(self.own) == length and not two_sided:
                return None  # tokens, it may be
        if not module or not (stack in TOWERS or (stack == "encoder" and two_sided)):
            return None
        begins = (self.origin.seconds if self.origin is not None else None) or 0.0
        real = self.of.source_real if stack == "encoder" else None
        if real is None or sum(real) != length or len(real) == length:
            return self.positions.labels(module, stack, length, begins)
        every = self.positions.labels(module, stack, len(real), begins)
        return None if every is None else every.at([n for n, kept in enumerate(real) if kept])

    def piece(self, call: AttentionCall, number: int, count: int) -> Labels:
        """What the keys of a map are, of one of several pictures or tiles."""
        keys = call.shape[-1]
        found = self.positions.block(call.index, keys) if self.positions.blockwise else self.tower(call, keys)
        return _latent(range(keys)) if found is None else numbered([found] * count, [number])[0]

    # ---- the two sides of a map

    def keys(self, call: AttentionCall, width: int, turns: bool = False) -> Labels:
        """The labels of a map's columns; ``turns``: its rows are the turns of a loop."""
        of_source = call.kind == "cross" and (self.of.run.two_sided or self.of.run.source.ids is not None)
        labels = self.source if of_source else self.side(call.stack)
        # What was put out last was never read, so a generation has one label more than keys.
        extra = 1 if self.of.run.generated is not None and call.kind == "self" and call.stack != "encoder" else 0
        fits = labels is not None and width <= len(labels) <= width + extra
        if labels is None or not fits or not (call.tokens or of_source or turns):
            found = self._both(call, width) or self.tower(call, width)
            return _latent(range(width)) if found is None else numbered([found])[0]
        key = (id(labels), width)
        if key not in self._begun:
            self._begun[key] = labels[:width]
        return self._begun[key]

    def queries(self, call: AttentionCall, places: Sequence[int], keys: Labels) -> Labels:
        """The labels of a map's rows, at these places of its sequence."""
        labels = self.side(call.stack)
        if call.tokens and labels is not None and all(place < len(labels) for place in places):
            return labels.at(places)
        if call.kind == "self" and call.shape[-2] == len(keys) and all(place < len(keys) for place in places):
            return keys.at(places)
        return _latent(places)

    def _both(self, call: AttentionCall, width: int) -> Labels | None:
        """Tokens and patches in one sequence, where the family says which stand first."""
        first = TOKENS_AND_PATCHES.get(self.positions.setting("model_type"))
        if first is None or self.own is None or call.kind == "cross" or call.stack in TOWERS:
            return None
        tower = self._tower("vision") or call.module
        pictures = self.positions.labels(tower, "vision", width - len(self.own))
        parts = [self.own, pictures] if first == "tokens" else [pictures, self.own]
        return None if pictures is None else Labels.joined([part for part in parts if part is not None])


def _latent(places: Sequence[int]) -> Labels:
    return Labels.plain(map(str, places), "latent")
