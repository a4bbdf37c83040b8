"""The verb ``attnviz print``."""

from typing import Annotated, Any

import typer

import hf_attnviz as av
from hf_attnviz import asked
from hf_attnviz.cli_options import Generate, Inputs, Model, New, Pair, SomeText, Stack, TextFile
from hf_attnviz.cli_words import said as _said
from hf_attnviz.printing import PRINTS, print_trace

Text = av.language.Text


HELP = _said("Print the attention of MODEL on TEXT in the terminal.", "把 MODEL 读 TEXT 时的注意力打印在终端。")


def print_(
    model: Model,
    text: SomeText = None,
    kind: Annotated[str, typer.Option("--view", help=", ".join(PRINTS))] = PRINTS[0],
    stack: Stack = None,
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
    pair: Pair = None,
    generate: Generate = None,
    max_new_tokens: New = 24,
    text_file: TextFile = None,
    inputs: Inputs = None,
) -> None:
    if kind not in PRINTS:
        raise av.errors.UnknownNameError(
            Text(f"unknown view {kind!r}; known: {', '.join(PRINTS)}", f"没有视图 {kind!r}；可用：{', '.join(PRINTS)}")
        )
    read = asked.reading(text, text_file, inputs)
    loaded = av.load_model(model)
    reading: dict[str, Any] = {"pair": pair, "generate": generate, "max_new_tokens": max_new_tokens}
    trace = asked.trace(loaded, read, ["maps"], **reading)
    first = loaded.telling_layer if layer is None and stack is None else layer
    print_trace(trace, kind, stack, first, head=head, query=query, width=width, colour=colour)
