"""What was asked for, from the words of a command line: texts, files, arguments of an analysis, what to keep."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

import hf_attnviz as av

_FILE: Final = re.compile(r"\S+\.(png|jpe?g|wav|json|safetensors|txt)", re.IGNORECASE)


def reading(given: str | None, file: Path | None, inputs: list[str] | None) -> str | list[Path | str]:
    """What is to be read: a text, or a picture, a sound or tensors, and perhaps a text beside them."""
    if not inputs:
        return text(given, file)
    beside = [] if given is None and file is None else [text(given, file)]
    return [*map(file_or_text, inputs), *beside]


def text(given: str | None, file: Path | None) -> str:
    """The text that was typed, or that a file holds."""
    if (given is None) == (file is None):
        raise av.errors.ArgumentError(
            av.language.Text(
                "expected a text, --text-file FILE or --input FILE; got " + ("neither" if given is None else "both"),
                "应给出一段文本、--text-file FILE 或 --input FILE；"
                + ("两者都没有给" if given is None else "两者都给了"),
            )
        )
    if file is None:
        return given or ""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise av.errors.ArgumentError(
            av.language.Text(
                f"cannot read {str(file)!r}: {error}; give a text file in UTF-8",
                f"无法读取 {str(file)!r}：{error}；请给出 UTF-8 文本文件",
            )
        ) from error


def trace(loaded: av.Loaded, read: str | list[Path | str], keep: list[str] | None, **options: Any) -> av.Trace:
    """What is kept of what was read; where nothing says what, and a text's maps would be too much, that is told."""
    if not isinstance(read, str):
        if options.pop("pair", None) is not None:
            raise av.errors.ArgumentError(
                av.language.Text(
                    "--pair is for two texts; give words beside a picture as TEXT",
                    "--pair 用于两段文本；图片旁的文字请作为 TEXT 给出",
                )
            )
        return av.trace_input(loaded, read, keep=keep or "maps", **options)
    found = av.trace_text(loaded, read, keep=keep, **options)
    if keep is None and not all(m.has_weights for m in found.maps):
        sys.stderr.write(f"{_told(found)}\n")
    return found


def _told(found: av.Trace) -> av.language.Text:
    gigabytes = sum(m.heads * len(m.queries) * len(m.keys) * 4 for m in found.maps) / 1e9
    tokens = max(len(m.keys) for m in found.maps)
    return av.language.Text(
        f"the maps of {tokens:,} tokens would take {gigabytes:.1f} GB: statistics are kept instead (--keep maps keeps "
        "the maps all the same)",
        f"{tokens:,} 个词元的注意力图将占 {gigabytes:.1f} GB：改为保留统计量（--keep maps 则仍保留注意力图）",
    )


def drawn(found: av.Trace, kind: str | None, inputs: list[str] | None, options: dict[str, Any]) -> av.View:
    """The picture of a kind; without one, that which suits what was kept. A picture of what was read gets its file."""
    if kind is None:
        kind = "head" if all(m.has_weights for m in found.maps) else "long"
    return av.pictures()[kind](found, **_files(inputs), **options)


def _files(inputs: list[str] | None) -> dict[str, Path]:
    """The picture and the sound among what was read, by the names of the arguments that take them."""
    found = [one for one in map(file_or_text, inputs or ()) if isinstance(one, Path)]
    named = {"wav": "audio", "png": "image", "jpg": "image", "jpeg": "image"}
    return {named[kind]: one for one in found if (kind := one.suffix.lower().removeprefix(".")) in named}


def check_ending(output: Path | None, formats: tuple[str, ...]) -> None:
    """Refuse a format before the model runs."""
    ending = "" if output is None else output.suffix.lower().removeprefix(".")
    if output is not None and ending not in formats:
        raise av.errors.ArgumentError(
            av.language.Text(
                f"cannot write {ending or 'a file without ending'!r}; formats it has: "
                f"{', '.join(one for one in formats if one != 'htm')}",
                f"无法写成 {ending or '没有扩展名的文件'!r}；可用格式："
                f"{', '.join(one for one in formats if one != 'htm')}",
            )
        )


def file_or_text(one: str) -> Path | str:
    """What was given: a file when it exists or is named like one, else a text."""
    named = os.path.isfile(one) or _FILE.fullmatch(one)  # noqa: PTH113 - a text too long for a file's name is none
    return Path(one) if named else one


def settings(analysis: Any, name: str, given: list[str], stack: str | None) -> dict[str, Any]:
    """The arguments of one of ``av.analyses()`` or ``av.pictures()``, from ``NAME=VALUE``."""
    known = analysis.arguments
    found: dict[str, Any] = {}
    for one in [*given, *([] if stack is None else [f"stack={stack}"])]:
        argument, _, text = one.partition("=")
        if argument not in known:
            raise av.errors.UnknownNameError(
                av.language.Text(
                    f"{name} has no argument {argument!r}; --set NAME=VALUE takes: {', '.join(known) or 'none'}",
                    f"{name} 没有参数 {argument!r}；--set NAME=VALUE 可用：{', '.join(known) or '无'}",
                )
            )
        found[argument] = _value(text, known[argument], one)
    return found


def _value(text: str, default: Any, whole: str) -> Any:
    """A value as JSON, else as a word; of the kind that the argument has by default."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(default, tuple):  # several words: one may stand alone
        return [value] if isinstance(value, str) else value
    kinds: tuple[type, ...] = (int, float) if type(default) is float else (type(default),)
    if default is not None and type(value) not in kinds:
        raise av.errors.ArgumentError(
            av.language.Text(
                f"expected a {kinds[-1].__name__} in --set {whole}, such as {default!r}",
                f"--set {whole} 中应为 {kinds[-1].__name__} 类型的值，例如 {default!r}",
            )
        )
    return value
