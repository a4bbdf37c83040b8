"""Every task that transformers has: the result is that of the plain run, and traces say what they belong to."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.pipelines import SUPPORTED_TASKS

import hf_attnviz as av
from tests.capturing import pipes
from tests.capturing.pipes import PIPES


def test_no_task_is_left_out() -> None:
    assert set(PIPES) == set(SUPPORTED_TASKS)


def leaves(found: Any) -> Iterator[Any]:
    """What a result is made of, whatever it is nested in."""
    if isinstance(found, Mapping):
        for name in found:
            yield name
            yield from leaves(found[name])
    elif isinstance(found, list | tuple):
        yield len(found)
        for one in found:
            yield from leaves(one)
    elif isinstance(found, torch.Tensor | np.ndarray | Image.Image):
        one = np.asarray(found)
        yield one.dtype, one.shape, one.tobytes()
    else:
        yield found


def same(one: Any, other: Any) -> bool:
    return list(leaves(one)) == list(leaves(other))


@pytest.mark.parametrize("task", PIPES)
def test_a_pipeline_gives_what_it_always_gives(task: str, tmp_path: Path) -> None:
    target, asked, options = PIPES[task](tmp_path)

    def ask() -> Any:
        torch.manual_seed(0)
        return target(*asked, **options)

    plain = ask()
    assert same(plain, ask())  # else the comparison below would say nothing
    before = {name: dict(thing.__dict__) for name, thing in (("pipe", target), ("model", target.model))}
    with av.capture(target) as recording:
        assert same(ask(), plain)
    traces = recording.traces
    assert traces and all(trace.maps for trace in traces)
    assert all(trace.origin is not None and trace.origin.input == 0 for trace in traces)
    for trace in traces:
        for m in trace.maps:
            assert len(m.keys) == m.weights.shape[-1] and len(m.queries) == m.weights.shape[-2]
    attached = av.attach(target, last=len(recording.runs))
    try:
        assert same(ask(), plain)
        again = attached.traces
    finally:
        attached.detach()
    assert [t.origin for t in again] == [t.origin for t in traces]
    for one, other in zip(again, traces, strict=True):
        for a, b in zip(one.maps, other.maps, strict=True):
            assert torch.equal(a.weights, b.weights) and a.keys == b.keys and a.queries == b.queries
    assert "preprocess" not in target.__dict__ and "forward" not in target.__dict__
    assert set(before["model"]) == set(target.model.__dict__)
