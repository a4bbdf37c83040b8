"""What the tests of wrappers share: the same bits with and without a capture, and nothing left behind."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.overrides import _get_current_function_mode_stack

import hf_attnviz as av
from hf_attnviz.capturing import scope
from tests.capturing.test_forward import TOLERANCE as TOLERANCE
from tests.capturing.test_forward import same
from tests.capturing.test_undo import ORIGINAL

GREEDY: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
DOORS = ("forward", "generate", "prepare_inputs_for_generation")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert transformers.modeling_utils.AttentionInterface.get_interface == ORIGINAL[1]
    assert _get_current_function_mode_stack() == []
    assert scope.all_sessions() == []
    assert torch._dynamo.eval_frame._stance.stance == "default"


def ours(model: nn.Module) -> Any:
    """Where we stand on a model; wrappers change the rest of it as they run."""
    return {
        name: (dict(m._forward_hooks), dict(m._forward_pre_hooks), [m.__dict__.get(door) for door in DOORS])
        for name, m in model.named_modules()
    }


def recorded(target: Any, run: Callable[[], Any]) -> tuple[Any, av.Recording]:
    """What ``run`` gives, the same with and without a capture of ``target``, and the recording."""
    with torch.no_grad():
        plain = run()
        before = ours(target)
        with av.capture(target) as recording:
            assert ours(target) != before
            seen = run()
    same(plain, seen)
    assert ours(target) == before
    names = {name for name, _ in target.named_modules()}
    assert recording.calls and {call.module for call in recording.calls} <= names
    return seen, recording


def eager_maps(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """``[layer, batch, head, query, key]`` of a model that runs eager."""
    with torch.no_grad():
        return torch.stack(model(input_ids=tokens, output_attentions=True).attentions)
