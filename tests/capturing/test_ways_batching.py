"""Continuous batching: many requests in one row, over a paged cache, in a thread of its own. Refused in words."""

from typing import Any

import pytest
import torch
import transformers
from transformers import GenerationConfig

import hf_attnviz as av
from tests.capturing.ways import decoder
from tests.models import ids

INPUTS = [ids(1, 7)[0].tolist(), ids(1, 4, 3)[0].tolist()]
# Warnings of transformers' own, about the attention that suits a paged cache best.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def batched(model: Any) -> list[list[int]]:
    small = transformers.ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=32)
    config = GenerationConfig(max_new_tokens=4, do_sample=False, eos_token_id=-1, pad_token_id=0)
    out = model.generate_batch(INPUTS, generation_config=config, continuous_batching_config=small, warmup=False)
    assert all(one.error is None for one in out.values())
    return [one.generated_tokens for one in out.values()]


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_it_runs_as_it_is_and_its_capture_is_refused(backend: str) -> None:
    model = decoder("llama", backend)
    plain, seen = batched(model), list[list[int]]()
    with pytest.raises(av.errors.CaptureError, match=r"continuous batching.*plain generate"), av.capture(model):
        seen += batched(model)
    assert seen == plain
    assert model.config._attn_implementation == backend
    assert not {"forward", "generate"} & set(model.__dict__)


def test_an_attached_recording_tells_it_when_it_is_read_and_goes_on() -> None:
    model = decoder("llama")
    recording = av.attach(model, last=1)
    batched(model)
    with pytest.raises(av.errors.CaptureError, match="continuous batching"):
        recording.traces  # noqa: B018
    out = model.generate(torch.tensor([INPUTS[0]]), max_new_tokens=2, do_sample=False)
    recording.detach()
    assert recording.trace.decoder.keys.ids == tuple(out[0, :-1].tolist())
