"""What each key adds to each query's vector: read where a block adds it up, and proved by adding it up again."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch

from hf_attnviz.capturing.blocks import NO_BLOCK, Event, Kernel, put_first
from hf_attnviz.capturing.held import held
from hf_attnviz.capturing.joints import Joint, joint_of
from hf_attnviz.capturing.proof import tolerance
from hf_attnviz.decomposition import Decomposition, HeldNorm
from hf_attnviz.errors import CaptureError, ProofError
from hf_attnviz.language import Text, told
from hf_attnviz.progress import shown

_RUNNING: Final = Text("reading an output projection", "正在读取输出投影")
_LARGE: Final = 256.0  # where the residual is in what is read, the projection must not drown in its rounding


@dataclass(frozen=True, eq=False)
class Projection:
    """What a block makes of a kernel's output: found once, and used again as long as the proof holds.

    Attributes:
        joint: where it is added to the stream.
        weight: ``[head, size, width]``.
        constant: ``[width]``.
    """

    joint: Joint
    weight: torch.Tensor
    constant: torch.Tensor


@dataclass(eq=False)
class KeptParts:
    """The values of one attention call, and, once its block has ended, of what its output is made.

    Attributes:
        values: ``[batch, key_value_head, key, size]``, or None where the module does not show them.
        weights: ``[batch, head, query, key]``.
        positions: ``[batch, query]``: the place of each row; -1 for padding.
        refusal: why it is not known of what the output is made; None once it is.
        parts: what is known, one for each row of the batch, padding included.
    """

    values: torch.Tensor | None
    weights: torch.Tensor
    positions: torch.Tensor
    refusal: Text | None = NO_BLOCK
    parts: Sequence[Decomposition] = field(default=())

    def of(self, row: int, queries: Sequence[int], keys: Sequence[int] | None) -> Decomposition | None:
        """The parts of one sequence: its row of the batch, its queries, and its keys (None: all)."""
        if not self.parts:
            return None
        whole, chosen = self.parts[row], list(queries)
        values = whole.values if keys is None else whole.values[:, list(keys)]
        residual = None if whole.residual is None else whole.residual[chosen]
        inner, outer = _rows(whole.inner, chosen), _rows(whole.outer, chosen)
        return replace(whole, values=values, residual=residual, inner=inner, outer=outer)

    def read(self, kernel: Kernel, known: dict[Any, Any]) -> None:
        """Fill in what is known once the block has ended; projections found in earlier calls are in ``known``."""
        self.parts = _Reading(kernel, self).parts(known)
        self.values, self.weights = None, self.weights[:0]  # the parts hold the values; maps, the weights


class _Reading:
    """One kernel in a block."""

    def __init__(self, kernel: Kernel, kept: KeptParts) -> None:
        self.block, self.real, self.event, self.number = kernel.block, kernel.real, kernel.event, kernel.number
        mixed = kernel.mixed
        values, weights = kept.values, kept.weights
        if values is None or weights.dim() != 4 or mixed.dim() != 4 or values.shape[-1] != mixed.shape[-1]:
            raise CaptureError(
                Text("it computes its attention in a way that does not show its values", "它计算注意力的方式不显露其值")
            )
        batch, heads, queries, keys = weights.shape
        fits = (batch, queries, heads) == tuple(mixed.shape[:3]) and heads % values.shape[1] == 0
        if not fits or (values.shape[0], values.shape[2]) != (batch, keys):
            raise CaptureError(
                Text(
                    "its weights and its values do not fit: another order of positions or heads",
                    "它的权重与值不相配：位置或头的次序不同",
                )
            )
        self.values, self.weights = values, weights
        self.rows = (kept.positions >= 0).nonzero()
        self.mask = (kept.positions >= 0).to(mixed.device)

    def parts(self, known: dict[Any, Any]) -> list[Decomposition]:
        """The parts of each row of the batch, proved."""
        module = self.block.module
        state = tuple((one.data_ptr(), -1 if one.is_inference() else one._version) for one in module.parameters())
        key = id(module), self.number, state
        if key in known:
            try:
                return self._proved(known[key])
            except (ProofError, CaptureError, IndexError, StopIteration):
                del known[key]  # it runs in another way now
        found = self._projection()
        try:
            proved = self._proved(found)
        except ProofError as problem:
            why, gated = told(problem), self._gated(found)
            raise ProofError(Text(f"{why.en}{gated.en}", f"{why.zh}{gated.zh}")) from problem
        known[key] = found
        return proved

    def _gated(self, found: Projection) -> Text:
        """Why parts may not add up: one and the same vector, in every row, comes out otherwise here and there."""
        heads, size = self.real[self.event].tensor.shape[2:]
        alike = torch.ones(len(self.rows), heads, size)
        there, still = (self._run(vectors, found.joint.site)[0].tensor for vectors in (alike, None))
        rows = self.rows.T.unbind()
        made = there[rows].double() - still[rows].double()
        if float((made - made[:1]).abs().max()) <= 1e-3 * float(made.abs().max()):
            return Text("", "")
        return Text(
            "; what is made of a vector differs from row to row, as by a gate, and no one projection says that",
            "；同一向量在各行中得到不同的结果，如同经过门控，没有哪一个投影能这样表达",
        )

    def _projection(self) -> Projection:
        zero = self._run(None)
        with torch._C.DisableTorchFunction():  # nobody looks at this arithmetic
            joint = joint_of(self.real, zero, self.event, self.rows)
        rows = self.rows.T.unbind()
        still = zero[joint.site].tensor[rows].double()
        constant = still.mean(0) if joint.bare else (still - self.real[joint.residual].tensor[rows].double()).mean(0)
        heads, size = self.real[self.event].tensor.shape[2:]
        scale = 1.0 if joint.bare else _LARGE
        basis = torch.eye(heads * size).reshape(-1, heads, size) * scale
        read = []
        starts = range(0, len(basis), len(self.rows))
        for start in shown(starts, len(starts), _RUNNING):
            vectors = basis[start : start + len(self.rows)]
            there = self._run(vectors, joint.site)[0].tensor[rows].double()
            read.append((there - still)[: len(vectors)] / scale)
        weight = torch.cat(read).reshape(heads, size, -1)
        return Projection(joint, _single(weight, self.values.dtype), _single(constant, self.values.dtype))

    def _run(self, vectors: torch.Tensor | None, until: int | None = None) -> list[Event]:
        """The block with zeros in place of what was mixed, and with ``vectors`` in the first rows of it."""
        events = self.block.run({self.number: lambda output: put_first(self.rows, vectors, output)}, until)
        if not events:
            raise CaptureError(
                Text(
                    "its block runs in another way when something else is mixed",
                    "混入别的内容时，它所在的块就以另一种方式运行",
                )
            )
        return events

    def _proved(self, found: Projection) -> list[Decomposition]:
        joint = found.joint
        residual = self.real[joint.residual].tensor
        inner, outer = self._held(joint.inner), self._held(joint.outer)
        weight, constant = found.weight.double(), found.constant.double()
        if joint.stream is None:
            target = self.real[joint.site].tensor.double() + residual.double()
        else:
            target = self.real[joint.outer[1] if joint.outer else joint.stream].tensor
        kinds = (self.real[n].tensor.dtype for n in (self.event, joint.site, joint.residual))  # autocast mixes them
        bound = tolerance(target, max(kinds, key=lambda kind: torch.finfo(kind).eps))
        parts, error = [], 0.0
        for row, weights in enumerate(self.weights):
            values, stream = self.values[row].double(), residual[row].double()
            one = Decomposition(values, weight, constant, stream, _rows(inner, row), _rows(outer, row), joint.form)
            off = (one.output(weights.double()) - target[row].double()).abs()[self.mask[row]]
            error = max(error, float(off.nan_to_num(torch.inf).max()) if off.numel() else 0.0)
            parts.append(one)
        if not error <= bound:
            raise ProofError(
                Text(
                    f"its parts do not add up to what its block goes on with: off by {error:.2g}, allowed {bound:.2g}",
                    f"各部分之和不等于它所在的块继续使用的内容：相差 {error:.2g}，允许 {bound:.2g}",
                )
            )
        kept = (one.to(torch.promote_types(residual.dtype, torch.float32)) for one in parts)
        return [
            replace(one, projection=found.weight, constant=found.constant, error=error, bound=bound) for one in kept
        ]

    def _held(self, norm: tuple[int, int] | None) -> HeldNorm | None:
        if norm is None:
            return None
        given, put = (self.real[n] for n in norm)
        assert given.module is not None
        return held(given.module, given.tensor, put.tensor, self.mask)


def _rows(norm: HeldNorm | None, chosen: int | list[int]) -> HeldNorm | None:
    """A norm for some of its rows: one sequence of a batch, or some queries of one."""
    return None if norm is None else replace(norm, scale=norm.scale[chosen])


def _single(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(torch.promote_types(dtype, torch.float32))
