"""Time, all variants in one process, taking turns.

A processor's speed wanders with its temperature and its neighbours, so each round runs every variant once, and what
counts is the ratio to the plain run of the same round. The turns rotate, and every second round goes backwards, so that
no variant always stands behind the same other. The clock is the CPU time of the process (on a GPU, the wall's, between
two synchronisations).
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from hf_attnviz.language import Text
from hf_attnviz.progress import shown

SAMPLE: Final = 0.1  # seconds that one sample takes at least: short runs are repeated


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch runs on one thread inside, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def turns(names: Sequence[str], round_: int) -> list[str]:
    """The order of a round.

    >>> [turns("abc", n) for n in range(3)]
    [['a', 'b', 'c'], ['a', 'c', 'b'], ['c', 'a', 'b']]
    """
    start = round_ % len(names)
    rotated = [*names[start:], *names[:start]]
    return rotated[::-1] if round_ % 2 else rotated


def clock(device: str) -> Callable[[], float]:
    """What tells the time: the process's own CPU time, or on a GPU the wall's once all work is done."""
    if device == "cpu":
        return time.process_time

    def told() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return told


def interleaved(
    runs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    what: Text,
    now: Callable[[], float] = time.process_time,
    sample: float = SAMPLE,
) -> dict[str, list[float]]:
    """Seconds of each run, by name, one a round; all have run once before, and the first says how often to repeat."""
    once = seconds(next(iter(runs.values())), 1, now)
    repeats = 1 if once >= sample else math.ceil(sample / max(once, 1e-6))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.freeze()  # what stands by now is not swept again between any two samples
    try:
        for n in shown(range(rounds), rounds, what):
            for name in turns(list(runs), n):
                taken[name].append(seconds(runs[name], repeats, now))
    finally:
        gc.unfreeze()
    return taken


def seconds(run: Callable[[], Any], repeats: int, now: Callable[[], float]) -> float:
    """Seconds of one run: the mean of some, with what they kept still held; what others left is swept away before."""
    gc.collect()
    began = now()
    for _ in range(repeats):
        kept = run()
    taken = now() - began
    del kept
    return taken / repeats
