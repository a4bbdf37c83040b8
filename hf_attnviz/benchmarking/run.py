"""The front door: everything measured, in one call."""

import importlib.metadata
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch

from hf_attnviz.benchmarking.beds import Bed, DecodingBed
from hf_attnviz.benchmarking.interval import rank
from hf_attnviz.benchmarking.measuring import checked, remembered, timed
from hf_attnviz.benchmarking.shapes import PROMPT, QUICK, TABLE, VOCABULARY, Shape
from hf_attnviz.benchmarking.table import Bench, Section
from hf_attnviz.benchmarking.timing import SAMPLE, one_thread
from hf_attnviz.benchmarking.variants import PLAIN, Variant, chosen
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.language import Text

PARTS: Final = ("time", "truth", "memory", "decoding")
ROUNDS: Final = 15
_QUICK_ROUNDS: Final = 7
_QUICK_MEMORY: Final = (PLAIN, "statistics", "maps", "eager-attentions")
_DEVICES: Final = ("cpu", "cuda")
_PACKAGES: Final = ("torch", "transformers", "numba", "nnsight", "transformer-lens", "captum")


def bench(
    *,
    rounds: int | None = None,
    tokens: Sequence[int] | None = None,
    parts: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    quick: bool = False,
    device: str = "cpu",
    new_tokens: int | None = None,
    layers: int | None = None,
    seed: int = 0,
    sample: float | None = None,
) -> Bench:
    """What looking costs on this machine, against a plain forward and against other tools.

    Each round runs every variant once, in turns, in this process, on one thread; what is told is the median over the
    rounds of the ratio to the plain run of the same round, with its 95 % interval. Plain runs stand in the table twice:
    where the interval of their ratio leaves 1 ± 0.03 the machine was not quiet and the benchmark is invalid. Memory is
    measured in a process for each variant. The same call checks that outputs keep every bit and that statistics are
    what float64 arithmetic makes of the captured queries and keys. Nothing is downloaded: weights are random.

    It takes about half an hour; ``quick=True`` takes a minute and is a look at a small shape, of which nothing must
    hold.

    Args:
        rounds: how many; default 15, fewer than 6 have no interval.
        tokens: lengths to measure instead of the table's two shapes (4 layers at 1,024 and 1 at 4,096), one layer
            each; then without ``"decoding"``, unless ``parts`` names it.
        parts: some of ``"time"``, ``"truth"``, ``"memory"``, ``"decoding"``.
        variants: some of the variants, by name; plain runs are always there.
        quick: a small shape and few rounds.
        device: ``"cuda"`` measures bfloat16 on flash attention, by the wall's clock.
        new_tokens, layers: of the generation; default 256 by 12.
        seed: of weights and inputs.
        sample: seconds that one sample takes at least, default 0.1; shorter runs are repeated.

    Raises:
        ArgumentError, UnknownNameError: what is asked for cannot be measured.
    """
    rounds = rounds if rounds is not None else _QUICK_ROUNDS if quick else ROUNDS
    parts = tuple(parts) if parts else PARTS[:-1] if tokens else PARTS
    _check(rounds, tokens, parts, device)
    wanted = chosen(variants)
    shapes = [Shape(1, count) for count in tokens] if tokens else [QUICK] if quick else list(TABLE)
    small = QUICK if quick else Shape(12, 0)
    new = new_tokens if new_tokens is not None else 16 if quick else 256
    generated = Shape(layers or small.layers, PROMPT + new, small.width, small.heads)
    with warnings.catch_warnings(), one_thread(), torch.inference_mode():
        warnings.simplefilter("ignore")  # other tools warn a great deal
        beds = [Bed(shape, seed=seed, device=device) for shape in shapes]
        generation = DecodingBed(generated, seed=seed, device=device)
        sections = tuple(_sections(beds, generation, wanted, parts, rounds, SAMPLE if sample is None else sample))
    settings = {"rounds": rounds, "shapes": [(one.layers, one.tokens, one.width, one.heads) for one in shapes],
                "parts": list(parts), "device": device, "seed": seed, "threads": 1, "new_tokens": new}  # fmt: skip
    return Bench(sections, machine(device), settings, tuple(_notes(rounds, device, quick)))


def _sections(
    beds: Sequence[Bed],
    generation: DecodingBed,
    wanted: dict[str, Variant],
    parts: Sequence[str],
    rounds: int,
    sample: float,
) -> Iterator[Section]:
    for bed in beds:
        if "time" in parts:
            yield timed(bed, wanted, rounds=rounds, sample=sample)
        if "truth" in parts:
            yield checked(bed, wanted)
    if "memory" in parts:
        longest = max(beds, key=lambda bed: bed.shape.tokens)
        yield from remembered(longest, _few(wanted) if longest.shape == QUICK else wanted)
    if "decoding" in parts:
        yield timed(generation, wanted, rounds=rounds, sample=sample)


def _few(wanted: dict[str, Variant]) -> dict[str, Variant]:
    """Those whose memory a quick look measures: each takes a process, which takes seconds to begin."""
    return {key: one for key, one in wanted.items() if key in _QUICK_MEMORY}


def _check(rounds: int, tokens: Sequence[int] | None, parts: Sequence[str], device: str) -> None:
    if not rank(max(rounds, 1)):
        raise ArgumentError(
            Text(
                f"rounds={rounds}: fewer than 6 rounds have no 95 % interval; 15 or more make a result",
                f"rounds={rounds}：少于 6 轮没有 95% 区间；15 轮以上才算结果",
            )
        )
    if any(count < 1 for count in tokens or ()):
        raise ArgumentError(
            Text(
                f"tokens={list(tokens or ())}: expected lengths of 1 or more, such as [1024, 4096]",
                f"tokens={list(tokens or ())}：长度应为 1 或更大，例如 [1024, 4096]",
            )
        )
    for part in parts:
        if part not in PARTS:
            raise UnknownNameError(
                Text(f"unknown part {part!r}; known: {listed(PARTS)}", f"未知项目 {part!r}；可用：{listed(PARTS)}")
            )
    if device not in _DEVICES:
        raise UnknownNameError(
            Text(
                f"unknown device {device!r}; known: {listed(_DEVICES)}",
                f"未知设备 {device!r}；可用：{listed(_DEVICES)}",
            )
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(
            Text(
                "device='cuda': torch sees no GPU here; leave it out to measure the processor",
                "device='cuda'：torch 在这里看不到 GPU；不给它即测量处理器",
            )
        )


def machine(device: str) -> dict[str, str]:
    """The processor, the versions, and whatever else the numbers depend on."""
    found = {"processor": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"}
    if device == "cuda":
        found["GPU"] = torch.cuda.get_device_name()
    found["python"] = platform.python_version()
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _notes(rounds: int, device: str, quick: bool) -> Iterator[Text]:
    clocks = {
        "cpu": Text("CPU time of the process, one thread, float32", "进程 CPU 时间，单线程，float32"),
        "cuda": Text("the wall's clock between synchronisations, bfloat16", "同步之间的墙钟时间，bfloat16"),
    }[device]
    yield Text(
        f"Time: {clocks.en}, batch 1, inference mode, random weights, {VOCABULARY} tokens in the vocabulary. All "
        f"variants take turns in each of {rounds} rounds; the ratio is the median of the rounds' ratios to plain, its "
        f"interval runs from the {_th(rank(rounds))}smallest to the {_th(rank(rounds))}largest (order statistics, no "
        "distribution assumed).",
        f"时间：{clocks.zh}，批大小 1，推理模式，随机权重，词表 {VOCABULARY}。{rounds} 轮中各方式轮流运行；"
        f"比值为每轮与原样运行之比的中位数，区间自第 {rank(rounds)} 小至第 {rank(rounds)} 大"
        "（次序统计量，不假设分布）。",
    )
    yield Text(
        "Memory: growth of the resident peak over the state just before the run, in a process for each variant. "
        "Statistics must be no more than 10 % and 60 MB above plain.",
        "内存：常驻内存峰值相对运行前的增长，每种方式各用一个进程。统计量须不超过原样运行的 110% 加 60 MB。",
    )
    yield Text(
        "Other tools need eager attention to see weights; eager's output is not that of sdpa to the last bit.",
        "其他工具须用 eager 注意力才能看到权重；eager 的输出与 sdpa 并非逐位相同。",
    )
    if quick or rounds < ROUNDS:
        yield Text(
            f"A look, no result: results need the full shapes and {ROUNDS} rounds or more.",
            f"仅供一览：正式结果需完整规模及至少 {ROUNDS} 轮。",
        )


def _th(number: int) -> str:
    return {1: "", 2: "2nd ", 3: "3rd "}.get(number, f"{number}th ")
