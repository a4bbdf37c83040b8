"""The program that measures on a GPU: what it says without one, and that it runs, on the CPU, as it would there."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

APP = Path(__file__).parent.parent / "apps" / "measure_gpu.py"


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(APP), *words], capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: nothing to complain of")
def test_without_a_gpu_it_says_so() -> None:
    done = _run()
    assert done.returncode == 2 and done.stdout.startswith("No CUDA here"), done.stdout + done.stderr


def test_it_runs() -> None:
    done = _run("--device", "cpu", "--tokens", "300", "150", "--rounds", "6")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and "FAILED" not in done.stdout, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert [row[0] for row in rows] == ["tokens", "150", "300"]
    for row in rows[1:]:
        told = dict(zip(rows[0], row, strict=True))
        assert told["same bits"] == "yes" and float(told["off float64"]) < 1e-4, told
        assert 1 < float(told["FLOP bound"]) < 1.5
    assert "16 of 300 rows of each head proved" in done.stdout
