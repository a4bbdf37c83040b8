"""The language of the command line: found before anything is said, for help is written before options are read.

Typer holds English sentences; those of ours are put into Chinese by their own words, and click's, which has none, by
a table of patterns. What the table does not know stays English.
"""

import io
import re
import shutil
import sys
from collections.abc import Sequence
from inspect import cleandoc
from typing import Any, Final

from rich.cells import cell_len

_OURS: Final[dict[str, str]] = {}
_OPTION: Final = "--lang"
_WIDE: Final = 10_000  # columns in which click breaks no line
_MOST: Final = 80  # columns of help, as click has it
_PIECES: Final = re.compile(r" +|(?:[^ ⺀-￿]+|[⺀-￿])[，。；：、）”…]*")
_CLICKS: Final = tuple(
    (re.compile(pattern, re.MULTILINE), chinese)
    for pattern, chinese in (
        (r"^Usage: ", "用法："),
        (r"\[OPTIONS\]", "[选项]"),
        (r"COMMAND \[ARGS\]\.\.\.", "命令 [参数]..."),
        (r"^Options:$", "选项："),
        (r"^Arguments:$", "参数："),
        (r"^Commands:$", "命令："),
        (r"Show this message and exit\.", "显示本说明。"),
        (r"\[default: ", "[默认："),
        (r"(?<=[\[ ])required\]$", "必需]"),
        (r"^Try '(.*)' for help\.$", r"说明见：\1"),
        (r"^Error: ", "错误："),
        (r"Missing argument ('.*')\.", r"缺少参数 \1。"),
        (r"Missing option ('.*')\.", r"缺少选项 \1。"),
        (r"Missing command\.", "缺少命令。"),
        (r"No such command ('.*?')\.", r"没有命令 \1。"),
        (r"No such option:? ('?[^\s.]+'?)\.?", r"没有选项 \1。"),
        (r" ?\(Possible options: (.*)\)", r"相近的选项：\1"),
        (r" ?Did you mean (.*)\?", r"是否指 \1？"),
        (r"Option ('.*') requires an argument\.", r"选项 \1 需要一个值。"),
        (r"Option ('.*') does not take a value\.", r"选项 \1 不带值。"),
        (r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", r"多余的参数：\1"),
        (r"Invalid value for (.*?): ", r"\1 的值无效："),
        (r"Input should be greater than or equal to (\S+)", r"应不小于 \1"),
        (r"Input should be less than or equal to (\S+)", r"应不大于 \1"),
        (r"Input should be a valid integer.*", "应为整数"),
        (r"('?\S+) is not in the range (\S+)\.", r"\1 不在范围 \2 内。"),
        (r"('.*') is not a valid int(?:eger)?( range)?\.", r"\1 不是整数。"),
        (r"^Aborted[!.]$", "已中止。"),
    )
)


def said(en: str, zh: str) -> str:
    """A sentence for typer, which holds the English; :func:`in_chinese` knows the other."""
    _OURS[cleandoc(en)] = zh
    return en


def asked_language(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """What ``--lang`` says, before or behind the verb, and the other words."""
    end = words.index("--") if "--" in words else len(words)
    found, others, rest = None, [], list(words[:end])
    while rest:
        word = rest.pop(0)
        if word == _OPTION and rest:
            found = rest.pop(0)
        elif word.startswith(f"{_OPTION}="):
            found = word.partition("=")[2]
        else:
            others.append(word)
    return found, [*others, *words[end:]]


def in_chinese(command: Any) -> Any:
    """A command of click, and all that are in it, with their help in Chinese."""
    command.help = _ours(command.help)
    command.short_help = command.help and command.help.partition("。")[0] + "。"
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = _ours(parameter.help)
    written = command.get_help

    def get_help(context: Any) -> str:
        context.terminal_width = _WIDE
        return "\n".join(map(_broken, translated(written(context)).split("\n")))

    command.get_help = get_help
    for inner in getattr(command, "commands", {}).values():
        in_chinese(inner)
    return command


def run(command: Any, words: list[str], *, chinese: bool) -> int:
    """Run a command of click; its exit status. What click says of wrong words is said in the same language."""
    file = io.StringIO()
    try:
        return int((in_chinese(command) if chinese else command).main(words, standalone_mode=False) or 0)
    except Exception as error:  # of click, or of the copy of it that typer brings along
        show = getattr(error, "show", None)
        if type(error).__name__ == "Abort":
            file.write("Aborted!\n")
        elif show is not None:
            show(file=file)
        else:
            raise
        sys.stderr.write(translated(file.getvalue()) if chinese else file.getvalue())
        return int(getattr(error, "exit_code", 1))


def translated(text: str) -> str:
    """Text of click's, as far as the table knows it."""
    for pattern, chinese in _CLICKS:
        text = pattern.sub(chinese, text)
    return text


def _ours(help_text: str | None) -> str | None:
    return None if help_text is None else _OURS.get(cleandoc(help_text), help_text)


def _broken(line: str) -> str:
    """A line broken where a terminal ends, as wide as its characters are, its rest under the text that it began."""
    edge = min(shutil.get_terminal_size().columns, _MOST) - 2
    begins = re.match(r" *(?:\S.*?  +)?", line)
    indent = cell_len(begins[0]) if begins is not None and cell_len(begins[0]) < edge / 2 else 2
    rows, width = [""], 0
    for piece in _PIECES.findall(line):
        size = cell_len(piece)
        if width + size > edge and rows[-1].strip():
            rows, width = [*rows, " " * indent], indent
            piece, size = piece.lstrip(), cell_len(piece.lstrip())
        rows[-1], width = rows[-1] + piece, width + size
    return "\n".join(row.rstrip() for row in rows)
