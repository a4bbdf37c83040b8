"""What looking costs on a GPU: one layer of Llama-8B's shape in bfloat16, plain and with statistics. Prints Markdown.

    python apps/measure_gpu.py [--tokens 8192 32768 131072] [--rounds 15] [--kernel flash]

Each round times the plain forward, ours, and the plain one again, by CUDA's own events; the ratio is that of the round,
and of all rounds the median with its 95 % interval (order statistics). A row whose two plain runs differ by more than
3 % says INVALID. Beside it: the same bits of output, rows of each head against float64, memory, and what the matrix
would need. Uses the front door only. Where no GPU is, it says so and ends with status 2; ``--device cpu`` tries the
program itself on a layer of a small shape.
"""

import argparse
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

import hf_attnviz as av

LLAMA = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "any": None,
}
SAME, CLOSE = 0.03, 1e-4
HEADER = (
    "tokens", "plain, ms", "ours, ms", "ratio", "plain / plain", "FLOP bound", "same bits", "off float64", "memory",
    "eager would need",
)  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """The median of a ratio over rounds, and its interval; NaN ends where there were fewer than six rounds."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, over: Sequence[float], under: Sequence[float]) -> "Ratio":
        """Round by round."""
        each = sorted(one / other for one, other in zip(over, under, strict=True))
        n, k, below = len(each), 0, 1
        while 2 * below <= 0.05 * 2**n:  # the k-th smallest and the k-th largest enclose the median this often
            k += 1
            below += math.comb(n, k)
        return cls(statistics.median(each), *((each[k - 1], each[-k]) if k else (math.nan, math.nan)))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def main() -> None:
    """Measure each length, longest last; what fails is told, and the next one is tried."""
    asked = _asked()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("No CUDA here: torch sees no GPU, so nothing was measured. --device cpu tries the program on the CPU.")
        sys.exit(2)
    _where(asked)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    notes: dict[str, None] = {}
    for tokens in sorted(asked.tokens):
        try:
            print(f"| {' | '.join(_row(asked, tokens, notes))} |", flush=True)
        except Exception as problem:
            print(f"| {tokens:,} | FAILED: {type(problem).__name__}: {str(problem)[:300]} |", flush=True)
    print("".join(f"\n- {note}" for note in notes))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 32768, 131072])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kernel", choices=KERNELS, default="flash", help="whose plain forward; any: torch chooses")
    parser.add_argument("--keep", default="statistics")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    return parser.parse_args()


def _where(asked: argparse.Namespace) -> None:
    try:
        import triton

        version = triton.__version__
    except Exception as problem:
        version = f"missing ({problem})"
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "the CPU, a small shape: a trial of the program"
    print(f"On {name}; torch {torch.__version__}, triton {version}, kernel {asked.kernel}, keep={asked.keep!r}\n")


def _row(asked: argparse.Namespace, tokens: int, notes: dict[str, None]) -> list[str]:
    """One length: all that is told of it."""
    shape = LLAMA if asked.device == "cuda" else SMALL
    model, given = _layer(shape, tokens, asked.device), _ids(tokens, asked.device)
    kernel = KERNELS[asked.kernel] if asked.device == "cuda" else None
    last: list[Any] = []

    def plain() -> torch.Tensor:
        out: torch.Tensor = model(input_ids=given).last_hidden_state
        return out

    def ours() -> torch.Tensor:
        last.clear()
        with av.capture(model, keep=asked.keep) as recording:
            out = plain()
        last.extend(recording.calls)
        return out

    with torch.inference_mode(), sdpa_kernel(kernel) if kernel else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: notes.setdefault(f"{tokens:,} tokens: {message}", None)
        same = torch.equal(plain(), ours())
        notes[f"{tokens:,} tokens: {last[0].way}"] = None
        off = _off(model, given, last[0]) if asked.keep == "statistics" else math.nan
        memory = [_memory(run, asked.device) for run in (plain, ours)]
        times = _rounds([plain, ours, plain], asked.rounds, asked.device)
    first, our, second = times
    return _told(shape, tokens, first, our, second, same, off, memory)


def _told(
    shape: dict[str, int],
    tokens: int,
    first: list[float],
    our: list[float],
    second: list[float],
    same: bool,
    off: float,
    memory: list[float],
) -> list[str]:
    middle = [(one + two) / 2 for one, two in zip(first, second, strict=True)]
    ratio, control = Ratio.of(our, middle), Ratio.of(second, first)
    valid = abs(control.low - 1) <= SAME and abs(control.high - 1) <= SAME
    eager = 4 * shape["num_attention_heads"] * tokens**2 / 2**30
    return [
        f"{tokens:,}",
        f"{statistics.median(middle):.2f}",
        f"{statistics.median(our):.2f}",
        str(ratio) + ("" if valid else " INVALID"),
        str(control),
        f"{_bound(shape, tokens):.3f}",
        "yes" if same else "NO",
        f"{off:.1e}" + ("" if not off > CLOSE else " TOO FAR"),
        f"+{max(0.0, memory[1] - memory[0]):.2f} GiB on {memory[0]:.2f}",
        f"{eager:,.0f} GiB",
    ]


def _layer(shape: dict[str, int], tokens: int, device: str) -> Any:
    """One layer with random weights, sharp enough that rows differ; its vocabulary is small, so that it is the layer
    that is timed."""
    config = transformers.LlamaConfig(
        **shape, num_hidden_layers=1, vocab_size=128, max_position_embeddings=tokens, use_cache=False
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.LlamaModel._from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16)
    model.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=1.5 * parameter.shape[-1] ** -0.5)
    return model.eval()


def _ids(tokens: int, device: str) -> torch.Tensor:
    return torch.randint(3, 128, (1, tokens), generator=torch.Generator().manual_seed(1)).to(device)


def _off(model: Any, given: torch.Tensor, call: Any, count: int = 16) -> float:
    """The largest deviation of the statistics of some rows from float64 arithmetic on the vectors, over max(1, |x|);
    and that of the sum of what all keys receive, which is the number of rows."""
    (query, key, scale), found = _vectors(model, given), call.statistics
    heads, tokens, _ = query.shape
    rows = torch.linspace(0, tokens - 1, count, device=query.device).round().long()
    at = torch.arange(tokens, device=query.device)
    received = (found.received[0].double().sum(-1) / tokens - 1).abs().max()
    worst = [received]
    for h in range(heads):  # one head at a time: float64 rows of 131,072 keys are large
        scores = scale * query[h, rows].double() @ key[h * len(key) // heads].double().mT
        weights = scores.masked_fill(at > rows[:, None], -torch.inf).softmax(-1)
        for name, right in {
            "entropy": -torch.special.xlogy(weights, weights).sum(-1),
            "distance": (weights * (rows[:, None] - at)).sum(-1),
            "sink": weights[:, 0],
        }.items():
            value = found[name][0, h, rows].double()
            worst.append(((value - right).abs() / right.abs().clamp(min=1)).max())
    return float(torch.stack(worst).max())


def _vectors(model: Any, given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The query and the key ``[head, position, size]`` that the kernel is given, and its scale; a scaled query would be
    rounded once more."""
    whole, found = F.scaled_dot_product_attention, []

    def look(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        found.append((query[0], key[0], kwargs.get("scale") or query.shape[-1] ** -0.5))
        return whole(query, key, *args, **kwargs)

    F.scaled_dot_product_attention = look
    try:
        model(input_ids=given)
    finally:
        F.scaled_dot_product_attention = whole
    return found[0]


def _rounds(runs: Sequence[Callable[[], Any]], rounds: int, device: str) -> list[list[float]]:
    """Milliseconds of each, taken in turns; the first round warms up."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for run, into in zip(runs, times, strict=True):
            taken = _timed(run, device)
            if number:
                into.append(taken)
    return times


def _timed(run: Callable[[], Any], device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def _memory(run: Callable[[], Any], device: str) -> float:
    """The most that was in use at a time, in GiB, the weights included."""
    if device == "cpu":
        return math.nan
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def _bound(shape: dict[str, int], tokens: int) -> float:
    """1 + one more product of queries and keys, beside all products of a layer; half of the scores are seen."""
    width, heads = shape["hidden_size"], shape["num_attention_heads"]
    narrow = width * shape["num_key_value_heads"] // heads
    others = 2 * width * (2 * width + 2 * narrow + 3 * shape["intermediate_size"])
    return 1 + tokens * width / (others + 2 * tokens * width)


if __name__ == "__main__":
    main()
