"""A rotating sample of the sweep (``make sweep`` is all of it); and its instruments, which must be able to fail."""

import datetime as dt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import CONFIG_MAPPING

from hf_attnviz.capturing import proof
from tests.sweep import build, odd, table
from tests.sweep.one import examined
from tests.sweep.statistics import judged
from tests.sweep.witness import Witness

TYPES = sorted(CONFIG_MAPPING.keys())
SHARES = 25  # after as many days every type has been in the sample
TODAY = TYPES[dt.date.today().toordinal() % SHARES :: SHARES]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", TODAY)
def test_todays_share_of_all_types(key: str) -> None:
    row = examined(key)
    assert not table.faults(row)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", TODAY)
def test_statistics_of_todays_share_are_those_of_the_maps(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_SAMPLED", 2)
    row = judged(key)
    assert not row.get("wrong")
    assert row["stage"] != "refused" or "layout of its own" in row["reason"]


def test_rows_are_of_types_that_exist() -> None:
    known = set(TYPES)
    for rows in (build.CONFIGS, build.CLASSES, build.MAKERS, build.FEEDS, build.NOT_BUILT, odd.NO_MAPS, odd.PROBED):
        assert set(rows) <= known, set(rows) - known


def attention(way: str) -> None:
    query, key, value = torch.randn(3, 2, 4, 5, 8).unbind()
    scores = query @ key.transpose(2, 3)
    if way == "kernel":
        F.scaled_dot_product_attention(query, key, value)
    elif way == "product":
        F.dropout(scores.softmax(-1), 0.5).to(torch.float64).matmul(value.double())
    elif way == "einsum":
        torch.einsum("bhqk,bhkd->bqhd", scores.softmax(-1), value)
    elif way == "sum":
        (scores.softmax(-1)[..., None] * value[:, :, None]).sum(-2)
    elif way == "router":
        best = scores.softmax(-1).topk(2).values
        best @ torch.randn(2, 4, 2, 3)
    else:
        scores.softmax(-1)


@pytest.mark.parametrize(
    ("way", "seen"),
    [
        ("kernel", (1, 0, 0)), ("product", (0, 1, 0)), ("einsum", (0, 1, 0)), ("sum", (0, 0, 1)), ("router", (0, 0, 0)),
        ("dead", (0, 0, 0)),
    ],
)  # fmt: skip
def test_the_witness_counts_what_attends(way: str, seen: tuple[int, int, int]) -> None:
    with torch.no_grad(), Witness() as witness:
        attention(way)
    assert (witness.kernels, witness.products, witness.sums) == seen


SOUND: dict[str, Any] = {
    "type": "bert", "stage": "ran", "kernels": 2, "products": 0, "identical": True, "unchanged": True,
    "traces": "2 maps", "reason": "",
    "findings": [{"module": "a", "calls": 2, "kind": "self", "grade": "exact", "reason": "", "error": 0.0}],
}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"together": "differs: by 1"},
        {"kernels": 3}, {"products": 1}, {"identical": False}, {"unchanged": False}, {"traces": "CaptureError: no"},
        {"stage": "ended", "reason": "too slow"},
        {"findings": [SOUND["findings"][0] | {"grade": "consistent"}]},
        {"findings": [SOUND["findings"][0] | {"grade": "stated"}]},
        {"findings": [SOUND["findings"][0], {"module": "b", "calls": 0, "kind": "", "grade": "refused", "reason": ""}]},
    ],
    ids=lambda changed: "-".join(changed),
)  # fmt: skip
def test_the_table_tells_every_fault(changed: dict[str, Any]) -> None:
    assert table.faults(SOUND) == []
    assert table.faults(SOUND | changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("minimax", "linear attention"), ("rwkv", "a linear recurrence (RWKV)"), ("fnet", "a Fourier transform"),
        ("mamba2", "a state-space model"), ("xlstm", "a matrix memory (xLSTM)"),
        ("yoso", "an estimate by hashing, no softmax"),
        ("autoformer", "auto-correlation, which looks at delays"),
        ("deformable_detr", "deformable attention, which samples a few points between the pixels"),
        ("convbert", "a convolution whose kernel each position makes"),
        ("deepseek_v4", "streams of the residual, mixed in place"),
    ],
)  # fmt: skip
def test_what_is_no_attention_over_keys_is_named(key: str, what: str) -> None:
    row = examined(key)
    assert not table.faults(row)
    assert what in table.others(row)
