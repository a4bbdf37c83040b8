"""What a method gives: a score for each position, and what must be told beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_attnviz.language import Text


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one method.

    Attributes:
        values: ``[key]``; NaN where the method is undefined.
        parameters: what shaped them, and what was measured with them (a convergence delta).
        notes: what a reader must know.
    """

    values: Tensor
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Text, ...] = ()
