"""The verb ``attnviz bench``."""

from pathlib import Path
from typing import Annotated

import typer

import hf_attnviz as av
from hf_attnviz.cli_words import said as _said
from hf_attnviz.printing import print_bench

Text = av.language.Text


def bench(
    rounds: Annotated[
        int | None, typer.Option(help=_said("how many (default: 15; with --quick 7)", "轮数（默认 15；--quick 时 7）"))
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N,N …",
            help=_said(
                "these lengths instead, one layer each: 1024,4096,16384", "改测这些长度，各一层：1024,4096,16384"
            ),
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help=_said("time, truth, memory or decoding; may be given again", "只测其中几项")),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help=_said("this one only; may be given again; any other word lists them", "只测这种；写错会列出全部")
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help=_said("a look within a minute, at a small shape", "小规模，一分钟内看个大概")),
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda")] = "cpu",
    new_tokens: Annotated[
        int | None, typer.Option(min=1, help=_said("to generate (default: 256)", "生成的词元数（默认 256）"))
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(min=1, help=_said("of the model that generates (default: 12)", "生成所用层数（默认 12）")),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help=_said("write JSON too", "同时写 JSON"))] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_said("write Markdown too", "同时写 Markdown"))
    ] = None,
) -> None:
    wanted = [(path, kind) for path, kind in ((json, "json"), (markdown, "md")) if path is not None]
    for path, _ in wanted:
        if not path.absolute().parent.is_dir():  # half an hour later would be too late
            raise av.errors.ArgumentError(
                av.language.Text(
                    f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}",
                    f"无法写入 {str(path)!r}：文件夹 {str(path.parent)!r} 不存在",
                )
            )
    found = av.bench(
        rounds=rounds,
        tokens=None if tokens is None else _lengths(tokens),
        parts=part,
        variants=variant,
        quick=quick,
        device=device,
        new_tokens=new_tokens,
        layers=layers,
    )
    print_bench(found)
    for path, kind in wanted:
        typer.echo(f"{Text('wrote', '已写入')} {found.save(path, kind=kind)}")
    if not found.ok:
        raise typer.Exit(1)


bench.__doc__ = _said(
    "What looking costs on this machine: time, memory and correctness, ours and other installed tools', against the "
    "plain model. Half an hour of one core; close other programs first. Plain runs stand in the table twice: where the "
    "interval of their ratio leaves 1 ± 0.03 the run is INVALID, and the exit status is 1, as where a number is wrong. "
    "A row that does not hold what it must says MISSED.",
    "在本机上观察注意力的代价：我们与已安装的其他工具，相对原样模型的时间、内存与正确性。单核约半小时，"
    "请先关闭其他程序。"
    "原样运行在表中出现两次：若其比值区间超出 1 ± 0.03，本次测量 INVALID（无效），退出码为 1；数值有误时亦然。"
    "未达要求的行标为“未达到”。",
)


def _lengths(words: str) -> list[int]:
    """``1024,4096`` as numbers."""
    try:
        return [int(word.replace("_", "")) for word in words.split(",")]
    except ValueError:
        raise av.errors.ArgumentError(
            av.language.Text(
                f"--tokens {words}: expected lengths such as 1024,4096,16384",
                f"--tokens {words}：应为若干长度，例如 1024,4096,16384",
            )
        ) from None
