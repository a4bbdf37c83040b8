"""The comparison with other tools: our own column, on all eight families. The others have their own environment."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

_PATH = Path(__file__).parent.parent.parent / "apps" / "compare_with_peers.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("compare_with_peers", _PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "compare_with_peers", module)  # dataclasses look there
        spec.loader.exec_module(module)
    return module


PEERS = script()


@pytest.mark.parametrize("family", PEERS.FAMILIES, ids=lambda family: family.name)
def test_our_own_column(family: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        PEERS.save(family, tmp_path)
        found = PEERS.cell(PEERS.hf_attnviz, {}, family, tmp_path)
    far, words = re.fullmatch(r"(\S+); (.*)", found).groups()  # type: ignore[union-attr]
    assert words == "same bits; unchanged"
    assert 0 < float(far) < 2e-6


def test_what_a_cell_says_of_a_tool_that_changes_things(tmp_path: Path) -> None:
    """So that the column above could have said something else."""
    family = PEERS.FAMILIES[0]

    def tool(model: Any, family: Any, folder: str) -> Any:
        maps, logits = PEERS.hf_attnviz(model, family, folder)
        model.set_attn_implementation("eager")
        model.transformer.h[0].register_forward_hook(lambda *_: None)
        return [one * 1.5 for one in maps], logits + 1

    with torch.no_grad():
        PEERS.save(family, tmp_path)
        found = PEERS.cell(tool, {}, family, tmp_path)
    assert found.startswith("0.5; output off by 1; backend now eager, 1 modules not as they were, other output")
