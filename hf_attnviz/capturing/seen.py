"""What an observer hands to a recording: the proved weights of one attention call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from hf_attnviz.capturing.gradients import Gradient
from hf_attnviz.capturing.proof import Proved


@dataclass(frozen=True, eq=False)
class Seen:
    """One attention computation.

    Attributes:
        proved: the weights ``[batch, head, query, key]`` and their proof.
        implementation: the backend that ran (``"sdpa"``, ``"eager"`` …), or the operators seen.
        pads: whether the module itself may have filled the sequence up to a length that it likes.
        vectors: gives ``query`` (times the scaling), ``key``, ``value`` and ``output`` (before its projection), each
            ``[batch, head, position, size]``; those that can be seen.
        gradient: watches the weights, where that was asked for.
    """

    proved: Proved
    implementation: str
    vectors: Callable[[], Mapping[str, torch.Tensor]] = dict
    pads: bool = False
    gradient: Gradient | None = None
