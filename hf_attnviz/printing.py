"""What the command line says: the doctor's table, the numbers of an analysis in short, and all of them for a file."""

import json
import math
import os
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text as RichText

import hf_attnviz as av

Text = av.language.Text

PRINTS: Final = ("heatmap", "tokens", "bars")
_MOST_ROWS: Final = 24
_GRADES: Final = {  # what the doctor says of a map, and its colour; what is no attention is no failure
    "exact": (Text("exact", "精确"), "green"),
    "consistent": (Text("consistent", "一致"), "yellow"),
    "stated": (Text("stated, not proved", "用户声明，未证明"), "yellow"),
    "none": (Text("no attention map", "没有注意力图"), "cyan"),
    "refused": (Text("refused", "拒绝"), "red"),
}


def show(result: av.Result, output: Path | None) -> None:
    """Print a result, and write it where asked."""
    print_result(result)
    if output is not None:
        tables = {"csv": as_csv, "json": as_json}
        if (ending := output.suffix.lower().removeprefix(".")) in tables:
            wrote(av.View("", "", figures={ending: lambda **_: tables[ending](result)}).save(output))
        else:
            wrote(av.picture(result).save(output))


def wrote(path: Path) -> None:
    """Say which file there is now."""
    _say(_console(), f"{Text('wrote', '已写入')} {path}")


def print_diagnosis(found: av.Diagnosis) -> None:
    """A line for each module that attends, then what is refused and why, then one line that counts."""
    console = _console()
    console.print(RichText(av.visible(found.model), "bold"))
    if found.given:
        _say(console, f"{Text('reads', '输入')} {found.given}")
    table = _table(
        Text("module", "模块"), Text("attends", "注意"), Text("heads × query × key", "头 × 查询 × 键"),
        Text("calls", "次数"), Text("backend", "后端"), Text("proof", "核验"), Text("error", "误差"),
    )  # fmt: skip
    for one in found.findings:
        grade, colour = _GRADES[one.grade]
        error = "" if one.error is None else f"{one.error:.0e}"
        _row(table, (one.module, _place(one), one.layout, one.calls or "", one.backend, grade, error), colour)
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for one in found.findings:
        if one.grade == "refused":
            reasons.setdefault(one.reason, []).append(one.module)
    for reason, modules in reasons.items():
        _say(console, f"{', '.join(modules)}{Text(': ', '：')}{reason}", "red")
    if found.reason:
        _say(console, found.reason)
    _say(console, _summary(found))


def print_result(result: av.Result) -> None:
    """The numbers in a table of at most a page, then the notes."""
    console = _console()
    console.print(RichText(av.visible(_title(result)), "bold"))
    names = [axis.name for axis in result.axes]
    wide = names[0] == "statistic" and names[-1] in ("query", "key") and len(names) == 4
    headings, rows = _by_word(result) if wide else _in_short(result)
    table = _table(*headings)
    for row in rows[:_MOST_ROWS]:
        _row(table, row)
    console.print(table)
    if len(rows) > _MOST_ROWS:
        more = len(rows) - _MOST_ROWS
        _say(console, str(Text(f"… and {more} more: -o FILE.csv has all", f"…… 另有 {more} 行：-o FILE.csv 可得全部")))
    if result.unit:
        unit = av.unit_word(result.unit)
        _say(console, str(Text(f"unit: {result.unit}", f"单位：{unit.zh}")))
    for note in result.notes:
        _say(console, f"· {note}")


def print_trust(found: av.Trust) -> None:
    """Each ranking's verdict and its sentence, then what was left out."""
    console = _console()
    subject = found.target.subject
    number = f"{found.probability:.3f}"
    told = Text(f": the probability of {subject.en}: {number}", f"：{subject.zh}的概率：{number}")
    _say(console, f"{found.model}{told}", "bold")
    for method, verdict in found.verdicts.items():
        colour = {"trust": "green", "do not": "red"}.get(verdict, "yellow")
        said = av.verdict_word(verdict)
        _say(
            console,
            str(Text(f"{method}: {verdict}", f"{method}（{av.statistic_words(method)[0].zh}）：{said.zh}")),
            colour,
        )
        _say(console, f"    {found.sentences[method]}")
    for note in found.notes:
        _say(console, f"· {note}")


def print_trace(
    trace: av.Trace, kind: str, stack: str | None, layer: int | None, *, query: int | None = None, **options: Any
) -> None:
    """One map as shades, the text in the shades of what its tokens get, or a generation's entropies as bars."""
    name = stack or ("cross" if "cross" in trace.stacks else next(iter(trace.stacks)))
    if kind == "bars":
        head = options.pop("head")
        entropies = av.evolution(trace, stack=name).select(statistic="entropy")
        chosen = {"layer": layer, "head": head}
        av.print_bars(entropies.select(**{axis: str(n) for axis, n in chosen.items() if n is not None}), **options)
        return
    layers = trace.stack(name)
    found = layers.layer(layers.layers[-1] if layer is None else layer)
    if kind == "tokens":
        av.print_tokens(found, query=query, **options)
    else:
        av.print_heatmap(found, **options)


def print_bench(found: av.Bench) -> None:
    """The tables, the notes, and whether the numbers mean anything."""
    _console().print(found)


def as_csv(result: av.Result) -> bytes:
    """Every number with its labels; what is undefined is left empty."""
    return str(result.to_pandas().to_csv(index=False)).encode()


def as_json(result: av.Result) -> bytes:
    """Every number and all that is said about it; what is undefined is null, what is infinite a word."""

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        return value if value is None or isinstance(value, str | int | float | bool) else str(value)

    about = {
        "method": result.method,
        "parameters": {name: plain(value) for name, value in result.parameters.items()},
        "source": result.source,
        "unit": result.unit,
        "notes": [str(note) for note in result.notes],
        "axes": [{"name": axis.name, "labels": list(axis.labels)} for axis in result.axes],
        "values": plain(result.values.double().tolist()),
    }
    return json.dumps(about, ensure_ascii=False, allow_nan=False, indent=1).encode()


def _by_word(result: av.Result) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """A row for each word: the means over all heads of all layers, side by side."""
    headings = [_axis(result.axes[-1].name), *map(_label, result.axes[0].labels)]
    means = result.values.double().nanmean((1, 2)).T.tolist()
    words = result.axes[-1].labels
    return headings, [(word, *map(_number, row)) for word, row in zip(words, means, strict=True)]


def _in_short(result: av.Result) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """A row for each label of the first axis: the mean, the least and the largest number, and where they stand."""
    first, *rest = result.axes
    headings = [_axis(first.name), Text("mean", "平均"), Text("least", "最小"), Text("largest", "最大")]
    places = list(product(*(range(len(axis.labels)) for axis in rest)))
    rows: list[tuple[Any, ...]] = []
    for label, values in zip(first.labels, result.values.double().reshape(len(first.labels), -1).tolist(), strict=True):
        known = [(value, place) for value, place in zip(values, places, strict=True) if not math.isnan(value)]
        if not known:
            rows.append((_label(label), Text("undefined", "未定义"), "", ""))
            continue
        ends = [choose(known, key=lambda one: one[0]) for choose in (min, max)]
        where = [f"{_number(value)}  {_where(rest, place)}" for value, place in ends]
        rows.append((_label(label), _number(sum(value for value, _ in known) / len(known)), *where))
    return headings, rows


def _where(axes: list[av.Axis], place: tuple[int, ...]) -> str:
    """A place in a few words: ``L0H3`` for a head, else the labels."""
    labels = {axis.name: axis.labels[n] for axis, n in zip(axes, place, strict=True)}
    if {"layer", "head"} <= labels.keys():
        head = f"L{labels.pop('layer')}H{labels.pop('head')}"
        return " ".join([head, *(f"{_axis(name)} {text}" for name, text in labels.items())])
    if len(axes) == 1:
        return axes[0].labels[place[0]]
    return " ".join(f"{_axis(name)} {text}" for name, text in labels.items())


def _title(result: av.Result) -> str:
    return str(Text(result.method, av.method_word(result.method).zh))


def _axis(name: str) -> str:
    return str(Text(name, av.axis_word(name).zh))


def _label(name: str) -> str:
    """A label, as code calls it; in Chinese with its meaning, where it is a statistic."""
    word = av.statistic_words(name)[0].zh
    return str(Text(name, name if word == name else f"{name} {word}"))


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _console() -> Console:
    edge = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return Console(width=None if edge else 200)  # a pipe has no edge to wrap at


def _table(*headings: Any) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(str(heading), overflow="fold")
    return table


def _row(table: Table, cells: tuple[Any, ...], colour: str = "") -> None:
    table.add_row(*(RichText(av.visible(str(cell))) for cell in cells), style=colour)  # others' names are no markup


def _say(console: Console, line: str, colour: str = "") -> None:
    console.print(RichText(av.visible(line), colour), soft_wrap=True)


def _place(one: av.Finding) -> str:
    """Where a map stands; for a module that has none, what it is instead."""
    if one.grade == "none":
        return one.reason
    words = (one.stack, "" if one.layer < 0 else str(one.layer), one.kind, f"#{one.index}" if one.index else "")
    return " ".join(word for word in words if word)


def _summary(found: av.Diagnosis) -> str:
    """One line: how many maps are proved, and everything that is not, each counted by itself."""
    count = Counter(one.grade for one in found.findings)
    maps = len(found.findings) - count["none"]
    parts = [Text(f"{count['exact']} of {maps} maps proved exact", f"{maps} 张图中 {count['exact']} 张已精确核验")]
    if count["stated"]:
        parts.append(Text(f"{count['stated']} stated, not proved", f"{count['stated']} 张为用户声明，未证明"))
    if count["refused"]:
        parts.append(Text(f"{count['refused']} refused", f"拒绝 {count['refused']} 张"))
    if count["none"]:
        parts.append(Text(f"{count['none']} named as no attention", f"另有 {count['none']} 个模块不是注意力"))
    identical, unchanged = _yes(found.identical), _yes(found.unchanged)
    parts.append(Text(f"output identical to the last bit: {identical}", f"输出逐位相同：{identical}"))
    parts.append(Text(f"model unchanged: {unchanged}", f"模型未被改动：{unchanged}"))
    return str(Text("; ", "；")).join(map(str, parts))


def _yes(true: bool) -> Text:
    return Text("yes", "是") if true else Text("NO", "否")
