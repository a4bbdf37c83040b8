"""The words that several verbs take."""

from pathlib import Path
from typing import Annotated

import typer

from hf_attnviz.cli_words import said as _said

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=_said("an embedded name, a local folder, or a hub id", "内置模型名、本地文件夹或 hub 名"),
    ),
]
Sentence = Annotated[str, typer.Argument(metavar="TEXT", help=_said("the text to read", "要读的文本"))]
SomeText = Annotated[
    str | None, typer.Argument(metavar="[TEXT]", help=_said("the text, or --text-file", "要读的文本，或 --text-file"))
]
TextFile = Annotated[Path | None, typer.Option(help=_said("read the text from a file", "从文件读取文本"))]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        help=_said(
            "what to keep: maps, statistics, topk …; default: maps, and statistics of a text too long for them",
            "保留什么：maps、statistics、topk 等；默认 maps，文本过长时为 statistics",
        )
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="INPUT",
        help=_said(
            "a text, a picture (png, jpg), a sound (wav), or named tensors (json, safetensors); may be given "
            "again, for words beside a picture",
            "文本、图片（png、jpg）、声音（wav）或具名张量（json、safetensors）；可重复，如图片配文字",
        ),
    ),
]
Pair = Annotated[str | None, typer.Option(help=_said("the second sentence of a pair", "句对中的第二句"))]
New = Annotated[int, typer.Option(min=1, help=_said("tokens to generate at most", "最多生成多少词元"))]
Generate = Annotated[
    bool | None,
    typer.Option(help=_said("generate, or read only (default: where it can)", "生成，或只读（默认：能则生成）")),
]
Layers = Annotated[list[int] | None, typer.Option("--layer", help=_said("keep these layers only", "只保留这些层"))]
Stack = Annotated[str | None, typer.Option(help=_said("encoder, decoder, cross …", "encoder、decoder、cross 等"))]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help=_said("write it too: html, png, svg, pdf, csv or json", "同时写入文件：html、png、svg、pdf、csv 或 json"),
    ),
]
