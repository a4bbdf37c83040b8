"""What a recording holds: runs, their passes, and the attention calls in them, batch still inside."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_attnviz.capturing.proof import Proved
from hf_attnviz.capturing.reducers import KeptRows
from hf_attnviz.capturing.scope import Context
from hf_attnviz.errors import NotKeptError, listed


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One computation of attention, as it ran, batch still inside.

    Attributes:
        module: the module's name in ``model.named_modules()``.
        kind: ``"self"`` or ``"cross"``.
        stack: where the block stands: ``"encoder"``, ``"decoder"``, ``"vision"`` …
        layer: the model's block index; where one module serves many blocks, the call's.
        index: which map of this module.
        step: 0 for a plain pass or the prompt, then one for each further forward of the run.
        implementation: the backend that ran.
        grade, way, masked_rows: the grade of the proof, how the weights were obtained, and how many rows could attend
            to nothing and were left out of it.
        layout: the axes of ``weights``.
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
    layout: tuple[str, ...] = ("batch", "head", "query", "key")

    @property
    def error(self) -> float:
        """The proof: the largest deviation of the weights from what the kernel computed."""
        return float(self.error_tensor)

    @property
    def rows(self) -> KeptRows:
        """The rows kept, with the position of each."""
        for name in ("maps", "rows"):
            if name in self.kept:
                found: KeptRows = self.kept[name]
                return found
        raise self._missing("weights", 'keep="maps" or keep=av.Rows([...])')

    @property
    def weights(self) -> torch.Tensor:
        """``[batch, head, query, key]`` (with ``Rows``: the rows chosen)."""
        return self.rows.weights

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

    def _vector(self, name: str) -> torch.Tensor:
        if "vectors" not in self.kept:
            raise self._missing(name, 'keep=["maps", av.Vectors()]')
        if name not in self.kept["vectors"]:
            raise NotKeptError(f"{self.module} computes its attention by hand; its {name} vectors cannot be seen")
        vector: torch.Tensor = self.kept["vectors"][name]
        return vector

    def _missing(self, what: str, keep: str) -> NotKeptError:
        return NotKeptError(f"{what} of {self.module} were not kept (kept: {listed(self.kept)}); capture with {keep}")


@dataclass(eq=False)
class Pass:
    """One forward of the target (or, before the first, the encoder alone inside ``generate()``).

    Attributes:
        step: the number of the forward in its run.
        ids: token ids read ``[batch, query]``, or None.
        mask: the 2-D mask over everything read so far ``[batch, past + query]``, or None.
        past: how many positions a cache held before.
    """

    step: int
    ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    past: int = 0
    calls: list[AttentionCall] = field(default_factory=list)
    _blocks: dict[str, list[Context]] = field(default_factory=dict)

    def layer(self, group: str, context: Context, own: int | None) -> int:
        """The layer number of a call: the block's own, or the running number where one module serves many blocks."""
        blocks = self._blocks.setdefault(group, [])
        if context not in blocks:
            blocks.append(context)
        shared = len({id(block.module) for block in blocks}) < len(blocks)
        return blocks.index(context) if shared or own is None else own


@dataclass(frozen=True, eq=False)
class Generated:
    """What ``generate()`` gave back.

    Attributes:
        sequences: ``[returned, length]``, prompt included for decoder-only models.
        beams: ``[returned, new]``: the row of the batch that put out each token, -1 after the end; None without beams.
        each: how many sequences were returned for each input.
        ends, pad: ids that end a sequence, and the id that fills it up afterwards.
    """

    sequences: torch.Tensor
    beams: torch.Tensor | None
    each: int
    ends: tuple[int, ...]
    pad: int | None


@dataclass(eq=False)
class Run:
    """One outermost ``generate()`` or forward of the target; forwards that continue its cache join it.

    Attributes:
        number: the number of the run in its recording.
        passes: the forwards, in order.
        source_ids, source_mask: what an encoder-decoder's encoder read ``[batch, key]``.
        generated: what ``generate()`` returned, None for plain forwards.
    """

    number: int
    passes: list[Pass] = field(default_factory=list)
    source_ids: torch.Tensor | None = None
    source_mask: torch.Tensor | None = None
    generated: Generated | None = None
    problems: dict[str, Exception] = field(default_factory=dict)
    ran: bool = False
    cache: "weakref.ref[Any] | None" = None

    @property
    def calls(self) -> Sequence[AttentionCall]:
        """The attention calls of all passes, in the order in which they ran."""
        return [call for one in self.passes for call in one.calls]

    def begin_pass(self) -> Pass:
        """A new forward of the run."""
        self.passes.append(Pass(sum(one.step >= 0 for one in self.passes)))
        return self.passes[-1]

    def prologue(self) -> Pass:
        """The pass for what runs before the first forward (the encoder, inside ``generate()``)."""
        if not self.passes:
            self.passes.append(Pass(-1))
        return self.passes[-1]


def described(proved: Proved) -> dict[str, Any]:
    """The proof's part of an :class:`AttentionCall`."""
    return {
        "grade": proved.grade,
        "way": proved.way,
        "masked_rows": proved.masked_rows,
        "error_tensor": proved.error,
        "bound": proved.bound,
    }
