"""timm: its vision models captured in the environment that ``make timm`` builds, in a process of their own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv-timm" / "bin" / "python"


@pytest.fixture(scope="module")
def seen() -> Any:
    if not PYTHON.exists():
        pytest.skip("the environment of timm is missing; build it with: make timm")
    run = subprocess.run(
        [PYTHON, Path(__file__).with_name("timm_script.py")],
        capture_output=True, text=True, check=False, timeout=240, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


BLOCKS = [0, 1]
EXPECTED: dict[str, list[list[int]]] = {  # [batch, head, query, key] of each map
    "vit_tiny_patch16_224": [[2, 2, 5, 5]] * 2,
    "deit_tiny_distilled_patch16_224": [[2, 2, 6, 6]] * 2,
    "beit_base_patch16_224": [[2, 2, 5, 5]] * 2,
    "eva02_tiny_patch14_224": [[2, 2, 5, 5]] * 2,
    "vit_base_patch16_siglip_224": [[2, 2, 4, 4]] * 2 + [[2, 2, 1, 4]],
    "cait_xxs24_224": [[2, 2, 4, 4]] * 2 + [[2, 2, 1, 5]] * 2,
    "swin_tiny_patch4_window7_224": [[8, 1, 49, 49], [2, 2, 49, 49]],
}


@pytest.mark.parametrize("fused", ["True", "False"])
@pytest.mark.parametrize("name", EXPECTED)
def test_vision_models_of_timm(seen: Any, name: str, fused: str) -> None:
    found = seen[name][fused]
    assert found["identical"]
    assert found["ok"]  # the doctor: every map proved exactly, nothing left behind
    assert [shape for *_, shape in found["maps"]] == EXPECTED[name]
    assert {stack for stack, *_ in found["maps"]} == {"vision"}
    assert [layer for _, _, layer, _ in found["maps"][:2]] == [0, 1]
    assert all(far < 1e-5 for far in found["far"])
    if name.startswith(("vit_tiny", "deit")):
        assert len(found["far"]) == 2
        assert ("scaled_dot_product_attention" in found["backends"]) == (fused == "True")
    if name.startswith("swin"):  # four windows an image are no four images
        assert "a batch of 8, and the run 2 sequences" in found["traces"]
    else:
        assert found["traces"] == 2


@pytest.mark.parametrize("fused", ["True", "False"])
def test_convolutions_with_and_without_attention(seen: Any, fused: str) -> None:
    assert seen["resnet10t"][fused] == {"maps": []}
    assert seen["mobilevit_xxs"][fused]["identical"]
    assert seen["mobilevit_xxs"][fused]["ok"]
    assert len(seen["mobilevit_xxs"][fused]["maps"]) == 9
