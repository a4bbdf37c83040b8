"""How attention changes while text is generated: the newest row of each decoding step, step after step.

Source: Chuang et al., "Lookback Lens" (2024), section 2, equations 1 to 3 for the lookback ratio; the others are those
of :mod:`hf_attnviz.functional.statistics`, for one row. Steps: take the last query row of each step; sum, mean or
compare it with the row before.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.functional.checks import check_axes, upcast
from hf_attnviz.functional.divergence import jensen_shannon
from hf_attnviz.functional.entropy import entropy
from hf_attnviz.language import Text

Number = Callable[[Tensor], Tensor]
NO_KEY = -1  # the strongest key of a row that holds NaN: int64 has no NaN


def evolution(steps: Sequence[Tensor], prompt_length: int | None) -> dict[str, Tensor]:
    """Numbers of the last row of each of `steps`, each step `[layer, batch, head, query, key]`.

    Each number is `[step, layer, batch, head]`. The keys of step s are the `prompt_length` prompt tokens, then what
    was generated and read so far, the newest, on which the row stands, last. None for cross-attention, whose keys are
    another text: then only what is marked °. With padding, call it once an example on its real keys.

    - lookback_ratio: mean weight on a prompt key ÷ (that + mean weight on a generated key), the query's own key among
      these; means and not sums, or a long prompt would win by its length. NaN while nothing is generated (step 0);
    - prompt_mass and generated_mass (shares), first_token° (share on the first key), self_token (share on the newest
      key), previous_token (share on the key before it; NaN where there is none), previous_token_argmax (1 where that
      key has the largest weight, else 0; of equal weights the first key wins), distance (tokens: Σ a·(newest − key));
    - entropy° (nats), normalised_entropy° (over the ln of the number of keys; NaN for a single key), effective_span°
      (tokens: exp(entropy)), confidence° (the largest weight);
    - drift°: Jensen–Shannon divergence in nats from the step before, the shorter row filled with zeros; NaN at step 0;
    - uniform_drift°: what drift would be if both rows were uniform over their keys: the part that the growth of the
      keys makes by itself (0 where they do not grow); NaN at step 0;
    - argmax°: the key of the largest weight, int64; of equal ones the first; -1 for a row that holds NaN. A name, not a
      quantity: never average it.

    Left out of :func:`hf_attnviz.functional.head_statistics`: next_token (the newest row has none) and
    first_token_after_first_row (a row is first or it is not). Raises ArgumentError without steps, ShapeError for a
    step that lacks prompt keys or differs in layers or heads.

    >>> prompt, step = torch.tensor([[[[[0.6, 0.4]]]]]), torch.tensor([[[[[0.1, 0.1, 0.6]]]]])
    >>> evolution([prompt, step], prompt_length=2)["lookback_ratio"].flatten()
    tensor([   nan, 0.1429])
    """
    if not steps:
        raise ArgumentError(
            Text(
                "expected at least one step, got none; pass the maps of a generation, one a step",
                "应至少有一步，得到零步；请传入一次生成的各图，每步一张",
            )
        )
    if prompt_length is not None and prompt_length < 1:
        raise ArgumentError(
            Text(
                f"expected a prompt_length of 1 or more, got {prompt_length}; count the prompt's tokens",
                f"prompt_length 应为 1 或更大，得到 {prompt_length}；请数一下提示的词元",
            )
        )
    rows = [_last_row(step, steps[0], prompt_length or 1) for step in steps]
    each = [of_row(row, prompt_length) for row in rows]
    result = {name: torch.stack([numbers[name] for numbers in each]) for name in each[0]}
    uniform = [torch.full_like(row, 1 / row.shape[-1]) for row in rows]
    return {**result, "drift": _drifts(rows), "uniform_drift": _drifts(uniform)}


def of_row(row: Tensor, prompt_length: int | None) -> dict[str, Tensor]:
    """The numbers of :func:`evolution` that one row `[..., key]` tells by itself, each `[...]`."""
    numbers = {**({} if prompt_length is None else _of_places(prompt_length)), **_OF_SPREAD}
    return {name: number(row) for name, number in numbers.items()}


def drift(before: Tensor, after: Tensor) -> Tensor:
    """Jensen–Shannon divergence in nats of two rows `[..., key]`, the shorter one filled with zeros."""
    keys = max(before.shape[-1], after.shape[-1])
    return jensen_shannon(pad(before, (0, keys - before.shape[-1])), pad(after, (0, keys - after.shape[-1])))


def uniform_drifts(keys: Sequence[int]) -> Tensor:
    """What drift is between rows that are even over so many keys, one a step: NaN at step 0, `[step]`, float64."""
    return _drifts([torch.full((count,), 1 / count, dtype=torch.float64) for count in keys])


def _last_row(step: Tensor, first: Tensor, least_keys: int) -> Tensor:
    check_axes(step)
    if step.shape[:3] != first.shape[:3] or step.shape[-1] < least_keys:
        raise ShapeError(
            Text(
                f"expected every step to have {tuple(first.shape[:3])} layers, examples and heads and at least "
                f"{least_keys} keys, got sizes {tuple(step.shape)}; give all steps of one generation, uncropped",
                f"每一步都应有 {tuple(first.shape[:3])} 的层、样本与头，且至少 {least_keys} 个键，得到的大小为 "
                f"{tuple(step.shape)}；请给出同一次生成的所有步，且未经裁剪",
            )
        )
    return upcast(step[..., -1, :])


def _of_places(prompt_length: int) -> dict[str, Number]:
    """What needs to know where the prompt ends and where the row stands."""
    return {
        "lookback_ratio": lambda row: _lookback_ratio(row, prompt_length),
        "prompt_mass": lambda row: row[..., :prompt_length].sum(-1),
        "generated_mass": lambda row: row[..., prompt_length:].sum(-1),
        "self_token": lambda row: row[..., -1],
        "previous_token": lambda row: _of_previous(row, row[..., -2:-1]),
        "previous_token_argmax": lambda row: _of_previous(row, _is_argmax(row)[..., -2:-1]),
        "distance": lambda row: (row * torch.arange(row.shape[-1] - 1, -1, -1, device=row.device)).sum(-1),
    }


def _normalised_entropy(row: Tensor) -> Tensor:
    return entropy(row) / (math.log(row.shape[-1]) or torch.nan)  # one key alone: no choice, no number


_OF_SPREAD: dict[str, Number] = {
    "first_token": lambda row: row[..., 0],
    "entropy": entropy,
    "normalised_entropy": _normalised_entropy,
    "effective_span": lambda row: entropy(row).exp(),
    "confidence": lambda row: row.amax(-1),
    "argmax": lambda row: row.argmax(-1).masked_fill(row.isnan().any(-1), NO_KEY),
}


def _lookback_ratio(row: Tensor, prompt_length: int) -> Tensor:
    prompt, generated = row[..., :prompt_length].mean(-1), row[..., prompt_length:].mean(-1)
    return prompt / (prompt + generated)  # the mean over no key is NaN


def _is_argmax(row: Tensor) -> Tensor:
    strongest = torch.zeros_like(row).scatter(-1, row.argmax(-1, keepdim=True), 1)
    return strongest.masked_fill(row.isnan().any(-1, keepdim=True), torch.nan)


def _of_previous(row: Tensor, values: Tensor) -> Tensor:
    """The one value `[..., 1]` of the key before the newest; NaN where there is no such key."""
    return values.squeeze(-1) if values.shape[-1] else torch.full_like(row[..., 0], torch.nan)


def _drifts(rows: Sequence[Tensor]) -> Tensor:
    unknown = torch.full_like(rows[0][..., 0], torch.nan)
    return torch.stack([unknown, *(drift(before, after) for before, after in pairwise(rows))])
