"""What a recording holds: runs, their passes, and the attention calls in them, batch still inside."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import torch

from hf_attnviz.capturing import sentences
from hf_attnviz.capturing.families import TOWERS
from hf_attnviz.capturing.generated import Generated, Planned
from hf_attnviz.capturing.gradients import NotReachedError
from hf_attnviz.capturing.pieces import Piece
from hf_attnviz.capturing.scope import Context
from hf_attnviz.capturing.streams import Streams
from hf_attnviz.errors import NotKeptError
from hf_attnviz.language import Text
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.rows import KeptRows, PackedMaps

if TYPE_CHECKING:
    from hf_attnviz.capturing.budget import Account
    from hf_attnviz.capturing.loops import Loop, Place

LAYOUT: Final = ("batch", "head", "query", "key")


def layout_of(shape: Sequence[int]) -> tuple[str, ...]:
    """The axes of weights; names for those whose meaning only the model knows."""
    return LAYOUT if len(shape) == 4 else ("batch", *(f"own_{n}" for n in range(len(shape) - 3)), "query", "key")

_ROWS: Final = Text('keep="maps" or keep=av.Rows([...])', 'keep="maps" 或 keep=av.Rows([...])')


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One computation of attention, as it ran, batch still inside.

    Attributes:
        module: the module's name in ``model.named_modules()``.
        kind: ``"self"`` or ``"cross"``.
        stack: where the block stands: ``"encoder"``, ``"decoder"``, ``"vision"`` …
        layer: the model's block index; where one module serves many blocks, the call's.
        index: which map of this module.
        step: 0 for a plain pass or the prompt, then one for each further forward of the run; beside an RNN, the turn of
            the decoder's loop.
        steps: how many forwards it joins, of which ``step`` was the first: without maps, many steps of decoding are one
            call.
        implementation: the backend that ran.
        grade, way, masked_rows: the grade of the proof (``"stated"``: none, a user's own statement), how the weights
            were obtained, and how many rows could attend to nothing and were left out of it.
        layout: the axes of ``weights``.
        tokens: whether the rows are the positions of the sequence that was read, one each.
        shape: that of all weights as they ran, whatever was kept of them.
        positions: the place of each row ``[batch, query]``; -1 for padding.
        looks_back: whether no row looks at a later place; None where rows stand on no keys.
    """

    module: str
    kind: str
    stack: str
    layer: int
    index: int
    step: int
    implementation: str
    grade: str
    way: str
    masked_rows: int
    kept: Mapping[str, Any] = field(repr=False)
    error_tensor: torch.Tensor = field(repr=False)
    bound: float = float("nan")
    layout: tuple[str, ...] = LAYOUT
    tokens: bool = True
    gradient_rows: Callable[[], KeptRows] | None = field(default=None, repr=False)
    shape: tuple[int, ...] = ()
    positions: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0), repr=False)
    looks_back: bool | None = None
    steps: int = 1

    @property
    def statistics(self) -> Reduced:
        """Entropy, distance, sink ``[batch, head, query]`` and received ``[batch, head, key]``."""
        found: Reduced = self.reduced("statistics")
        return found

    def reduced(self, name: str) -> Any:
        """What a reducer gave, by its name.

        Raises:
            NotKeptError: it was not asked for; or the call has a layout of the model's own, which is not reduced.
        """
        if name in self.kept:
            return self.kept[name]
        if self.layout != LAYOUT:
            raise NotKeptError(sentences.not_reduced(self.module, self.layout))
        raise self._missing(name, f"keep={name!r}")

    @property
    def error(self) -> float:
        """The proof: the largest deviation of the weights from what the kernel computed."""
        return float(self.error_tensor)

    @property
    def has_rows(self) -> bool:
        """Whether weights were kept, of all rows or of chosen ones."""
        return bool({"maps", "rows"} & self.kept.keys())

    @property
    def rows(self) -> KeptRows | PackedMaps:
        """The rows kept, with the position of each."""
        for name in ("maps", "rows"):
            if name in self.kept:
                found: KeptRows | PackedMaps = self.kept[name]
                return found
        raise self._missing("weights", _ROWS)

    @property
    def weights(self) -> torch.Tensor:
        """``[batch, head, query, key]`` (with ``Rows``: the rows chosen; packed ones are unpacked anew each time)."""
        return self.rows.weights

    @property
    def gradient(self) -> torch.Tensor:
        """d(scalar)/d(weights) in the layout of ``weights``, summed over your calls of ``backward()``.

        Raises:
            NotKeptError: gradients were not asked for, or are not there (yet); the message says what to do.
        """
        if self.gradient_rows is None:
            raise NotKeptError(sentences.no_gradients(self.module))
        return self.gradient_rows().weights

    def gradient_if_any(self, *, zeros: bool) -> KeptRows | None:
        """The rows of the gradient, if there is one by now; with ``zeros``, zeros where ``backward()`` passed by."""
        try:
            return None if self.gradient_rows is None else self.gradient_rows()
        except NotReachedError:
            return KeptRows(torch.zeros_like(self.weights), self.rows.positions) if zeros else None
        except NotKeptError:
            return None

    @property
    def query(self) -> torch.Tensor:
        """Query vectors ``[batch, head, query, size]``, times the model's scaling."""
        return self._vector("query")

    @property
    def key(self) -> torch.Tensor:
        """Key vectors ``[batch, key_value_head, key, size]``, after rotary embedding."""
        return self._vector("key")

    @property
    def value(self) -> torch.Tensor:
        """Value vectors ``[batch, key_value_head, key, size]``."""
        return self._vector("value")

    @property
    def output(self) -> torch.Tensor:
        """What each head put out, weights · values ``[batch, head, query, size]``, before the output projection."""
        return self._vector("output")

    def _vector(self, name: str) -> torch.Tensor:
        if "vectors" not in self.kept:
            raise self._missing(name, 'keep=["maps", av.Vectors()]')
        if name not in self.kept["vectors"]:
            raise NotKeptError(sentences.by_hand(self.module, name))
        vector: torch.Tensor = self.kept["vectors"][name]
        return vector

    def _missing(self, what: str, keep: Text | str) -> NotKeptError:
        return NotKeptError(sentences.not_kept(what, self.module, self.kept, keep))


@dataclass(frozen=True, eq=False)
class Side:
    """What one side of a model read in one pass.

    Attributes:
        ids: token ids ``[batch, new]``, or None.
        mask: the 2-D mask over everything read so far ``[batch, past + new]``, or None.
        past: how many positions a cache held before.
        new: how many positions were read, or None where that is not known.
        cached: whether a cache was in use.
        types: which text of a pair each token belongs to, as the tokenizer says ``[batch, new]``, or None.
    """

    ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    past: int = 0
    new: int | None = None
    cached: bool = False
    types: torch.Tensor | None = None

    def real(self, batch: int, positions: int) -> torch.Tensor:
        """How many of the first positions of each sequence are no padding ``[batch]``."""
        if self.mask is None or self.mask.shape[0] != batch or self.mask.shape[1] < positions:
            return torch.full((batch,), positions)
        return self.mask[:, :positions].bool().sum(1).cpu()

    def positions(self, batch: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The place of each row in its own sequence ``[batch, rows]`` (-1: padding), and each sequence's length."""
        if rows != self.new:  # patches, latents, windows: no position of the sequence that was read
            return torch.arange(rows, device="cpu").expand(batch, -1), torch.full((batch,), rows, device="cpu")
        read = self.past + rows
        if self.mask is None or self.mask.shape[0] != batch or self.mask.shape[1] < read:
            at = torch.arange(self.past, read, device="cpu")
            return at.expand(batch, -1), torch.full((batch,), read, device="cpu")
        real = self.mask[:, :read].bool().cpu()
        return torch.where(real, real.cumsum(1) - 1, -1)[:, self.past :], real.sum(1)


@dataclass(eq=False)
class Pass:
    """One forward of the target (or, before the first, the encoder alone inside ``generate()``).

    Attributes:
        step: the number of the forward in its run; -1 before the first.
        side: what the decoder, or the only tower that reads tokens, read.
        batch: how many rows the forward had, or None.
        second: the second size of what it read: the batch, where inputs stand time first, or None; 1 for a sequence of
            vectors without a batch.
        prefix: the tokens that ``generate()`` had for each row ``[batch, length]``, or None.
        read: how many positions the forwards before it have read, padding included.
        prompt: how many positions the prompt has, as far as it is read by its end; None until that is asked.
    """

    step: int
    side: Side = field(default_factory=Side)
    batch: int | None = None
    second: int | None = None
    prefix: torch.Tensor | None = None
    read: int = 0
    prompt: int | None = None
    calls: list[AttentionCall] = field(default_factory=list)
    loops: "dict[Place, Loop]" = field(default_factory=dict)
    places: dict[tuple[Any, ...], Places] = field(default_factory=dict)
    _blocks: dict[str, list[Context]] = field(default_factory=dict)

    @property
    def beyond(self) -> int:
        """How many positions are read by its end beyond the tokens that ``generate()`` had at hand for it."""
        return self.side.past + (self.side.new or 0) - (0 if self.prefix is None else self.prefix.shape[1])

    @property
    def has_all_tokens(self) -> bool:
        """Whether ``generate()`` had all tokens of it at hand: not for chunks, nor for a prompt of embeddings."""
        return self.prefix is not None and self.beyond == 0

    def layer(self, group: str, context: Context, own: int | None) -> int:
        """The layer number of a call: the block's own, or the running number where one module serves many blocks."""
        blocks = self._blocks.setdefault(group, [])
        if context not in blocks:
            blocks.append(context)
        shared = len({id(block.module) for block in blocks}) < len(blocks)
        return blocks.index(context) if shared or own is None else own


@dataclass(frozen=True, eq=False)
class Filled:
    """How full a cache is, and which tensor holds its first keys: a cache that is cut, put in another order, copied for
    more rows or emptied holds another tensor, or fewer positions."""

    length: int
    keys: "weakref.ref[torch.Tensor] | None"

    @classmethod
    def of(cls, cache: Any) -> "Filled":
        """As the cache is now."""
        own = getattr(cache, "self_attention_cache", cache)
        keys = (getattr(layer, "keys", None) for layer in getattr(own, "layers", None) or ())
        first = next((tensor for tensor in keys if isinstance(tensor, torch.Tensor)), None)
        length = getattr(cache, "get_seq_length", None)
        return cls(0 if length is None else int(length() or 0), None if first is None else weakref.ref(first))

    def still(self, cache: Any) -> bool:
        """Whether nobody but the model has changed the cache since."""
        now = Filled.of(cache)
        before, after = (None if one.keys is None else one.keys() for one in (self, now))
        return now.length == self.length and before is after


@dataclass(eq=False)
class Run:
    """One outermost ``generate()`` or forward of the target; forwards that continue its cache join it.

    Attributes:
        number: the number of the run in its recording.
        two_sided: whether the target is an encoder-decoder.
        passes: the forwards, in order.
        source: what an encoder-decoder's encoder read.
        planned: what ``generate()`` was asked for, None for plain forwards.
        generated: what it returned.
        drafted_from: how many positions the prompt of an assisted decoding has: whatever a forward reads after them
            is a draft first, and may be rejected. None where nothing was drafted.
        media: what its forwards, and those of an encoder, were given of pictures and sound, one entry each.
        origins: which pieces of a pipeline's inputs it read, one a row; none outside pipelines.
        problems: what went wrong, by module.
        others: modules in which positions look at one another without a softmax over keys, and what they are.
        failed: the model itself raised an error; such a run has no traces.
        cache, filled: the cache that its last forward left, and how it left it.
        account, refused: the bytes that it has kept, and may; whether it was too much, and no more is kept.
        by_functions: whether functions were called in it that attention is written by hand with.
        beams: how many beams ``generate()`` follows, whose rows change places; 1: rows stay where they are.
        streams: what reducers carry from one call to another.
    """

    number: int
    two_sided: bool = False
    passes: list[Pass] = field(default_factory=list)
    source: Side = field(default_factory=Side)
    planned: Planned | None = None
    generated: Generated | None = None
    drafted_from: int | None = None
    media: list[Mapping[str, Any]] = field(default_factory=list)
    origins: Sequence[Piece] = ()
    problems: dict[str, Exception] = field(default_factory=dict)
    others: dict[str, Text] = field(default_factory=dict)
    failed: bool = False
    done: bool = False
    cache: "weakref.ref[Any] | None" = None
    filled: "Filled | None" = None
    account: "Account | None" = None
    refused: bool = False
    by_functions: bool = False
    beams: int = 1
    streams: Streams = field(default_factory=Streams, repr=False)

    @property
    def rests(self) -> bool:
        """Whether a whole forward has shown that all attention comes through the interface."""
        return self.passes[-1].step > 0 and bool(self.first.calls) and not self.by_functions

    @property
    def first(self) -> Pass:
        """The first forward of the target."""
        return next(one for one in self.passes if one.step == 0)

    @property
    def each_step(self) -> "Sequence[AttentionCall]":
        """The calls of the first forward that every step of decoding has: encoders and towers read once."""
        return [call for call in self.first.calls if call.stack == "decoder" or call.kind == "cross"]

    @property
    def calls(self) -> Sequence[AttentionCall]:
        """The attention calls of all passes, in the order in which they ran."""
        return [call for one in self.passes for call in one.calls]

    @property
    def forwards(self) -> Sequence[Pass]:
        """The passes that were forwards of the target itself."""
        return [one for one in self.passes if one.step >= 0 and not self.is_aside(one)]

    def refuse(self) -> None:
        """Keep nothing of it, now and from now on."""
        self.refused, self.account = True, None
        for one in self.passes:
            one.calls.clear()
            one.loops.clear()

    @property
    def prefill(self) -> Sequence[Pass]:
        """The forwards that read the prompt: the first, and those that read further chunks of it."""
        first, *later = self.forwards

        def chunk(one: Pass) -> bool:
            return one.prefix is not None and one.side.past > 0 and first.has_all_tokens and not one.has_all_tokens

        return [first, *takewhile(chunk, later)]

    @property
    def prompt(self) -> int:
        """How many positions the prompt has, as far as it is read; padding included."""
        if self.drafted_from is not None:
            return self.drafted_from + self.forwards[0].beyond
        last = self.prefill[-1].side
        return last.past + (last.new or 0)

    def is_aside(self, one: Pass) -> bool:
        """Whether ``generate()``, which makes its passes ready, ran this one aside: the other half of guidance."""
        return one.prefix is None and any(other.prefix is not None for other in self.passes)

    def side(self, stack: str, one: Pass) -> Side:
        """What the blocks of a stack read in a pass; an empty side for images, sound and what is not known."""
        if self.two_sided:
            return self.source if stack == "encoder" else one.side if stack == "decoder" else Side()
        return Side() if stack in TOWERS else one.side

    def begin_pass(self) -> Pass:
        """A new forward of the run."""
        before = self.forwards
        read = max(before[-1].read, before[-1].side.past + (before[-1].side.new or 0)) if before else 0
        self.passes.append(Pass(len(before), read=read))
        return self.passes[-1]

    def prologue(self) -> Pass:
        """The pass for what ``generate()`` runs between forwards: before those that it makes ready (the encoder), one
        of its own, for an aside may have come first (what language is it?)."""
        ready = [one for one in self.passes if one.prefix is not None]
        if not ready and (not self.passes or self.passes[-1].step >= 0):
            self.passes.append(Pass(-1))
        return ready[-1] if ready else self.passes[-1]
