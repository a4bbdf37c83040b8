"""What an observer hands to a recording: one attention call, its weights still to be worked out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from hf_attnviz.capturing.gradients import Gradient
from hf_attnviz.capturing.proof import Proved
from hf_attnviz.reducing.outline import Outline
from hf_attnviz.reducing.ran import Ran


@dataclass(frozen=True, eq=False)
class Seen:
    """One attention computation.

    Attributes:
        prove: gives the weights ``[batch, head, query, key]`` and their proof.
        implementation: the backend that ran (``"sdpa"``, ``"eager"`` …), or the operators seen.
        pads: whether the module itself may have filled the sequence up to a length that it likes.
        vectors: gives ``query`` (times the scaling), ``key``, ``value`` and ``output`` (before its projection), each
            ``[batch, head, position, size]``; those that can be seen.
        gradient: watches the weights, where that was asked for.
        ran: the fused kernel's call, where one was seen; its weights need not be worked out then.
        fused: whether a kernel works out of our sight without the matrix, which we then build for it.
        told: its outline, where that is known before they are worked out.
    """

    prove: Callable[[], Proved]
    implementation: str
    vectors: Callable[[], Mapping[str, torch.Tensor]] = dict
    pads: bool = False
    gradient: Gradient | None = None
    ran: Ran | None = None
    fused: bool = False
    told: Outline | None = None

    @cached_property
    def proved(self) -> Proved:
        """The weights and their proof."""
        return self.prove()

    @property
    def shape(self) -> torch.Size:
        """The shape of the weights."""
        return self.proved.weights.shape if self.ran is None else self.ran.shape

    @property
    def outline(self) -> Outline:
        """What it is like, for an estimate of what it takes."""
        if self.told is not None:
            return self.told
        weights = self.proved.weights
        return Outline(tuple(weights.shape), weights.element_size(), device=weights.device)
