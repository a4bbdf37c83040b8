"""What a benchmark found: sections of rows, each row one variant, and what must hold of it."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hf_attnviz.benchmarking import told
from hf_attnviz.benchmarking.variants import AGAIN
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.storage import write_atomically

if TYPE_CHECKING:
    from rich.console import Group

QUIET: Final = 0.03  # how far from 1 the interval of plain against plain may reach
TIMED: Final = ("time", "decoding")


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        key, name: the variant.
        numbers: what was measured, by column; empty where nothing was.
        must: the most that the section's first column may be, or None where nothing is said of this row.
        reason: why nothing was measured.
        ours: its output must keep every bit of the first plain run's; so must the last one's, or something was left.
        failed: it was there and did not run.
    """

    key: str
    name: Text
    numbers: Mapping[str, float] = field(default_factory=dict)
    must: float | None = None
    reason: Text | None = None
    ours: bool = False
    failed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", MappingProxyType(dict(self.numbers)))


@dataclass(frozen=True)
class Section:
    """A table: one thing measured on one shape.

    Attributes:
        part: ``"time"``, ``"decoding"`` (ratios to plain, with ``low`` and ``high``, the ends of its 95 % interval, the
            ``bound`` of FLOPs, and ``apart``, how far the output is from the plain one's), ``"memory"`` (bytes of
            ``growth``, and how many ``over`` plain) or ``"truth"`` (how far each statistic is from float64 arithmetic).
        where: on what, in words.
        rows: one a variant.
    """

    part: str
    where: Text
    rows: tuple[Row, ...]

    @property
    def quiet(self) -> bool:
        """Whether the machine was quiet: plain against plain is 1 ± 0.03 with its whole interval. Where no time is
        measured, nothing has to be."""
        if self.part not in TIMED:
            return True
        found = [row.numbers for row in self.rows if row.key == AGAIN]
        return bool(found) and all(abs(one.get(end, math.nan) - 1) <= QUIET for one in found for end in ("low", "high"))

    def met(self, row: Row) -> bool | None:
        """Whether a row holds what it must; None where nothing is said of it, or nothing can be."""
        if row.must is None or not row.numbers or not self.quiet:
            return None
        judged = [row.numbers[name] for name in told.JUDGED[self.part] if name in row.numbers]
        return all(number <= row.must for number in judged)


@dataclass(frozen=True, eq=False)
class Bench:
    """The cost of looking on one machine; ``print`` shows it as tables, :meth:`save` writes it.

    Attributes:
        sections: the tables.
        machine: processor, versions and everything else that the numbers depend on.
        settings: the arguments.
        notes: how it was measured, and what a reader must know.
    """

    sections: tuple[Section, ...]
    machine: Mapping[str, str]
    settings: Mapping[str, Any]
    notes: tuple[Text, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether plain against plain stayed within 1 ± 0.03 wherever time was measured."""
        return all(section.quiet for section in self.sections)

    @property
    def correct(self) -> bool:
        """Whether ours ran, kept every bit of the output, and gave statistics within the tolerance of float64."""
        own = [(section, row) for section in self.sections for row in section.rows if row.ours]
        bits = all(row.numbers.get("apart", 0.0) == 0.0 and not row.failed for _, row in own)
        return bits and all(section.met(row) is not False for section, row in own if section.part == "truth")

    @property
    def ok(self) -> bool:
        """Valid and correct; whether it was as quick as it must be, each row says."""
        return self.valid and self.correct

    @property
    def missed(self) -> tuple[tuple[Section, Row], ...]:
        """The rows that do not hold what they must."""
        return tuple((section, row) for section in self.sections for row in section.rows if section.met(row) is False)

    def __str__(self) -> str:
        return told.plain(self)

    def __repr__(self) -> str:
        counted = sum(len(section.rows) for section in self.sections)
        return f"Bench({len(self.sections)} tables, {counted} rows; valid: {self.valid}; correct: {self.correct})"

    def __rich__(self) -> "Group":
        return told.group(self)

    def to_markdown(self) -> str:
        """The tables in Markdown."""
        return told.markdown(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can say it: what is no number is null."""
        return told.dictionary(self)

    def save(self, path: str | os.PathLike[str], *, kind: str | None = None) -> Path:
        """Write it to ``path`` in one atomic step.

        Args:
            kind: ``"md"`` or ``"json"``; default: what the path ends in.

        Raises:
            ArgumentError: another kind.
            SaveError: the file could not be written; what stood there stands there still.
        """
        kind = Path(path).suffix.lower().removeprefix(".") if kind is None else kind
        if kind not in told.FORMATS:
            raise ArgumentError(
                Text(
                    f"a benchmark is saved as md or json, not as {kind or 'a file without ending'!r}",
                    f"基准测试可保存为 md 或 json，不能保存为 {kind or '没有扩展名的文件'!r}",
                )
            )
        return write_atomically(path, told.FORMATS[kind](self).encode())
