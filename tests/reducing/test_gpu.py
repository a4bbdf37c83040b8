"""Each pass over the scores against loops in float64: numba's, PyTorch's, PyTorch's as it runs on an accelerator, and
Triton's, whose kernels run in its interpreter and go through its compiler."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from hf_attnviz.errors import SlowerWarning
from hf_attnviz.reducing import passes, sweep
from hf_attnviz.reducing.tile import Sums
from tests.reducing.gpu_cases import CASES, deviations, made

CLOSE = 2e-5


@pytest.mark.parametrize("which", ["numba", "torch", "accelerator"])
@pytest.mark.parametrize("name", CASES)
def test_sums(name: str, which: str) -> None:
    ran, places, known = made(CASES[name])
    with nullcontext() if which == "numba" else passes.pure():
        if which == "accelerator":
            sums = _all_heads_at_once(ran, places)
        else:
            (last,) = sweep.sweep(ran, places, weights=False)
            sums = last.given
    off = deviations(sums, known)
    assert max(off.values()) < CLOSE, off


def _all_heads_at_once(ran, places) -> Sums:
    """The tiles of an accelerator: all heads of a block in one product."""
    ready, knows = sweep._ready(ran)
    sums = Sums.empty(ran.shape)
    tiles = sweep._blocks(ready, places, sums, knows, write=False, together=True)
    assert sum(1 for _ in tiles)
    return sweep._told(ready, places, sums)


def test_where_triton_fails_the_tiles_run_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ran, places, sums, knows) -> None:
        sums.received.fill_(7)
        raise RuntimeError("out of shared memory")

    monkeypatch.setattr(passes, "_TRITON_ON", frozenset({"cpu"}))
    monkeypatch.setattr(passes, "_triton", lambda: SimpleNamespace(takes=lambda ran: True, fused=broken))
    monkeypatch.setattr(passes, "_failed", [])
    ran, places, known = made(CASES["padded, bfloat16, hidden"])
    with pytest.warns(SlowerWarning, match="out of shared memory"):
        (last,) = sweep.sweep(ran, places, weights=False)
    assert max(deviations(last.given, known).values()) < CLOSE
    (again,) = sweep.sweep(ran, places, weights=False)  # a second warning would be an error
    assert max(deviations(again.given, known).values()) < CLOSE


def test_float32_is_not_rounded_where_torch_was_told_that_it_may() -> None:
    there = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"), float=lambda: 32, double=lambda: 64)
    half = SimpleNamespace(dtype=torch.float16, device=torch.device("cuda"), float=lambda: 32, double=lambda: 64)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert (passes.exact(there), passes.exact(half), passes.exact(torch.ones(1)).dtype) == (64, 32, torch.float32)
        torch.set_float32_matmul_precision("highest")
        assert passes.exact(there) == 32
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    pytest.importorskip("triton", reason="triton is missing: pip install 'hf-attnviz[gpu]' (Linux on x86-64)")
    quiet = "ignore::RuntimeWarning:triton.runtime.interpreter"  # exp2 overflows where a causal mask hides it
    run = subprocess.run(
        [sys.executable, "-W", "error", "-W", quiet, "-m", "tests.reducing.interpreted"],
        capture_output=True, text=True, check=False, env=os.environ | {"TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", [*CASES, "a model"])
def test_kernels_in_the_interpreter(interpreted: dict[str, dict[str, float]], name: str) -> None:
    assert max(interpreted[name].values()) < CLOSE, interpreted[name]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    pytest.importorskip("triton", reason="triton is missing: pip install 'hf-attnviz[gpu]' (Linux on x86-64)")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.reducing.compiled"], capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", ["sums", "sums, masked", "sums, float32", "log-sum-exp"])
def test_kernels_compile_for_a_gpu_and_spill_no_registers(compiled: dict[str, dict[str, int]], name: str) -> None:
    found = compiled[name]
    assert found["spilled"] == 0, found
    assert found["shared"] <= 113 * 1024, "two programs on a multiprocessor of 227 KiB"
    assert (found["matrix_units"] > 0) is (name != "sums, float32"), found
    assert (found["atomics"] > 0) is (name != "log-sum-exp"), found
