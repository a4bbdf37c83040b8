"""The verb ``attnviz print``."""

from pathlib import Path
from typing import Annotated

import typer

import hf_attnviz as av
from hf_attnviz import asked
from hf_attnviz.cli_words import said as _said
from hf_attnviz.printing import PRINTS, print_trace

Text = av.language.Text


HELP = _said("Print the attention of MODEL on TEXT in the terminal.", "把 MODEL 读 TEXT 时的注意力打印在终端。")


def print_(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=_said("an embedded name, a local folder, or a hub id", "内置模型名、本地文件夹或 hub 名"),
        ),
    ],
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help=_said("the text, or --text-file", "要读的文本，或 --text-file")),
    ] = None,
    kind: Annotated[str, typer.Option("--view", help=", ".join(PRINTS))] = PRINTS[0],
    stack: Annotated[
        str | None, typer.Option(help=_said("encoder, decoder, cross …", "encoder、decoder、cross 等"))
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help=_said("default: a telling one, or the last", "默认：有看点的，或末层"))
    ] = None,
    head: Annotated[int | None, typer.Option(help=_said("default: the mean over heads", "默认：各头平均"))] = None,
    query: Annotated[
        int | None,
        typer.Option(
            help=_said("tokens: the row that looks (default: the mean)", "tokens：发出注意的行（默认：平均）")
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(help=_said("columns of a line", "每行列数"))] = None,
    colour: Annotated[
        bool | None,
        typer.Option(help=_said("default: where the terminal has colours", "默认：终端支持颜色时使用")),
    ] = None,
    pair: Annotated[str | None, typer.Option(help=_said("the second sentence of a pair", "句对中的第二句"))] = None,
    generate: Annotated[
        bool | None,
        typer.Option(help=_said("generate, or read only (default: where it can)", "生成，或只读（默认：能则生成）")),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help=_said("tokens to generate at most", "最多生成多少词元"))
    ] = 24,
    text_file: Annotated[Path | None, typer.Option(help=_said("read the text from a file", "从文件读取文本"))] = None,
) -> None:
    if kind not in PRINTS:
        raise av.errors.UnknownNameError(
            Text(f"unknown view {kind!r}; known: {', '.join(PRINTS)}", f"没有视图 {kind!r}；可用：{', '.join(PRINTS)}")
        )
    read = asked.text(text, text_file)
    loaded = av.load_model(model)
    trace = av.trace_text(loaded, read, pair=pair, generate=generate, max_new_tokens=max_new_tokens)
    first = loaded.telling_layer if layer is None and stack is None else layer
    print_trace(trace, kind, stack, first, head=head, query=query, width=width, colour=colour)
