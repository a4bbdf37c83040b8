"""How attention changes while text is generated: the newest row of each decoding step, step after step.

Source: Chuang et al., "Lookback Lens" (2024), section 2, equations 1 to 3 for the lookback ratio; the rest are plain
statistics of that row. Steps: take the last query row of each step; sum, mean or compare it with the row before.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.checks import check_axes, upcast
from hf_attnviz.functional.divergence import jensen_shannon
from hf_attnviz.functional.entropy import entropy


def evolution(steps: Sequence[Tensor], prompt_length: int) -> dict[str, Tensor]:
    """Seven numbers for the last row of each of `steps`, `[layer, batch, head, query, key]` each.

    Each is `[step, layer, batch, head]`; the keys of step s are the `prompt_length` prompt tokens, then what was
    generated and read so far, the newest last. With padding, call it once an example on its real keys.

    - lookback_ratio: mean weight on a prompt key ÷ (that + mean weight on a generated key), the query's own key among
      these; means and not sums, or a long prompt would win by its length. NaN while nothing is generated (step 0);
    - prompt_mass (share on the prompt), first_token, self_token (share on the newest key), entropy (nats);
    - drift: Jensen–Shannon divergence in nats from the step before, the shorter row filled with zeros; NaN at step 0.
      Some of it is only the new key;
    - argmax: the key of the largest weight, int64; of equal ones the first.

    Raises ArgumentError without steps, ShapeError for a step that lacks prompt keys or differs in layers or heads.

    >>> prompt, step = torch.tensor([[[[[0.6, 0.4]]]]]), torch.tensor([[[[[0.1, 0.1, 0.6]]]]])
    >>> evolution([prompt, step], prompt_length=2)["lookback_ratio"].flatten()
    tensor([   nan, 0.1429])
    """
    if not steps:
        raise ArgumentError("expected at least one step, got none; pass the maps of a generation, one a step")
    if prompt_length < 1:
        raise ArgumentError(f"expected a prompt_length of 1 or more, got {prompt_length}; count the prompt's tokens")
    rows = [_last_row(step, steps[0], prompt_length) for step in steps]
    numbers: dict[str, Callable[[Tensor], Tensor]] = {
        "lookback_ratio": lambda row: _lookback_ratio(row, prompt_length),
        "prompt_mass": lambda row: row[..., :prompt_length].sum(-1),
        "entropy": entropy,
        "first_token": lambda row: row[..., 0],
        "self_token": lambda row: row[..., -1],
        "argmax": lambda row: row.argmax(-1),
    }
    result = {name: torch.stack([number(row) for row in rows]) for name, number in numbers.items()}
    unknown = torch.full_like(result["entropy"][0], torch.nan)
    drifts = [_drift(before, after) for before, after in pairwise(rows)]
    return {**result, "drift": torch.stack([unknown, *drifts])}


def _last_row(step: Tensor, first: Tensor, prompt_length: int) -> Tensor:
    check_axes(step)
    if step.shape[:3] != first.shape[:3] or step.shape[-1] < prompt_length:
        raise ShapeError(
            f"expected every step to have {tuple(first.shape[:3])} layers, examples and heads and at least "
            f"{prompt_length} keys, got sizes {tuple(step.shape)}; give all steps of one generation, uncropped"
        )
    return upcast(step[..., -1, :])


def _lookback_ratio(row: Tensor, prompt_length: int) -> Tensor:
    prompt, generated = row[..., :prompt_length].mean(-1), row[..., prompt_length:].mean(-1)
    return prompt / (prompt + generated)  # the mean over no key is NaN


def _drift(before: Tensor, after: Tensor) -> Tensor:
    keys = max(before.shape[-1], after.shape[-1])
    return jensen_shannon(pad(before, (0, keys - before.shape[-1])), pad(after, (0, keys - after.shape[-1])))
