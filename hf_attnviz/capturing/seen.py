"""What an observer hands to a recording: the proved weights of one attention call."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from hf_attnviz.capturing.proof import Proved


@dataclass(frozen=True, eq=False)
class Seen:
    """One attention computation.

    Attributes:
        proved: the weights ``[batch, head, query, key]`` and their proof.
        implementation: the backend that ran (``"sdpa"``, ``"eager"`` …), or the operators seen.
        vectors: ``query`` (times the scaling), ``key`` and ``value``, where they could be seen.
    """

    proved: Proved
    implementation: str
    vectors: Mapping[str, torch.Tensor] = field(default_factory=dict)
