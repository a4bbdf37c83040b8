"""What a variant is made of: a run, or the reason why there is none."""

from collections.abc import Callable
from typing import Any

import torch

from hf_attnviz.language import Text

Run = Callable[[], tuple[torch.Tensor, Any]]
"""One run of the model: its output, and what was kept of its attention."""


class NotThereError(Exception):
    """This release, this machine or this environment does not have it; the reason stands in the table."""

    def __init__(self, reason: Text) -> None:
        super().__init__(reason.en)
        self.reason = reason
