"""Where what attention mixed meets the residual stream of its block: found from what goes by, not from names.

Two runs are compared, one as it was and one with zeros in place of what was mixed. The sum is the first thing behind
the kernel that depends on it and, with zeros, is something from before the kernel plus a constant: that something is
the residual. A norm between the two (Gemma 2, OLMo 2) is the inner one; a norm that reads the sum is the outer one, if
the residual was not normed for the attention before (then it belongs to the next part). Where there is no such sum,
attention and MLP may stand side by side, and the block's output is the sum of both and the residual.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from hf_attnviz.capturing.blocks import Event
from hf_attnviz.capturing.held import is_norm
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text

_ROUNDINGS: Final = 8  # a sum of a few numbers is rounded a few times
_ROWS: Final = 16  # rows by which the joint is found; that it holds for all of them is for the proof


@dataclass(frozen=True)
class Joint:
    """The place where a kernel's output is added to the stream, as numbers of events.

    Attributes:
        site: where the output projection is read: what was mixed comes by there, linearly.
        bare: whether nothing else but a constant is there; else the residual is in it already.
        residual: what it is added to.
        stream: the sum; None where attention and MLP are added at once.
        form: how the block is built.
        inner, outer: what a norm was given, and what it gave.
    """

    site: int
    bare: bool
    residual: int
    stream: int | None
    form: str
    inner: tuple[int, int] | None = None
    outer: tuple[int, int] | None = None


def joint_of(real: Sequence[Event], zero: Sequence[Event], kernel: int, rows: torch.Tensor) -> Joint:
    """The joint of the kernel that is event number ``kernel``.

    Args:
        real, zero: the two runs.
        rows: ``[row, 2]``: the batch and the query of each row that is no padding.

    Raises:
        CaptureError: there is none that is understood; the message says why.
    """
    some = torch.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).round().long()
    look = _Look(real, zero, kernel, rows[some])
    if look.is_even():
        raise CaptureError(
            Text(
                "all rows of what its block reads are alike, so no stream can be told from a constant",
                "它所在的块读入的各行全都相同，无法区分残差流与常量",
            )
        )
    if not look.before:
        raise CaptureError(
            Text(
                "what it mixed has positions of its own (windows, another order), or there are fewer than two of "
                "them: it cannot be told from the residual stream",
                "它所混合的内容有自己的位置（窗口、另一种次序），或不足两个位置：无法与残差流区分",
            )
        )
    found = look.sum_in_the_block() or look.side_by_side()
    if found is None:
        raise CaptureError(
            Text(
                "no place was found in its block where what it mixed, projected, is added to the residual stream and "
                "to nothing else",
                "在它所在的块中，找不到把它所混合并投影的内容仅加到残差流上的地方",
            )
        )
    return found


class _Look:
    """Two runs of a block, looked at from one kernel: the streams before it, and those behind that depend on it."""

    def __init__(self, real: Sequence[Event], zero: Sequence[Event], kernel: int, rows: torch.Tensor) -> None:
        self.real, self.zero, self.kernel, self.rows = real, zero, kernel, rows.T.unbind()
        self.shape = real[kernel].tensor.shape[:2]
        unlike = (n for n, (one, other) in enumerate(zip(real, zero, strict=False)) if not one.like(other))
        self.alike = next(unlike, min(len(real), len(zero)))  # other experts may be asked, further on
        # The first one that fits: a stream that a norm leaves as it is comes by once more behind that norm.
        self.before = [n for n in range(kernel) if self._is_stream(n) and not _even(self._at(n))]
        self.after = [n for n in range(kernel + 1, self.alike) if self._is_stream(n) and self._depends(n)]

    def is_even(self) -> bool:
        """Whether all rows of what the block itself reads are alike."""
        first = next((n for n, one in enumerate(self.real) if one.module is None and self._is_stream(n)), None)
        return first is not None and len(self.rows[0]) > 1 and _even(self._at(first))

    def sum_in_the_block(self) -> Joint | None:
        """Residual and attention, added up before anything else is."""
        pairs = ((m, r) for m in self.after for r in self.before if _even(self._without(m), self._at(r)))
        stream, residual = next(pairs, (None, None))
        if stream is None or residual is None:
            return None
        sums = self._at(stream), self._at(residual)
        addends = [n for n in self.after if n < stream and _add_up(*sums, self._at(n))]
        inner = self._inner(stream, addends)
        normed = any(_same(self.real[n], self.real[residual]) for n in self._norms(0, self.kernel))
        outer = None if inner else self._outer(stream, normed)
        site = inner[0] if inner else addends[-1] if addends else stream
        form = "inner norm" if inner else "post-norm" if outer else "pre-norm" if normed else "no norm"
        return Joint(site, bool(inner or addends), residual, stream, form, inner, outer)

    def side_by_side(self) -> Joint | None:
        """Attention's own output, that of something that does not read it, and the residual, added at the end."""
        end, without = (run[-1].tensor for run in (self.real, self.zero))
        if end.shape[:2] != self.shape or without.shape != end.shape:
            return None
        end, without = end[self.rows], without[self.rows]
        beside = [n for n in range(self.alike) if self._is_stream(n) and n not in self.after]
        for site in reversed(self.after):
            own, constant = self._at(site), self._without(site)
            if not _even(constant):
                continue
            for residual, other in ((r, n) for r in self.before for n in beside if not self._is_equal(n, r)):
                rest = self._at(residual), self._at(other)
                if _add_up(end, own, *rest) and _add_up(without, constant, *rest):
                    return Joint(site, True, residual, None, "parallel")
        return None

    # ---- norms

    def _inner(self, stream: int, addends: Iterable[int]) -> tuple[int, int] | None:
        """The norm that what was mixed goes through before it is added."""
        norms = self._norms(self.kernel + 1, stream)
        if not norms:
            return None
        out = self._gives(norms[0])
        if len(norms) > 1 or out not in addends or norms[0] not in self.after or not _even(self._without(norms[0])):
            raise CaptureError(
                Text(
                    f"{type(self.real[norms[0]].module).__name__} norms what it mixed before that is projected; parts "
                    "go through a norm only where it stands right at the residual stream",
                    f"{type(self.real[norms[0]].module).__name__} 在投影之前就对它所混合的内容做归一化；"
                    "只有归一化就在残差流上时，各部分才能穿过它",
                )
            )
        return norms[0], out

    def _outer(self, stream: int, normed: bool) -> tuple[int, int] | None:
        """The norm that the sum goes through, when what comes of it is the stream from there on, and not the sum.

        Args:
            normed: whether the residual was normed before attention read it: told where neither is added to again.
        """
        norms = self._norms(stream, len(self.real))
        first = next((n for n in norms if _same(self.real[n], self.real[stream])), None)
        if first is None:
            return None
        out = self._gives(first)
        sum_goes_on, normed_goes_on = self._goes_on(stream), self._goes_on(out)
        stays = normed if sum_goes_on == normed_goes_on else sum_goes_on
        return None if stays else (first, out)

    def _goes_on(self, number: int) -> bool:
        """Whether something later is the stream of event ``number`` plus something from behind it, or the end is it."""
        stream, last = self.real[number].tensor[self.rows], self.real[-1]
        later = [n for n in range(number + 1, len(self.real)) if self._is_stream(n) and not self._is_equal(n, number)]
        pairs = ((total, part) for total in later for part in later if part < total)
        return _same(last, self.real[number]) or any(_add_up(self._at(t), stream, self._at(p)) for t, p in pairs)

    def _is_equal(self, one: int, other: int) -> bool:
        return _same(self.real[one], self.real[other])

    def _norms(self, start: int, stop: int) -> list[int]:
        """The events at which a norm was given something."""
        return [n for n in range(start, stop) if self.real[n].kind == "in" and is_norm(self.real[n].module)]

    def _gives(self, number: int) -> int:
        """The event at which a module gives what it made of what it was given at ``number``."""
        module = self.real[number].module
        return next(
            n for n in range(number, len(self.real)) if self.real[n].kind == "out" and self.real[n].module is module
        )

    # ---- rows

    def _is_stream(self, number: int) -> bool:
        tensor = self.real[number].tensor
        return tensor.dim() == 3 and tensor.shape[:2] == self.shape

    def _depends(self, number: int) -> bool:
        return not torch.equal(self._at(number), self._without(number))

    def _at(self, number: int) -> torch.Tensor:
        """The rows ``[row, width]`` of the run as it was."""
        return self.real[number].tensor[self.rows]

    def _without(self, number: int) -> torch.Tensor:
        """The rows of the run without what was mixed."""
        return self.zero[number].tensor[self.rows]


def _same(one: Event, other: Event) -> bool:
    return one.tensor.shape == other.tensor.shape and torch.equal(one.tensor, other.tensor)


def _even(rows: torch.Tensor, of: torch.Tensor | None = None) -> bool:
    """Whether all rows ``[row, width]`` are one and the same; with ``of``, whether they differ from it by one and the
    same."""
    base = torch.zeros_like(rows) if of is None else of
    if base.shape != rows.shape:
        return False
    sizes, differences = rows.double().abs() + base.double().abs(), rows.double() - base.double()
    surest = sizes.argmin(0, keepdim=True)  # where large numbers cancel, little is left of the difference
    return _add_up(rows, base, differences.gather(0, surest).expand_as(rows))


def _add_up(total: torch.Tensor, *parts: torch.Tensor) -> bool:
    """Whether the parts sum up to the total, but for rounding."""
    if any(part.shape != total.shape for part in parts):
        return False
    eps = torch.finfo(total.dtype).eps
    size = torch.stack([one.double().abs() for one in (total, *parts)]).sum(0)
    off = (total.double() - torch.stack([part.double() for part in parts]).sum(0)).abs()
    return bool((off <= _ROUNDINGS * eps * size).all())
