"""What stands at a prompt or in a log: one line each, not a page."""

from dataclasses import replace

import torch

import hf_attnviz as av
from hf_attnviz.views import head_view
from tests.models import ids, tiny
from tests.views.builders import self_trace


def test_a_recording_says_its_model_and_what_it_holds() -> None:
    model = tiny("bert")
    recording = av.attach(model)
    assert repr(recording) == "Recording(BertModel: open, 0 runs, 0 attention calls)"
    with torch.no_grad():
        model(ids(1, 4))
    recording.detach()
    assert repr(recording) == "Recording(BertModel: closed, 1 run, 2 attention calls)"


def test_a_diagnosis_says_whether_all_is_well() -> None:
    found = av.doctor(tiny("bert"), {"input_ids": ids(1, 4)})
    assert repr(found) == "Diagnosis(BertModel: ok; 2 exact; identical output, nothing left behind)"
    bad = replace(found, findings=(), identical=False, unchanged=False)
    assert repr(bad) == "Diagnosis(BertModel: NOT OK; nothing found; OUTPUT DIFFERS, MODEL CHANGED)"


def test_one_layer_and_one_head_are_singular() -> None:
    alone = head_view(self_trace(["a"], layers=1, heads=1)).html
    assert "1 layer × 1 head" in alone
    assert "1 heads" not in alone
    assert "2 layers × 3 heads" in head_view(self_trace(["a"])).html
