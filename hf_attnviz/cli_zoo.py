"""The verbs ``attnviz zoo …``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

import hf_attnviz as av
from hf_attnviz.cli_words import said as _said
from hf_attnviz.printing import wrote

Text = av.language.Text

zoo_app = typer.Typer(help=_said("The embedded models.", "内置模型。"), no_args_is_help=True, rich_markup_mode=None)


@zoo_app.command("list", help=_said("The embedded models and their examples.", "内置模型及示例。"))
def zoo_list() -> None:
    for name in av.zoo.names():
        typer.echo(name)
        for example in av.zoo.load(name).examples:
            typer.echo(f"    {example}")


@zoo_app.command("train", help=_said("Train an embedded model again.", "重新训练内置模型。"))
def zoo_train(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=_said("a new folder (default: NAME)", "新文件夹（默认：NAME）")),
    ] = None,
    seed: Annotated[int | None, typer.Option()] = None,
) -> None:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(name, total=None)

        def show(step: int, steps: int, loss: float) -> None:
            progress.update(bar, completed=step, total=steps, description=f"{name}  {Text('loss', '损失')} {loss:.4f}")

        folder = av.zoo.train(name, name if output is None else output, seed=seed, progress=show)
    wrote(folder)
