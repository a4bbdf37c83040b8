"""The command line, ``attnviz``: from a model and a text to a page, in one command."""

import json
import os
import re
import sys
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text as RichText

import hf_attnviz as av

Text = av.language.Text

app = typer.Typer(
    help=str(Text("See what attention does inside any Hugging Face model.", "看清 Hugging Face 模型内部的注意力。")),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
zoo_app = typer.Typer(help=str(Text("The embedded models.", "内置模型。")), no_args_is_help=True, rich_markup_mode=None)
app.add_typer(zoo_app, name="zoo")

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=str(Text("an embedded name, a local folder, or a hub id", "内置模型名、本地文件夹或 hub 名")),
    ),
]
Sentence = Annotated[str, typer.Argument(metavar="TEXT", help=str(Text("the text to read", "要读的文本")))]
Pair = Annotated[str | None, typer.Option(help=str(Text("the second sentence of a pair", "句对中的第二句")))]
New = Annotated[int, typer.Option(min=1, help=str(Text("tokens to generate at most", "最多生成多少词元")))]
Generate = Annotated[
    bool | None,
    typer.Option(help=str(Text("generate, or read only (default: where it can)", "生成，或只读（默认：能则生成）"))),
]
Layers = Annotated[list[int] | None, typer.Option("--layer", help=str(Text("keep these layers only", "只保留这些层")))]
Stack = Annotated[str | None, typer.Option(help=str(Text("encoder, decoder, cross …", "encoder、decoder、cross 等")))]

_VIEWS = ("head", "model", "neuron")
_FILE = re.compile(r"\S+\.(png|jpe?g|wav|json|safetensors|txt)", re.IGNORECASE)
_GRADES = {  # what the doctor says of a map, and its colour; what is no attention is no failure
    "exact": (Text("exact", "精确"), "green"),
    "consistent": (Text("consistent", "一致"), "yellow"),
    "stated": (Text("stated, not proved", "用户声明，未证明"), "yellow"),
    "none": (Text("no attention map", "没有注意力图"), "cyan"),
    "refused": (Text("refused", "拒绝"), "red"),
}


@app.callback()
def _language(
    lang: Annotated[str | None, typer.Option(help=str(Text("language: en or zh", "语言：en 或 zh")))] = None,
) -> None:
    if lang is not None:
        av.set_language(lang)


@app.command(
    help=str(Text("Draw the attention of MODEL on TEXT as one page.", "把 MODEL 读 TEXT 时的注意力画成一页。"))
)
def view(
    model: Model,
    text: Sentence,
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("attention.html"),
    kind: Annotated[str, typer.Option("--view", help=", ".join(_VIEWS))] = "head",
    pair: Pair = None,
    stack: Stack = None,
    layer: Layers = None,
    generate: Generate = None,
    max_new_tokens: New = 24,
    save_trace: Annotated[Path | None, typer.Option(help=str(Text("save the trace too", "同时保存 trace")))] = None,
) -> None:
    if kind not in _VIEWS:
        raise av.errors.UnknownNameError(f"unknown view {kind!r}; known: {', '.join(_VIEWS)}")
    loaded = av.load_model(model)
    trace = av.trace_text(
        loaded,
        text,
        pair=pair,
        layers=layer,
        generate=generate,
        max_new_tokens=max_new_tokens,
        keep=["maps", av.Vectors()] if kind == "neuron" else "maps",
    )
    if save_trace is not None:
        _wrote(trace.save(save_trace))
    first = None if layer or stack else loaded.telling_layer
    if kind == "model":
        _wrote(av.model_view(trace, stack=stack).save(output))
    else:
        draw = av.head_view if kind == "head" else av.neuron_view
        _wrote(draw(trace, stack=stack, layer=first).save(output))


@app.command(help=str(Text("Everything about MODEL on TEXT on one page.", "MODEL 读 TEXT 的一切，汇成一页。")))
def report(
    model: Model,
    text: Sentence,
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("report.html"),
    pair: Pair = None,
    layer: Layers = None,
    generate: Generate = None,
    max_new_tokens: New = 24,
) -> None:
    loaded = av.load_model(model)
    trace = av.trace_text(loaded, text, pair=pair, layers=layer, generate=generate, max_new_tokens=max_new_tokens)
    _wrote(av.report(trace, layer=None if layer else loaded.telling_layer).save(output))


@app.command(
    help=str(Text("Prove every attention map of MODEL against its kernel.", "逐一核验 MODEL 的每张注意力图。"))
)
def doctor(
    model: Model,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="INPUT",
            help=str(
                Text(
                    "a text, a picture (png, jpg), a sound (wav), or named tensors (json, safetensors); may be given "
                    "again, for words beside a picture; default: a harmless input for the kind of model",
                    "文本、图片（png、jpg）、声音（wav）或具名张量（json、safetensors）；可重复，如图片配文字；"
                    "默认：按模型种类准备一份无害的输入",
                )
            ),
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help=str(Text("the text to read", "要读的文本")))] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,
) -> None:
    loaded = av.load_model(model)
    several = [*map(_file_or_text, given or ()), *([] if text is None else [text])]
    found = av.doctor(loaded.model, several or list(loaded.examples[:1]), loaded.processor)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
    else:
        _print_diagnosis(found)
    if not found.ok:
        raise typer.Exit(1)


@app.command(help=str(Text("Serve the web demo on this machine.", "在本机启动网页演示。")))
def demo(
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help=str(
                Text("another model the demo may load: a folder or a hub id", "演示还可加载的模型：文件夹或 hub 名")
            )
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
) -> None:
    found = [entry for entry in entry_points(group="hf_attnviz.apps") if entry.name == "demo"]
    if not found:
        raise av.errors.ArgumentError(
            "the web demo is not installed; install this package again: pip install 'hf-attnviz[demo]'"
        )
    try:
        serve = found[0].load()
    except ModuleNotFoundError as error:
        raise av.errors.MissingPackageError(
            f"the web demo needs the package {error.name!r}, which is not installed; "
            "get it with: pip install 'hf-attnviz[demo]'"
        ) from error
    serve(allow=tuple(allow or ()), port=port)


@zoo_app.command("list", help=str(Text("The embedded models and their examples.", "内置模型及示例。")))
def zoo_list() -> None:
    for name in av.zoo.names():
        typer.echo(name)
        for example in av.zoo.load(name).examples:
            typer.echo(f"    {example}")


@zoo_app.command("train", help=str(Text("Train an embedded model again.", "重新训练内置模型。")))
def zoo_train(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=str(Text("a new folder (default: NAME)", "新文件夹（默认：NAME）"))),
    ] = None,
    seed: Annotated[int | None, typer.Option()] = None,
) -> None:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(name, total=None)

        def show(step: int, steps: int, loss: float) -> None:
            progress.update(bar, completed=step, total=steps, description=f"{name}  loss {loss:.4f}")

        folder = av.zoo.train(name, name if output is None else output, seed=seed, progress=show)
    _wrote(folder)


def _wrote(path: Path) -> None:
    typer.echo(f"{Text('wrote', '已写入')} {path}")


def _file_or_text(one: str) -> Path | str:
    """What was given: a file when it exists or is named like one, else a text."""
    named = os.path.isfile(one) or _FILE.fullmatch(one)  # noqa: PTH113 - a text too long for a file's name is none
    return Path(one) if named else one


def _print_diagnosis(found: av.Diagnosis) -> None:
    edge = sys.stdout.isatty() or os.environ.get("COLUMNS")
    console = Console(width=None if edge else 200)  # a pipe has no edge to wrap at
    console.print(RichText(av.visible(found.model), "bold"))
    if found.given:
        console.print(RichText(av.visible(f"{Text('reads', '输入')} {found.given}")), soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in (
        Text("module", "模块"), Text("attends", "注意"), Text("heads × query × key", "头 × 查询 × 键"),
        Text("calls", "次数"), Text("backend", "后端"), Text("proof", "核验"), Text("error", "误差"),
    ):  # fmt: skip
        table.add_column(str(heading), overflow="fold")
    for one in found.findings:
        grade, colour = _GRADES[one.grade]
        error = "" if one.error is None else f"{one.error:.0e}"
        cells = (one.module, _place(one), one.layout, str(one.calls or ""), one.backend, str(grade), error)
        table.add_row(*(RichText(av.visible(cell)) for cell in cells), style=colour)  # others' names are no markup
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for one in found.findings:
        if one.grade == "refused":
            reasons.setdefault(one.reason, []).append(one.module)
    for reason, modules in reasons.items():
        console.print(RichText(av.visible(f"{', '.join(modules)}: {reason}"), "red"), soft_wrap=True)
    if found.reason:
        console.print(RichText(av.visible(found.reason)), soft_wrap=True)
    console.print(RichText(_summary(found)), soft_wrap=True)


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


def main() -> None:
    """The entry point: our own errors are one message and exit status 1, anything else is a bug and shows where."""
    try:
        app()
    except av.errors.AttnvizError as error:
        Console(stderr=True, soft_wrap=True).print(RichText(f"attnviz: {av.visible(str(error))}"))
        sys.exit(1)
