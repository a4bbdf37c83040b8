"""The command line, ``attnviz``: from a model and a text to a page, in one command."""

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text as RichText

import hf_attnviz as av
from hf_attnviz import asked, cli_words
from hf_attnviz.cli_bench import bench
from hf_attnviz.cli_options import (
    Generate,
    Inputs,
    Keep,
    Layers,
    Model,
    New,
    Output,
    Pair,
    Sentence,
    SomeText,
    Stack,
    TextFile,
)
from hf_attnviz.cli_print import HELP, print_
from hf_attnviz.cli_words import said as _said
from hf_attnviz.cli_zoo import zoo_app
from hf_attnviz.printing import print_diagnosis, print_trust, show, wrote

Text = av.language.Text

app = typer.Typer(
    help=_said("See what attention does inside any Hugging Face model.", "看清 Hugging Face 模型内部的注意力。"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(zoo_app, name="zoo")

_PAGE = ("html", "htm")
_PICTURE = (*_PAGE, "svg", "png", "pdf")
_TABLES = (*_PICTURE, "csv", "json")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"attnviz {av.__version__}")
        raise typer.Exit


@app.callback()
def _language(
    lang: Annotated[
        str | None,
        typer.Option(
            help=_said(
                "language: en or zh, before or behind the command (default: the locale's)",
                "语言：en 或 zh，可写在命令之前或之后（默认依系统区域设置）",
            )
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help=_said("the version", "版本"))
    ] = False,
) -> None:
    if lang is not None:
        av.set_language(lang)


@app.command(help=_said("Draw the attention of MODEL on TEXT as one page.", "把 MODEL 读 TEXT 时的注意力画成一页。"))
def view(
    model: Model,
    text: SomeText = None,
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("attention.html"),
    kind: Annotated[str | None, typer.Option("--view", help=", ".join(av.pictures()))] = None,
    pair: Pair = None,
    stack: Stack = None,
    layer: Layers = None,
    generate: Generate = None,
    max_new_tokens: New = 24,
    text_file: TextFile = None,
    inputs: Inputs = None,
    keep: Keep = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help=_said(
                "an argument of the picture: words=true, hide=special …", "图的一个参数：words=true、hide=special 等"
            ),
        ),
    ] = None,
    columns: Annotated[
        int | None,
        typer.Option(help=_said("1 or 2: as wide as a paper's column, or two", "1 或 2：与论文单栏或双栏同宽")),
    ] = None,
    save_trace: Annotated[Path | None, typer.Option(help=_said("save the trace too", "同时保存 trace"))] = None,
) -> None:
    known = av.pictures()
    if kind is not None and kind not in known:
        raise av.errors.UnknownNameError(
            Text(f"unknown view {kind!r}; known: {', '.join(known)}", f"未知视图 {kind!r}；可用：{', '.join(known)}")
        )
    asked.check_ending(output, _PICTURE)
    if save_trace is not None and save_trace.suffix.lower() != ".safetensors":
        raise av.errors.ArgumentError(
            Text(
                "a trace is saved as safetensors, without pickle: give --save-trace a name that ends in .safetensors, "
                f"not {save_trace.name!r}",
                "trace 保存为 safetensors，不用 pickle：--save-trace 的文件名须以 .safetensors 结尾，而不是 "
                f"{save_trace.name!r}",
            )
        )
    given = asked.settings(known[kind or "head"], kind or "head", settings or [], stack)
    read = asked.reading(text, text_file, inputs)
    loaded = av.load_model(model)
    wanted = None if kind is None else list(known[kind].keep)
    reading: dict[str, Any] = {"pair": pair, "layers": layer, "generate": generate, "max_new_tokens": max_new_tokens}
    trace = asked.trace(loaded, read, keep or wanted, **reading)
    if save_trace is not None:
        wrote(trace.save(save_trace))
    first = None if layer or stack else loaded.telling_layer
    wrote(asked.drawn(trace, kind, inputs, {"layer": first} | given).save(output, columns=columns))


@app.command(help=_said("Everything about MODEL on TEXT on one page.", "MODEL 读 TEXT 的一切，汇成一页。"))
def report(
    model: Model,
    text: SomeText = None,
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("report.html"),
    pair: Pair = None,
    layer: Layers = None,
    generate: Generate = None,
    max_new_tokens: New = 24,
    text_file: TextFile = None,
    inputs: Inputs = None,
    keep: Keep = None,
) -> None:
    asked.check_ending(output, _PAGE)
    read = asked.reading(text, text_file, inputs)
    loaded = av.load_model(model)
    reading: dict[str, Any] = {"pair": pair, "layers": layer, "generate": generate, "max_new_tokens": max_new_tokens}
    trace = asked.trace(loaded, read, keep, **reading)
    wrote(av.report(trace, layer=None if layer else loaded.telling_layer).save(output))


@app.command(help=_said("Numbers about MODEL on TEXT by one analysis.", "用一种分析方法计算 MODEL 读 TEXT 的数值。"))
def analyse(
    analysis: Annotated[
        str,
        typer.Argument(
            metavar="ANALYSIS",
            help=_said(
                "head_statistics, rollout …; any other word lists them", "head_statistics、rollout 等；写错会列出全部"
            ),
        ),
    ],
    model: Model,
    text: SomeText = None,
    output: Output = None,
    pair: Pair = None,
    stack: Stack = None,
    layer: Layers = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help=_said("an argument of the analysis", "该分析的一个参数")),
    ] = None,
    generate: Generate = None,
    max_new_tokens: New = 24,
    text_file: TextFile = None,
    inputs: Inputs = None,
    keep: Keep = None,
) -> None:
    known = av.analyses()
    if analysis not in known:
        raise av.errors.UnknownNameError(
            Text(
                f"unknown analysis {analysis!r}; known: {', '.join(sorted(known))}",
                f"未知分析 {analysis!r}；可用：{', '.join(sorted(known))}",
            )
        )
    chosen = known[analysis]
    given = asked.settings(chosen, analysis, settings or [], stack)
    asked.check_ending(output, _TABLES)
    read = asked.reading(text, text_file, inputs)
    wanted = None if "maps" in chosen.keep and chosen.sparing else list(chosen.keep)
    plain = False if chosen.plain and generate is None else generate
    reading: dict[str, Any] = {"pair": pair, "layers": layer, "generate": plain, "max_new_tokens": max_new_tokens}
    show(chosen(asked.trace(av.load_model(model), read, keep or wanted, **reading), **given), output)


@app.command(
    help=_said(
        "What differs between two texts, around a word that both have, or between two models on one text.",
        "两段文本围绕共有词的差别，或两个模型读同一文本的差别。",
    )
)
def compare(
    model: Model,
    text: Sentence,
    second: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help=_said("the second text; default: the first", "第二段文本；默认同第一段")),
    ] = None,
    output: Output = None,
    word: Annotated[str | None, typer.Option(help=_said("a word that both texts have", "两段文本共有的词"))] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help=_said("head or word (default: word where one is given)", "head 或 word（默认：给了词即 word）")
        ),
    ] = None,
    occurrence: Annotated[
        list[int] | None,
        typer.Option(
            help=_said(
                "which of several, from 0; once for both texts or once for each",
                "第几次出现，从 0 数；可给一次或每段各一次",
            )
        ),
    ] = None,
    direction: Annotated[str, typer.Option(help=_said("from the word, or to it", "from 看向谁，to 谁在看"))] = "from",
    others: Annotated[
        str,
        typer.Option(help=_said("words of one text only: pooled or apart", "仅一侧有的词：pooled 合并，apart 分列")),
    ] = "pooled",
    without_special: Annotated[bool, typer.Option(help=_said("leave special tokens out", "去除特殊词元"))] = False,
    average: Annotated[bool, typer.Option(help=_said("the mean of all heads", "所有头的平均"))] = False,
    other_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help=_said("reads the second text", "由它读第二段文本"))
    ] = None,
    stack: Stack = None,
    layer: Layers = None,
    generate: Annotated[bool, typer.Option(help=_said("generate, not only read", "生成，而不只是读"))] = False,
    max_new_tokens: New = 24,
) -> None:
    if second is None and other_model is None:
        raise av.errors.ArgumentError(
            Text(
                "expected two texts, or one text and --other-model MODEL; got one text and one model",
                "应给出两段文本，或一段文本加 --other-model MODEL；现在只有一段文本和一个模型",
            )
        )
    if len(occurrence or ()) > 2:
        raise av.errors.ArgumentError(
            Text(
                "expected --occurrence once or twice: for both texts, or for each",
                "--occurrence 应给一次或两次：两段文本共用，或各用一个",
            )
        )
    asked.check_ending(output, _TABLES)
    loaded = av.load_model(model)
    other = loaded if other_model is None else av.load_model(other_model)
    reading: dict[str, Any] = {"layers": layer, "generate": generate, "max_new_tokens": max_new_tokens}
    one = av.trace_text(loaded, text, **reading)
    two = av.trace_text(other, second or text, **reading)
    options: dict[str, Any] = {"stack": stack, "without_special": without_special, "average": average}
    if word is not None:
        which = tuple(occurrence or ())
        options |= {"word": word, "occurrence": (which * 2)[:2] or None, "direction": direction, "others": others}
    show(av.compare(one, two, by=by or ("word" if word else "head"), **options), output)


@app.command(
    help=_said("Whether rankings of the evidence in TEXT deserve trust.", "对 TEXT 中证据的各种排序是否可信。")
)
def trust(
    model: Model,
    text: Sentence,
    target: Annotated[
        str | None,
        typer.Option(
            help=_said("a class or token, by name or id (default: what is predicted)", "类别或词元（默认：所预测的）")
        ),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help=_said("rank by these only", "只用这些方法排序"))] = None,
    seed: Annotated[int, typer.Option(help=_said("of the random rankings", "随机排序的种子"))] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=_said("the picture too", "同时保存图"))] = None,
) -> None:
    asked.check_ending(output, _PICTURE)
    named = int(target) if target is not None and target.lstrip("-").isdigit() else target
    found = av.trust(av.load_model(model), text, target=named, methods=method, seed=seed)
    print_trust(found)
    if output is not None:
        wrote(av.trust_view(found).save(output))


@app.command(
    help=_said(
        "Prove every attention map of MODEL against its kernel, on a harmless input unless --input gives one.",
        "逐一核验 MODEL 的每张注意力图；未给 --input 时用一份无害的输入。",
    )
)
def doctor(
    model: Model,
    given: Inputs = None,
    text: Annotated[str | None, typer.Option(help=_said("the text to read", "要读的文本"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,
) -> None:
    loaded = av.load_model(model)
    several = [*map(asked.file_or_text, given or ()), *([] if text is None else [text])]
    found = av.doctor(loaded.model, several or list(loaded.examples[:1]), loaded.processor)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
    else:
        print_diagnosis(found)
    if not found.ok:
        raise typer.Exit(1)


@app.command(help=_said("Serve the web demo on this machine.", "在本机启动网页演示。"))
def demo(
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help=_said("another model the demo may load: a folder or a hub id", "演示还可加载的模型：文件夹或 hub 名")
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
) -> None:
    found = [entry for entry in entry_points(group="hf_attnviz.apps") if entry.name == "demo"]
    if not found:
        raise av.errors.ArgumentError(
            Text(
                "the web demo is not installed; install this package again: pip install 'hf-attnviz[demo]'",
                "网页演示没有安装；请重新安装本包：pip install 'hf-attnviz[demo]'",
            )
        )
    try:
        serve = found[0].load()
    except ModuleNotFoundError as error:
        raise av.errors.MissingPackageError(
            Text(
                f"the web demo needs the package {error.name!r}, which is not installed; "
                "get it with: pip install 'hf-attnviz[demo]'",
                f"网页演示需要包 {error.name!r}，它没有安装；安装方法：pip install 'hf-attnviz[demo]'",
            )
        ) from error
    serve(allow=tuple(allow or ()), port=port)


app.command(name="bench", help=bench.__doc__)(bench)
app.command(name="print", help=HELP)(print_)


def main() -> None:
    """The entry point: our own errors are one message and exit status 1, anything else is a bug and shows where."""
    try:
        lang, words = cli_words.asked_language(sys.argv[1:])
        if lang is not None:
            av.set_language(lang)
        sys.exit(cli_words.run(typer.main.get_command(app), words, chinese=av.language.language() == "zh"))
    except av.errors.AttnvizError as error:
        Console(stderr=True, soft_wrap=True).print(RichText(f"attnviz: {av.visible(str(error))}"))
        sys.exit(1)
