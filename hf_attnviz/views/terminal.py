"""Attention in a terminal: heat maps, coloured text and bars in ``░▒▓█``, right without colours and in any width."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.axes import HEAD, KEY, LAYER, QUERY, STATISTIC, STEP
from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.views.flowing import spaces_before
from hf_attnviz.views.shades import Shades, Sheet, number
from hf_attnviz.views.typesetting import print_bars_of, print_flow, print_matrix
from hf_attnviz.views.words import axis_word, method_word, statistic_words, unit_line


@dataclass(frozen=True)
class _Matrix:
    values: npt.NDArray[Any]
    rows: Sequence[str]
    columns: Sequence[str]
    title: Text | str
    reading: Text | str


def print_heatmap(
    data: Any,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    head: int | None = None,
    title: Text | str | None = None,
    colour: bool | None = None,
    width: int | None = None,
    file: IO[str] | None = None,
) -> None:
    """Print a matrix as shades, with its numbers where there is room for them.

    Columns that do not fit are folded into blocks; of a matrix too large for that each cell is the largest (in size) of
    its neighbours, and the last line says of how many.

    Args:
        data: a tensor or array ``[row, column]``, a Result with two axes, or an AttentionMap.
        rows, columns: labels; default: those of the data, else numbers.
        head: of an AttentionMap; default: the mean over its heads.
        title: default: what the data says it is.
        colour: default: where a terminal has colours (``NO_COLOR``, ``TERM=dumb`` and pipes are respected).
        width: cells of a line; default: the terminal's.
        file: default: standard output.

    Raises:
        ArgumentError: something else than two axes, or a width below 24 cells.
        ShapeError: labels that are not one a row, or one a column.
        UnknownNameError: no such head.
    """
    found = _matrix(data, head)
    rows, columns = _labels(rows, found.rows, "rows"), _labels(columns, found.columns, "columns")
    sheet = Sheet.of(file, width, colour)
    row_texts, column_texts = ([sheet.text(text) for text in texts] for texts in (rows, columns))
    shades = Shades.of(found.values, sheet.ladder)
    _heading(sheet, title, found.title)
    print_matrix(sheet, shades, found.values, row_texts, column_texts)
    sheet.say(shades.legend())
    _undefined(sheet, found.values)
    if str(found.reading):
        sheet.say(found.reading)


def print_tokens(
    tokens: Sequence[str] | Labels | AttentionMap | Result,
    weights: Any = None,
    *,
    query: int | None = None,
    head: int | None = None,
    title: Text | str | None = None,
    colour: bool | None = None,
    width: int | None = None,
    file: IO[str] | None = None,
) -> None:
    """Print a text, each token followed by the shade of its weight.

    Args:
        tokens: the texts (or labels), one a weight; or an AttentionMap or a Result along tokens, which bring theirs.
        weights: a number a token; left out where ``tokens`` brings them.
        query: of a map: the row that looks; default: the mean over all rows that see anything.
        head: of an AttentionMap; default: the mean over its heads.
        title, colour, width, file: as in :func:`print_heatmap`.

    Raises:
        ArgumentError: numbers that are not along one axis of tokens.
        ShapeError: not one weight a token.
        UnknownNameError: no such query or head.
    """
    texts, spaces, values, named = _along_tokens(tokens, weights, query, head)
    sheet = Sheet.of(file, width, colour)
    shades = Shades.of(values, sheet.ladder)
    _heading(sheet, title, named)
    print_flow(sheet, shades, [sheet.text(text) for text in texts], spaces, values)
    sheet.say(shades.legend())
    _undefined(sheet, values)
    most = [int(n) for n in np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[:3]]
    told = ", ".join(f"{texts[n]} ({n}) {number(float(values[n]))}" for n in most)
    sheet.say(f"{Text('largest', '最大')}: {told}")


def print_bars(
    data: Any,
    *,
    labels: Sequence[str] | None = None,
    statistic: str | None = None,
    title: Text | str | None = None,
    colour: bool | None = None,
    width: int | None = None,
    file: IO[str] | None = None,
) -> None:
    """Print a bar for each of several numbers: a statistic from step to step of a generation, or any list.

    Args:
        data: numbers along one axis; or a Result, of which the mean over layers and heads is taken along its steps, or
            its last axis where it has none.
        labels: one a bar; default: those of the data (for steps, the token each put out), else numbers.
        statistic: which, of a Result with several.
        title, colour, width, file: as in :func:`print_heatmap`.

    Raises:
        ArgumentError: numbers that are not along one axis.
        ShapeError: not one label a bar.
        UnknownNameError: no such statistic, or several and none chosen.
    """
    values, own, named = _along_one(data, statistic)
    texts = _labels(labels, own, "labels")
    sheet = Sheet.of(file, width, colour)
    _heading(sheet, title, named)
    print_bars_of(sheet, values, [sheet.text(text) for text in texts])
    _undefined(sheet, values)
    if isinstance(data, Result) and data.unit:
        sheet.say(unit_line(data.unit))


def _heading(sheet: Sheet, title: Text | str | None, own: Text | str) -> None:
    said = own if title is None else title
    if str(said):
        sheet.say(said, "bold")


def _undefined(sheet: Sheet, values: npt.NDArray[Any]) -> None:
    if missing := int((~np.isfinite(values)).sum()):
        sheet.say(Text(f"? is undefined (NaN): {missing:,}", f"? 为未定义（NaN）：{missing:,} 个"))


def _labels(given: Sequence[str] | None, own: Sequence[str], name: str) -> Sequence[str]:
    if given is not None and len(given) != len(own):
        raise ShapeError(
            Text(
                f"expected {len(own)} {name}, one a number; got {len(given)}",
                f"{name} 应有 {len(own)} 个，每个数一个；现为 {len(given)} 个",
            )
        )
    return own if given is None else [str(text) for text in given]


def _array(data: Any) -> npt.NDArray[Any]:
    if isinstance(data, torch.Tensor):
        data = data.detach().to("cpu", torch.float64).numpy()
    return np.asarray(data, dtype=np.float64)


def _numbered(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def _matrix(data: Any, head: int | None) -> _Matrix:
    if isinstance(data, AttentionMap):
        weights, named = _one_head(data, head)
        reading = Text(
            "A row is the token that looks, a column one that is looked at.", "行是发出注意的词元，列是被注意的词元。"
        )
        return _Matrix(weights, data.row_texts, data.keys.texts, named, reading)
    if isinstance(data, Result):
        return _of_result(data)
    values = _array(data)
    if values.ndim != 2 or not values.size:
        raise ArgumentError(
            Text(
                f"expected numbers [row, column], none empty, got sizes {values.shape}; pick one matrix, such as "
                "weights[0]",
                f"应为非空的 [行, 列] 数值，现形状为 {values.shape}；请选一个矩阵，如 weights[0]",
            )
        )
    return _Matrix(values, _numbered(values.shape[0]), _numbered(values.shape[1]), "", "")


def _of_result(result: Result) -> _Matrix:
    if len(result.axes) != 2 or not result.values.numel():
        more = ", ".join(f"{axis.name}=…" for axis in result.axes[:-2])
        came = listed(f"{axis.name} ({len(axis.labels)})" for axis in result.axes)
        raise ArgumentError(
            Text(
                f"expected a result with two axes, none empty, got {came}; pick with result.select({more})",
                f"应为两个非空轴的结果，现为 {came}；请用 result.select({more}) 选定",
            )
        )
    first, second = result.axes
    words = axis_word(first.name), axis_word(second.name)
    reading = Text(
        f"A row is a {words[0].en}, a column is a {words[1].en}.", f"每行是一个{words[0].zh}，每列是一个{words[1].zh}。"
    )
    return _Matrix(_array(result.values), _written(first), _written(second), _named(result), reading)


def _written(axis: Axis) -> Sequence[str]:
    return [str(statistic_words(text)[0]) for text in axis.labels] if axis.name == STATISTIC else axis.labels


def _named(result: Result) -> Text:
    word = method_word(result.method)
    if STATISTIC not in result.parameters:
        return word
    chosen = statistic_words(str(result.parameters[STATISTIC]))[0]
    return Text(f"{word.en} · {chosen.en}", f"{word.zh} · {chosen.zh}")


def _one_head(found: AttentionMap, head: int | None) -> tuple[npt.NDArray[Any], Text]:
    """The weights of a head, or their mean, and what they are called."""
    weights = found.plain().weights
    if head is not None and not 0 <= head < found.heads:
        raise UnknownNameError(
            Text(
                f"there is no head {head} in {found.group} {found.layer}; it has 0 to {found.heads - 1}",
                f"{found.group} 第 {found.layer} 层没有第 {head} 头；可用 0 到 {found.heads - 1}",
            )
        )
    en = "mean over heads" if head is None else f"head {head}"
    zh = "各头平均" if head is None else f"第 {head} 头"
    named = Text(f"{found.group} · layer {found.layer} · {en}", f"{found.group} · 第 {found.layer} 层 · {zh}")
    return _array(weights.double().mean(0) if head is None else weights[head]), named


def _along_tokens(
    tokens: Any, weights: Any, query: int | None, head: int | None
) -> tuple[Sequence[str], list[bool], npt.NDArray[Any], Text | str]:
    """Texts, whether a space stands before each, numbers, and what they are."""
    if isinstance(tokens, AttentionMap):
        values, named = _one_head(tokens, head)
        row, whose = _row(values, tokens.row_texts, query)
        named = Text(f"{named.en} · {whose.en}", f"{named.zh} · {whose.zh}")
        return tokens.keys.texts, spaces_before(tokens.keys.texts, tokens.keys.words), row, named
    if isinstance(tokens, Result):
        return _result_tokens(tokens, query)
    texts = tuple(map(str, tokens))
    values = _array([] if weights is None else weights)
    if values.shape != (len(texts),) or not texts:
        raise ShapeError(
            Text(
                f"expected a weight for each of {len(texts)} tokens, one at least; got sizes {values.shape}",
                f"{len(texts)} 个词元各应有一个权重，至少一个；现形状为 {values.shape}",
            )
        )
    words = tokens.words if isinstance(tokens, Labels) else None
    return texts, spaces_before(texts, words), values, ""


def _result_tokens(result: Result, query: int | None) -> tuple[Sequence[str], list[bool], npt.NDArray[Any], Text]:
    names = [axis.name for axis in result.axes]
    if names not in ([QUERY], [KEY], [QUERY, KEY]) or not result.values.numel():
        more = ", ".join(f"{name}=…" for name in names if name not in (QUERY, KEY))
        raise ArgumentError(
            Text(
                f"expected a result along tokens (query, key, or both), got axes {listed(names)}; pick with "
                f"result.select({more})",
                f"应为沿词元的结果（query、key 或二者），现有轴 {listed(names)}；请用 result.select({more}) 选定",
            )
        )
    named, values, texts = _named(result), _array(result.values), result.axes[-1].labels
    if len(names) == 2:
        values, whose = _row(values, result.axes[0].labels, query)
        named = Text(f"{named.en} · {whose.en}", f"{named.zh} · {whose.zh}")
    return texts, spaces_before(texts), values, named


def _row(values: npt.NDArray[Any], rows: Sequence[str], query: int | None) -> tuple[npt.NDArray[Any], Text]:
    """One row, or the mean of all that are defined."""
    if query is None:
        defined = np.isfinite(values)
        count = defined.sum(0)
        mean = np.where(count > 0, np.where(defined, values, 0).sum(0) / np.maximum(count, 1), np.nan)
        return mean, Text("mean over queries", "各查询平均")
    if not 0 <= query < len(rows):
        raise UnknownNameError(
            Text(
                f"there is no query {query}; there are 0 to {len(rows) - 1}",
                f"没有查询 {query}；可用 0 到 {len(rows) - 1}",
            )
        )
    return values[query], Text(f"query {rows[query]} ({query})", f"查询 {rows[query]}（{query}）")


def _along_one(data: Any, statistic: str | None) -> tuple[npt.NDArray[Any], Sequence[str], Text | str]:
    if not isinstance(data, Result):
        values = _array(data)
        if values.ndim != 1 or not values.size:
            raise ArgumentError(
                Text(
                    f"expected numbers along one axis, one at least, got sizes {values.shape}",
                    f"应为沿单个轴的数值，至少一个，现形状为 {values.shape}",
                )
            )
        return values, _numbered(len(values)), ""
    chosen = _of_statistic(data, statistic)
    names = [axis.name for axis in chosen.axes]
    along = STEP if STEP in names else names[-1]
    others = [name for name in names if name not in (along, LAYER, HEAD)]
    more = ", ".join(f"{name}=…" for name in others)
    if others or not chosen.values.numel():
        raise ArgumentError(
            Text(
                f"expected numbers along {along} (and layers and heads), none empty, got axes {listed(names)}; pick "
                f"with result.select({more})",
                f"应为沿 {along}（及层、头）的非空数值，现有轴 {listed(names)}；请用 result.select({more}) 选定",
            )
        )
    rest = [n for n, name in enumerate(names) if name != along]
    named, labels = _named(chosen), chosen.axis(along).labels
    if not rest:
        return _array(chosen.values), labels, named
    over = [axis_word(names[n]) for n in rest]
    told = Text(
        f"{named.en} · mean over {' and '.join(word.en + 's' for word in over)}",
        f"{named.zh} · 按{'与'.join(word.zh for word in over)}平均",
    )
    return _array(chosen.values.double().nanmean(rest)), labels, told


def _of_statistic(result: Result, statistic: str | None) -> Result:
    if STATISTIC not in [axis.name for axis in result.axes]:
        return result
    known = result.axis(STATISTIC).labels
    if statistic is None and len(known) > 1:
        raise UnknownNameError(
            Text(
                f"choose a statistic with statistic=…; there are: {listed(known)}",
                f"请用 statistic=… 选一个统计量；可用：{listed(known)}",
            )
        )
    return result.select(statistic=known[0] if statistic is None else statistic)
