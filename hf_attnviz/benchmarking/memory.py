"""Peak memory, each variant in a process of its own.

What counts is growth: the peak of resident memory during a run, less what was resident just before it. The peak is the
kernel's own high-water mark, set back before the run through ``/proc/self/clear_refs``; ``ru_maxrss`` will not do, for
it survives ``exec`` (a child begins with the peak of its parent) and remembers the building of the model. On a GPU it
is the allocator's own mark. Measured twice: cold, with everything that the first use imports and compiles, and warm.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hf_attnviz.benchmarking.given import NotThereError
from hf_attnviz.benchmarking.shapes import Shape
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text

_MARK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
WARM = 2  # runs: one cold, one warm


def growth(key: str, shape: Shape, *, seed: int, device: str) -> tuple[float, float]:
    """Bytes by which memory grew during the first run of a variant, and during a later one.

    Raises:
        NotThereError: it cannot be measured here, or the process did not live to tell.
    """
    if device == "cpu" and not os.access(_MARK, os.W_OK):
        raise NotThereError(Text(f"not measured: {_MARK} cannot be written here", f"未测量：此处无法写入 {_MARK}"))
    asked = {"key": key, "shape": asdict(shape), "seed": seed, "device": device}
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(path for path in (root, os.environ.get("PYTHONPATH", "")) if path)
    done = subprocess.run(
        [sys.executable, "-m", "hf_attnviz.benchmarking.child", json.dumps(asked)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = f"signal {-done.returncode}" if done.returncode < 0 else (done.stderr.strip().splitlines() or ["?"])[-1]
        raise NotThereError(Text(f"failed: {why}", f"失败：{why}"))
    told = json.loads(done.stdout.splitlines()[-1])
    if "reason" in told:
        raise NotThereError(Text(*told["reason"]))
    return tuple(told["growth"])


def measured(run: Callable[[], Any], device: str) -> Iterator[float]:
    """Bytes by which memory grows, run after run; what a run kept is held until its peak is read."""
    while True:
        gc.collect()
        reset, now, peak = _cuda() if device == "cuda" else _resident()
        reset()
        before = now()
        kept = run()
        grown = peak() - before
        del kept
        yield grown


def _resident() -> tuple[Callable[[], Any], Callable[[], float], Callable[[], float]]:
    _give_back()
    return lambda: _MARK.write_text("5"), lambda: _status("VmRSS"), lambda: _status("VmHWM")


def _cuda() -> tuple[Callable[[], Any], Callable[[], float], Callable[[], float]]:
    torch.cuda.synchronize()
    return torch.cuda.reset_peak_memory_stats, torch.cuda.memory_allocated, torch.cuda.max_memory_allocated


def _give_back() -> None:
    """Freed memory goes back to the system, so that a run has to ask for it again, where the C library can do that."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024.0 * int(line.split()[1])
    raise ArgumentError(Text(f"{_STATUS} has no {name}", f"{_STATUS} 中没有 {name}"))


def available(device: str) -> float:
    """Bytes that a variant may take; infinite where nobody tells."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")
