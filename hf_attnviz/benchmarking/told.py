"""What a benchmark says: the same cells in a terminal, in Markdown and in JSON."""

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text as RichText

from hf_attnviz.language import Text
from hf_attnviz.legible import visible

if TYPE_CHECKING:
    from hf_attnviz.benchmarking.table import Bench, Row, Section

_WIDTH: Final = 140  # of a table that is printed into a text


def _ratio(number: float) -> str:
    return f"{number:.3f}"


def _megabytes(number: float) -> str:
    return f"{number / 1e6:,.0f}"


def _small(number: float) -> str:
    return f"{number:.1e}"


def _bits(number: float) -> str:
    return str(Text("same bits", "逐位相同") if number == 0 else Text(f"off by {number:.0e}", f"相差 {number:.0e}"))


def _interval(numbers: Mapping[str, float]) -> str:
    return f"{_ratio(numbers['low'])} – {_ratio(numbers['high'])}" if "low" in numbers else ""


Cell = Callable[[Mapping[str, float]], str]


def _of(name: str, spoken: Callable[[float], str]) -> Cell:
    return lambda numbers: spoken(numbers[name]) if name in numbers else ""


_TIME: Final[tuple[tuple[Text, Cell], ...]] = (
    (Text("ratio", "比值"), _of("ratio", _ratio)),
    (Text("95 % interval", "95% 区间"), _interval),
    (Text("seconds", "秒"), _of("seconds", _ratio)),
    (Text("output", "输出"), _of("apart", _bits)),
    (Text("FLOP bound", "FLOP 下界"), _of("bound", _ratio)),
)
_PARTS: Final[dict[str, tuple[Text, tuple[tuple[Text, Cell], ...], Callable[[float], str]]]] = {
    "time": (Text("Time, as a ratio to plain", "时间：与原样运行之比"), _TIME, _ratio),
    "decoding": (Text("Generating, as a ratio to plain", "生成：与原样运行之比"), _TIME[:-1], _ratio),
    "memory": (
        Text("Memory: growth in MB", "内存增长（MB）"),
        (
            (Text("growth", "增长"), _of("growth", _megabytes)),
            (Text("over plain", "超出原样"), _of("over", _megabytes)),
        ),
        _megabytes,
    ),
    "truth": (
        Text("Statistics against float64, as |error| / max(1, |x|)", "统计量与 float64 之差：|误差| / max(1, |x|)"),
        (
            (Text("entropy", "熵"), _of("entropy", _small)),
            (Text("distance", "距离"), _of("distance", _small)),
            (Text("sink", "首词元"), _of("sink", _small)),
            (Text("received", "所受注意"), _of("received", _small)),
        ),
        _small,
    ),
}
JUDGED: Final = {  # the numbers of a row that its must is held against
    "time": ("ratio",),
    "decoding": ("ratio",),
    "memory": ("growth",),
    "truth": ("entropy", "distance", "sink", "received"),
}


def tables(bench: "Bench") -> Iterator[tuple[str, list[str], list[tuple[list[str], str]]]]:
    """For each section its title, its headings, and its rows with a colour each."""
    for section in bench.sections:
        title, columns, spoken = _PARTS[section.part]
        headings = [
            Text("variant", "方式"),
            *(heading for heading, _ in columns),
            Text("must be ≤", "须 ≤"),
            Text("", ""),
        ]
        rows = [_cells(section, row, columns, spoken) for row in section.rows]
        yield f"{title} · {section.where}", [str(heading) for heading in headings], rows


def _cells(
    section: "Section", row: "Row", columns: tuple[tuple[Text, Cell], ...], spoken: Callable[[float], str]
) -> tuple[list[str], str]:
    if row.reason is not None:
        return [str(row.name), *[""] * (len(columns) + 1), str(row.reason)], "red" if row.failed else "bright_black"
    met = section.met(row)
    must = "" if row.must is None else spoken(row.must)
    verdict = "" if met is None else str(Text("met", "达到") if met else Text("MISSED", "未达到"))
    colour = "" if met is None else "green" if met else "red"
    return [str(row.name), *(cell(row.numbers) for _, cell in columns), must, verdict], colour


def ending(bench: "Bench") -> list[tuple[str, str]]:
    """The last lines: notes, then the verdict, with a colour each."""
    lines = [(f"· {note}", "") for note in bench.notes]
    lines += [(f"{name}: {value}", "bright_black") for name, value in bench.machine.items()]
    if not bench.correct:
        wrong = Text(
            "WRONG: a run of ours failed, changed the output, or gave statistics that float64 does not: see the "
            "tables; this is a bug, please report it with these tables",
            "错误：我们的某次运行失败、改变了输出，或统计量与 float64 不符：见上表；这是缺陷，请附上这些表格报告",
        )
        lines.append((str(wrong), "bold red"))
    if not bench.valid:
        invalid = Text(
            "INVALID: plain against plain is not 1 ± 0.03 with its whole interval, so something else used this machine "
            "and no ratio here means anything. Close other programs, keep the machine on mains power, and run it "
            "again, with more --rounds if it stays so",
            "INVALID（无效）：两次原样运行之比的区间超出 1 ± 0.03，说明机器上另有负载，表中比值均不可信。"
            "请关闭其他程序、接通电源后重测；若仍如此，请增大 --rounds",
        )
        lines.append((str(invalid), "bold red"))
    return lines


def group(bench: "Bench") -> Group:
    """For a terminal."""
    drawn: list[Table | RichText] = []
    for title, headings, rows in tables(bench):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=RichText(visible(title), "bold"), title_justify="left")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for cells, colour in rows:
            table.add_row(*(RichText(visible(cell)) for cell in cells), style=colour)
        drawn.append(table)
    return Group(*drawn, *(RichText(visible(line), colour) for line, colour in ending(bench)))


def plain(bench: "Bench") -> str:
    """The same without colours."""
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(group(bench))
    return captured.get().rstrip()


def markdown(bench: "Bench") -> str:
    """The tables in Markdown, and the notes."""
    parts = []
    for title, headings, rows in tables(bench):
        lines = [headings, ["---"] * len(headings), *(cells for cells, _ in rows)]
        table = "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)
        parts.append(f"### {title}\n\n{table}")
    notes = "\n".join(f"- {line.removeprefix('· ')}" for line, _ in ending(bench))
    return "\n\n".join([*parts, notes]) + "\n"


def _escaped(cell: str) -> str:
    return visible(cell).replace("|", "\\|")


def dictionary(bench: "Bench") -> dict[str, Any]:
    """Everything for JSON."""
    return {
        "valid": bench.valid,
        "correct": bench.correct,
        "machine": dict(bench.machine),
        "settings": dict(bench.settings),
        "notes": [str(note) for note in bench.notes],
        "sections": [
            {"part": one.part, "where": str(one.where), "rows": [_row(one, row) for row in one.rows]}
            for one in bench.sections
        ],
    }


def _row(section: "Section", row: "Row") -> dict[str, Any]:
    return {
        "variant": row.key,
        "name": str(row.name),
        **{name: number if math.isfinite(number) else None for name, number in row.numbers.items()},
        "must": row.must,
        "met": section.met(row),
        "reason": None if row.reason is None else str(row.reason),
        "failed": row.failed,
    }


FORMATS: Final[dict[str, Callable[["Bench"], str]]] = {
    "md": markdown,
    "json": lambda bench: json.dumps(dictionary(bench), ensure_ascii=False, allow_nan=False, indent=1) + "\n",
}
