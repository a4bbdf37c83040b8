"""The program that measures pictures: each has its row, with bytes and times of a page that was really opened."""

import subprocess
import sys
from pathlib import Path

import pytest

import hf_attnviz as av

APP = Path(__file__).parent.parent / "apps" / "measure_views.py"


def _rows(*words: str) -> list[dict[str, str]]:
    command = [sys.executable, str(APP), "--tokens", "12", "--layers", "1", "--heads", "2", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(("view", "kind", "tokens", "spread", "page", "build", "ready", *"abc"), row, strict=True))
            for row in cells[1:]]  # fmt: skip


def test_every_picture_is_measured() -> None:
    rows = _rows("--no-browser", "--no-bertviz")
    assert {row["view"] for row in rows} == set(av.pictures())
    for row in rows:
        assert row["tokens"] == "12"
        assert 0 < float(row["page"].removesuffix(" MB")) < 5
        assert float(row["build"]) >= 0
        assert 1 < float(row["spread"]) < (1500 if row["kind"] == "sound" else 13)  # frames; tokens, and [CLS]
        assert (row["ready"], row["a"]) == ("–", "–")


@pytest.mark.browser
def test_bertviz_own_page_is_drawn_beside_ours(chromium) -> None:
    [row] = _rows("--views", "head")
    assert 0 < float(row["ready"]) < 60
    assert 0 < float(row["c"]) < 60
