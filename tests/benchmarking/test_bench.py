"""The whole: what is printed in both languages, what is written, and what the exit status says."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.benchmarking import run, table
from hf_attnviz.benchmarking.shapes import Shape
from hf_attnviz.benchmarking.table import Bench, Row, Section
from hf_attnviz.benchmarking.variants import AGAIN, PLAIN, chosen, plain
from hf_attnviz.language import Text

SMALL = Shape(1, 24, 32, 4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick look at something smaller still."""
    monkeypatch.setattr(run, "QUICK", SMALL)
    monkeypatch.setattr(run, "SAMPLE", 0.0)


def made(again: tuple[float, float, float] = (1.0, 0.99, 1.01), ratio: float = 1.08, error: float = 2e-5) -> Bench:
    """A benchmark as it could come out."""
    name = Text("plain sdpa", "原样 sdpa")

    def numbers(value: float, low: float, high: float, far: float = 0.0) -> dict[str, float]:
        return {"ratio": value, "low": low, "high": high, "seconds": 0.5, "apart": far, "bound": 1.05}

    time = Section("time", Text("4 layers", "4 层"), (
        Row(PLAIN, name, {"ratio": 1.0, "seconds": 0.5, "apart": 0.0}),
        Row(AGAIN, Text("again", "再次"), numbers(*again), ours=True),
        Row("statistics", Text("statistics", "统计量"), numbers(ratio, 1.07, 1.09), 1.10, ours=True),
        Row("eager", Text("eager | markup", "eager | markup"), numbers(1.5, 1.4, 1.6, 4e-6)),
        Row("nnsight", Text("nnsight", "nnsight"), reason=Text("not installed: nnsight", "未安装 nnsight")),
    ))  # fmt: skip
    errors = dict.fromkeys(("entropy", "distance", "sink"), 1e-6) | {"received": error}
    truth = Section("truth", Text("4 layers", "4 层"), (
        Row("statistics", Text("statistics", "统计量"), errors, 1e-4, ours=True),
    ))  # fmt: skip
    grown = Section("memory", Text("first use", "首次使用"), (
        Row(PLAIN, name, {"growth": 2.5e8, "over": 0.0}),
        Row("statistics", Text("statistics", "统计量"), {"growth": 4e8, "over": 1.5e8}, 3.35e8, ours=True),
    ))  # fmt: skip
    return Bench((time, truth, grown), {"processor": "[red]a[/red]"}, {"rounds": 15}, (Text("a note", "一条说明"),))


def test_it_says_what_was_found_in_both_languages() -> None:
    bench = made()
    with av.language.speaking("en"):
        said, written = str(bench), bench.to_markdown()
    with av.language.speaking("zh"):
        chinese = str(bench)
    line = next(line for line in said.splitlines() if line.strip().startswith("statistics"))
    assert line.split() == [
        "statistics",
        "1.080",
        "1.070",
        "–",
        "1.090",
        "0.500",
        "same",
        "bits",
        "1.050",
        "1.100",
        "met",
    ]
    assert "off by 4e-06" in said
    assert "not installed: nnsight" in said
    assert "[red]a[/red]" in said  # no markup
    assert [line.split()[-1] for line in said.splitlines() if " 335 " in line] == ["MISSED"]
    assert "| eager \\| markup | 1.500 | 1.400 – 1.600 |" in written
    assert "- a note" in written
    assert "INVALID" not in said + written
    for word in ("时间：与原样运行之比", "逐位相同", "未安装 nnsight", "未达到", "一条说明"):
        assert word in chinese
    assert (bench.valid, bench.correct, bench.ok) == (True, True, True)
    assert [(section.part, row.key) for section, row in bench.missed] == [("memory", "statistics")]


@pytest.mark.parametrize(
    "again", [(1.0, 0.96, 1.01), (1.0, 0.99, 1.031), (1.05, 1.04, 1.06), (1.0, math.nan, math.nan)]
)
def test_a_machine_that_was_not_quiet_proves_nothing(again: tuple[float, float, float]) -> None:
    bench = made(again)
    assert (bench.valid, bench.correct, bench.ok) == (False, True, False)
    with av.language.speaking("en"):
        assert "INVALID: plain against plain is not 1 ± 0.03" in str(bench)
        assert "Close other programs" in bench.to_markdown()
    with av.language.speaking("zh"):
        assert "INVALID（无效）" in str(bench)
    assert bench.sections[0].met(bench.sections[0].rows[2]) is None  # neither met nor missed


def test_without_a_second_plain_run_nothing_is_valid() -> None:
    section = replace(made().sections[0], rows=made().sections[0].rows[2:])
    assert not section.quiet


def test_a_wrong_number_is_said() -> None:
    for bench in (made(error=2e-4), made(error=math.nan)):
        assert (bench.valid, bench.correct, bench.ok) == (True, False, False)
        with av.language.speaking("en"):
            assert "WRONG: " in str(bench)
    assert made(ratio=1.11).missed[0][1].key == "statistics"


def test_files_are_whole_or_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bench.json"
    assert made(error=math.nan).save(path) == path
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["valid"], found["correct"], found["settings"]) == (True, False, {"rounds": 15})
    assert found["sections"][1]["rows"][0]["received"] is None
    assert found["sections"][0]["rows"][2] == {
        "variant": "statistics", "name": str(Text("statistics", "统计量")), "ratio": 1.08, "low": 1.07, "high": 1.09,
        "seconds": 0.5, "apart": 0.0, "bound": 1.05, "must": 1.1, "met": True, "reason": None, "failed": False,
    }  # fmt: skip
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(av.errors.SaveError, match="no space left"):
        made().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(av.errors.ArgumentError, match="md or json"):
        made().save(tmp_path / "bench.csv")


@pytest.mark.usefixtures("small")
def test_the_command_prints_and_writes(
    attnviz, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "QUIET", 100.0)  # runs of a millisecond are never quiet
    threads = torch.get_num_threads()
    words = ("bench", "--quick", "--rounds", "6", "--new-tokens", "4", "--layers", "1", "--variant", "maps")
    parts = ("--part", "time", "--part", "truth", "--part", "decoding")
    assert attnviz(*words, *parts, "--json", "x", "--markdown", "x.md") == 0
    said, found = capsys.readouterr().out, json.loads(Path("x").read_text(encoding="utf-8"))
    assert [section["part"] for section in found["sections"]] == ["time", "truth", "decoding"]
    assert [row["variant"] for row in found["sections"][0]["rows"]] == [PLAIN, AGAIN, "maps"]
    assert found["machine"]["torch"] == torch.__version__
    assert found["settings"]["shapes"] == [[1, 24, 32, 4]]
    assert "1 × GPT-2 block (32 wide, 4 heads), 24 tokens" in said
    assert "A look, no result" in said
    assert Path("x.md").read_text(encoding="utf-8").startswith("### Time, as a ratio to plain · 1 × GPT-2 block")
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("small")
def test_an_invalid_run_is_told_and_fails(
    attnviz, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def twice(bed):
        once = plain(bed)

        def both():
            once()
            return once()

        return both

    def slow_again(keys):
        return {key: replace(one, open=twice) if key == AGAIN else one for key, one in chosen(keys).items()}

    monkeypatch.setattr(run, "chosen", slow_again)
    words = ("bench", "--quick", "--rounds", "6", "--part", "time", "--variant", "rows", "--markdown", "x.md")
    assert attnviz("--lang", "zh", *words) == 1
    assert "INVALID（无效）" in capsys.readouterr().out
    assert "INVALID（无效）" in Path("x.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "5"], "rounds=5: fewer than 6 rounds have no 95 % interval"),
        (["--tokens", "1024,many"], "--tokens 1024,many: expected lengths such as 1024,4096,16384"),
        (["--tokens", "0"], "tokens=[0]: expected lengths of 1 or more"),
        (["--part", "tea"], "unknown part 'tea'; known: time, truth, memory, decoding"),
        (["--variant", "bertviz"], "unknown variant 'bertviz'; known: plain, plain-again, statistics"),
        (["--device", "tpu"], "unknown device 'tpu'; known: cpu, cuda"),
        (["--json", "nowhere/x.json"], "cannot write 'nowhere/x.json': there is no folder 'nowhere'"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_runs(
    attnviz, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("hf_attnviz.benchmarking.run._sections")
    assert attnviz("bench", *words) == 1
    assert said in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(av.errors.ArgumentError, match="torch sees no GPU here"):
        av.bench(device="cuda")


def test_threads_are_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(run, "_sections", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            av.bench(quick=True)
        assert torch.get_num_threads() == 2
        assert not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("tokens", [None, [64, 128]])
def test_what_is_measured_by_default(tokens: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def seen(beds, generation, wanted, parts, rounds, sample):
        asked.append([(bed.shape.layers, bed.shape.tokens, bed.shape.width, bed.shape.heads) for bed in beds])
        asked.append((generation.shape.layers, generation.new, parts, rounds))
        return []

    monkeypatch.setattr(run, "_sections", seen)
    av.bench(tokens=tokens)
    shapes = [(4, 1024, 768, 12), (1, 4096, 768, 12)] if tokens is None else [(1, 64, 768, 12), (1, 128, 768, 12)]
    parts = ("time", "truth", "memory") + (("decoding",) if tokens is None else ())
    assert asked == [shapes, (12, 256, parts, 15)]
