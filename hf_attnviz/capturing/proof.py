"""Proof that weights are what a kernel computed, in two grades.

*Consistent*: weights · V equals the kernel's own output. Cheap, but blind to what lies in the null space of V once
there are more keys than ``head_dim``. Every capture checks it.

*Exact*: the same kernel, with the same query, key, mask and arguments, run on blocks of the identity in place of V,
gives the weights themselves: column j of the block comes out as the weight on key j. The doctor checks it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import torch

from hf_attnviz.errors import NotUnderstoodError, ProofError
from hf_attnviz.language import Text, told
from hf_attnviz.reducing.ran import Places, Ran
from hf_attnviz.reducing.sweep import chosen
from hf_attnviz.reducing.tile import ROWS

_HARDLY: Final = -1e3  # exp of it is zero, whatever a model means by it
_LANES: Final = 32  # sums that a kernel keeps side by side: one adds up so many keys fewer
_SAMPLED: Final = 16  # rows of each head that are proved where the matrix is not built
_WAYS: Final = {  # ways to obtain weights, in Chinese
    "the model's own eager function": "模型自己的 eager 函数",
    "the model's own eager function, run as the forward": "作为前向运行的模型自己的 eager 函数",
    "returned by the kernel": "内核返回的权重",
    "kernel on identity": "代入单位矩阵的内核",
}

Kernel = Callable[[torch.Tensor], torch.Tensor]
"""The kernel as a function of V alone: ``[batch, kv_head, key, size]`` → ``[batch, query, head, size]``."""

Candidate = tuple[str, Callable[[], torch.Tensor]]
"""A way to obtain weights ``[batch, head, query, key]``: its name and the function that does it."""


@dataclass(frozen=True, eq=False)
class Proved:
    """Weights with their proof.

    Attributes:
        weights: ``[batch, head, query, key]``.
        error: the largest deviation, over rows that may attend to anything.
        bound: what the deviation may be at most.
        grade: ``"consistent"`` or ``"exact"``.
        way: how the weights were obtained.
        masked_rows: rows that may attend to nothing; they are left out of the proof.
        looks_back: whether none of the rows looks at a later place; None where that was not asked.
        attends: ``[batch or 1, head or 1, query]``, False for rows that may attend to nothing; None where no mask says.
    """

    weights: torch.Tensor
    error: torch.Tensor
    bound: float
    grade: str
    way: str
    masked_rows: int = 0
    looks_back: bool | None = None
    attends: torch.Tensor | None = None


def prove(
    candidates: Iterable[Candidate],
    kernel: Kernel,
    value: torch.Tensor,
    output: torch.Tensor,
    attends: torch.Tensor | None,
    *,
    exact: bool = False,
) -> Proved:
    """The weights of the first candidate that the kernel's own output confirms; else those of the kernel on identity.

    Args:
        candidates: ways to obtain the weights, cheapest first.
        kernel: the kernel, without dropout, as a function of V.
        value: V as it ran, ``[batch, kv_head, key, size]``.
        output: what the kernel gave for it (without dropout), ``[batch, query, head, size]``.
        attends: ``[batch or 1, head or 1, query]``, False for rows that may attend to nothing; None when all may.
        exact: demand the exact grade.

    Raises:
        ProofError: nothing is consistent with the kernel's output; the message says what was tried.
    """
    if not bool(value.isfinite().all()):  # 0 · inf is no number: such a V proves nothing, its finite part does
        value = torch.where(value.isfinite(), value, torch.zeros_like(value))
        output = kernel(value)
    bound = tolerance(value, output.dtype)
    tried: list[Text] = []
    truth = identity_weights(kernel, value) if exact else None
    masked = 0 if attends is None else int((~attends).sum())
    for way, obtain in (*candidates, ("kernel on identity", lambda: _or(truth, kernel, value))):
        try:
            weights = obtain()
            error = consistency(weights, value, output, attends)
            if not float(error) <= bound:  # thousands of alike keys: our own rounding must not be the doubt
                error = consistency(weights, value, output, attends, torch.float64)
        except Exception as problem:  # a twin that cannot run here is no truth; the next way is tried
            why = told(problem)
            tried.append(_tried(way, f"{type(problem).__name__}: {why.en}", f"{type(problem).__name__}: {why.zh}"))
            continue
        if not float(error) <= bound:
            tried.append(_tried(way, f"off by {float(error):.2g}", f"相差 {float(error):.2g}"))
            continue
        if truth is None:
            return Proved(weights, error, bound, "consistent", way, masked, attends=attends)
        deviation = _largest((weights.to(truth.dtype) - truth).abs().amax(-1), attends)
        exact_bound = tolerance(torch.ones_like(value[..., :1, :1]), output.dtype)
        if float(deviation) <= exact_bound:
            return Proved(weights, deviation, exact_bound, "exact", way, masked, attends=attends)
        off = f"{float(deviation):.2g}"
        tried.append(_tried(way, f"off by {off} from the kernel on identity", f"与代入单位矩阵的内核相差 {off}"))
    raise ProofError(
        Text(
            f"no weights agree with what the kernel put out (allowed: {bound:.2g}). "
            f"Tried: {'; '.join(one.en for one in tried)}",
            f"没有权重与内核的输出一致（允许 {bound:.2g}）。试过：{'；'.join(one.zh for one in tried)}",
        )
    )


def _tried(way: str, en: str, zh: str) -> Text:
    return Text(f"{way}: {en}", f"{_WAYS.get(way, way)}：{zh}")


def prove_rows(ran: Ran, places: Places) -> Proved:
    """Some rows of a kernel's call, every head's, against its own output: the proof where the matrix is never built.

    They are spread evenly from the first to the last; all of them where there are no more. That every other row sums
    to one is asked where they are summed.

    Raises:
        NotUnderstoodError: they are not what the kernel mixed.
    """
    queries = ran.shape[2]
    rows = torch.linspace(0, queries - 1, min(_SAMPLED, queries), device=places.queries.device).round().long()
    tile = chosen(ran, places, rows)
    real = (places.queries[:, None, rows] >= 0).to(tile.weights.device)
    attends = real if ran.mask is None else real & (tile.weights.amax(-1) > 0)  # only a mask leaves a row nothing
    value, output = ran.value, ran.output[:, rows.to(ran.output.device)]
    error, bound = consistency(tile.weights, value, output, attends), 1e-5
    off = float(error)  # each number that is asked for keeps an accelerator waiting
    if not off <= bound:  # only then it is asked how large V is
        bound = tolerance(value, output.dtype, keys=ran.shape[-1])
    if not off <= bound:
        error = consistency(tile.weights, value, output, attends, torch.float64)
        off = float(error)
    if not off <= bound:
        raise NotUnderstoodError(
            Text(
                f"rows are off by {off:.2g} from what the kernel mixed (allowed: {bound:.2g})",
                f"有些行与内核所混合的相差 {off:.2g}（允许 {bound:.2g}）",
            )
        )
    way = f"the kernel's own log-sum-exp; {len(rows)} of {queries} rows of each head proved"
    masked = int((real & ~attends)[:, 0].sum())
    square = ran.causal and ran.shape[2] == ran.shape[3] and not places.padded  # rows stand where they are
    back = square or (looks_back(tile.weights, places, rows) and not _lets_look_ahead(ran, places))
    return Proved(tile.weights, error, bound, "consistent", way, masked, back)


def _lets_look_ahead(ran: Ran, places: Places) -> bool:
    """Whether a mask lets any row look at a later place: the rows that were proved may miss a few that do."""
    if ran.causal or ran.mask is None:
        return False
    for rows, ahead in _ahead(places, torch.arange(ran.shape[2])):
        part = ran.mask if ran.mask.shape[2] == 1 else ran.mask[:, :, rows.to(ran.mask.device)]
        if bool(((part > _HARDLY).any(1) & ahead.to(part.device)).any()):
            return True
    return False


def looks_back(weights: torch.Tensor, places: Places, rows: torch.Tensor | None = None) -> bool:
    """Whether no row of ``weights`` ``[batch, head, row, key]`` looks at a place after its own."""
    at = 0
    for part, ahead in _ahead(places, torch.arange(weights.shape[2]) if rows is None else rows):
        here = weights[:, :, at : at + len(part)]
        if bool((here.ne(0) & ahead[:, None].to(here.device)).any()):
            return False
        at += len(part)
    return True


def _ahead(places: Places, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Some of the rows at a time, and which keys stand at a later place than each ``[batch, row, key]``."""
    for part in torch.split(rows.to(places.queries.device), ROWS):
        stands = places.queries[:, part]
        yield part, (places.keys[:, None] > stands[:, :, None]) & (stands >= 0)[:, :, None]


def tolerance(value: torch.Tensor, output: torch.dtype | None = None, *, keys: int = 0) -> float:
    """How far weights · V may be from the kernel's output: rounding of the dtype, at the size of V.

    Under autocast the output is coarser than V, and says in which dtype the kernel worked. A kernel that adds up one
    row of thousands of ``keys`` in so many lanes rounds once a key and lane: torch's own, with one query and 16,004
    keys, was 0.02 · keys · eps · max|V| away from float64.
    """
    largest = float(value.detach().abs().max()) if value.numel() else 0.0
    eps = max(torch.finfo(dtype).eps for dtype in (value.dtype, output or value.dtype))
    if eps <= torch.finfo(torch.float32).eps:
        return max(1e-5, keys * torch.finfo(torch.float32).eps / _LANES) * max(1.0, largest)
    return 2 * eps * largest


def consistency(
    weights: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    attends: torch.Tensor | None = None,
    precision: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The largest deviation of weights · V from ``output`` (a scalar; infinite where either is not a number)."""
    precise = torch.promote_types(value.dtype, precision)
    group = weights.shape[1] // value.shape[1]
    grouped = value.to(precise) if group == 1 else value.to(precise).repeat_interleave(group, dim=1)
    with torch.autocast(value.device.type, enabled=False):
        expected = weights.to(precise) @ grouped
    deviation = (expected - output.to(precise).transpose(1, 2)).abs()
    return _largest(deviation.amax(-1), attends)


def identity_weights(kernel: Kernel, value: torch.Tensor) -> torch.Tensor:
    """The weights themselves, ``[batch, head, query, key]``: the kernel run on blocks of the identity."""
    keys, size = value.shape[-2:]
    columns = []
    for start in range(0, keys, size):
        width = min(size, keys - start)
        block = torch.zeros_like(value, memory_format=torch.contiguous_format)
        here = torch.arange(width, device=value.device)
        block[..., start + here, here] = 1
        columns.append(kernel(block)[..., :width])
    return torch.cat(columns, dim=-1).transpose(1, 2)


def attending_rows(mask: object) -> torch.Tensor | None:
    """Which rows a 4-D mask lets attend to anything, ``[batch or 1, head or 1, query]``; None when no mask says."""
    if not isinstance(mask, torch.Tensor) or mask.dim() != 4:
        return None
    return (mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2).any(-1)


def _or(truth: torch.Tensor | None, kernel: Kernel, value: torch.Tensor) -> torch.Tensor:
    return identity_weights(kernel, value) if truth is None else truth


def _largest(deviation: torch.Tensor, attends: torch.Tensor | None) -> torch.Tensor:
    """The largest of ``[batch, head, query]`` over rows that attend."""
    sound = torch.where(deviation.isnan(), torch.inf, deviation)
    if attends is not None:
        sound = sound.masked_fill(~attends, 0.0)
    return sound.max() if sound.numel() else sound.new_zeros(())
