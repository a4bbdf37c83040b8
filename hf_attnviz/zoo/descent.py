"""How the embedded models are trained: AdamW, the rate up and down once, gradients clipped."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def descend(
    model: Any, loss_of: Callable[[int, int], Tensor], *, steps: int, rate: float, progress: Callable[..., None]
) -> None:
    """Train the weights of a model that want it, in place.

    Args:
        loss_of: ``loss_of(step, steps)`` draws a batch and gives its loss.
        progress: hears the step, the number of steps and the loss.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 20), pct_start=0.1)
    for step in range(steps):
        loss = loss_of(step, steps)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, steps, loss.item())
