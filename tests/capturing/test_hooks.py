"""Hooks of the user's own hear each module once, also where a layer runs again for us alone."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import hf_attnviz as av
from tests.capturing.test_probe import longformer
from tests.models import ids, padded, tiny


def encoder() -> Any:
    torch.manual_seed(0)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False)


CASES = {
    "read by a second run": (longformer, lambda: padded([8, 5], "right")),
    "a faster way of torch": (encoder, lambda: {"src": torch.randn(2, 5, 16)}),
    "a kernel": (lambda: tiny("bert"), lambda: {"input_ids": ids(2, 5)}),
}


@pytest.mark.parametrize("everywhere", [False, True], ids=["on each module", "on all modules"])
@pytest.mark.parametrize("case", CASES)
def test_each_hook_hears_a_module_once(case: str, everywhere: bool) -> None:
    model, inputs = CASES[case][0]().eval(), CASES[case][1]()
    heard: Counter[int] = Counter()

    def before(module: nn.Module, _: Any) -> None:
        heard[-id(module)] += 1

    def after(module: nn.Module, *_: Any) -> None:
        heard[id(module)] += 1

    if everywhere:
        handles = [register_module_forward_hook(after)]
    else:
        handles = [module.register_forward_hook(after) for module in model.modules()]
        handles += [module.register_forward_pre_hook(before) for module in model.modules()]
    try:
        with torch.no_grad():
            model(**inputs)
            plain = Counter(heard)
            with av.capture(model) as recording:
                model(**inputs)
            assert heard == plain + plain
            model(**inputs)  # and the hooks are back
        assert heard == plain + plain + plain
    finally:
        for handle in handles:
            handle.remove()
    assert recording.calls
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_hook_that_changes_what_a_layer_gives_is_not_run_again_in_silence() -> None:
    model = longformer()
    inputs = padded([8, 5], "right")
    handle = model.encoder.layer[0].attention.self.value.register_forward_hook(lambda *a: a[2] * 2)
    with torch.no_grad():
        plain = model(**inputs)[0]
        recording = av.attach(model)
        seen = model(**inputs)[0]
        recording.detach()
    handle.remove()
    assert torch.equal(plain, seen)
    with pytest.raises(av.errors.CaptureError, match="hooks of your own do not run again"):
        _ = recording.traces


class Cold:
    """A cache that does not say how full it is."""

    def get_seq_length(self) -> int:
        raise RuntimeError("not filled yet")


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bert = tiny("bert")

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None) -> torch.Tensor:
        output: torch.Tensor = self.bert(input_ids)[0]
        return output


def test_a_cache_that_fails_does_not_disturb_the_model() -> None:
    model = Reads()
    with torch.no_grad():
        plain = model(ids(2, 5), Cold())
        recording = av.attach(model)
        seen = model(ids(2, 5), Cold())
        recording.detach()
    assert torch.equal(plain, seen)
    with pytest.raises(av.errors.CaptureError, match="not filled yet"):
        _ = recording.traces
