"""Knock-out: positions that some queries may not look at, as if a mask forbade it.

What is left of a row is scaled up, and its values are mixed again.

Source: Geva et al., "Dissecting Recall of Factual Associations" (2023), section 4.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn

from hf_attnviz.capturing.intervening import Head, Intervention, Site, put
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.capturing.steering import Mixed
from hf_attnviz.errors import ArgumentError, CaptureError, listed
from hf_attnviz.language import Text

_LOOSE: Final = 1e-5  # a row that misses one by more than rounding has a sink that is no key
_SURE: Final = 10  # how many roundings must be left of a row beside such a sink


def knock_out(
    model: Any,
    *,
    queries: Sequence[int] | None,
    keys: Sequence[int] | None,
    heads: Sequence[Head] | None = None,
    stack: str | None = None,
) -> Intervention:
    """Forbid queries to look at keys while the block runs; what is left of each row is scaled up, as a mask would.

    A row to which nothing is left puts out zeros.

    Args:
        model: as in :func:`hf_attnviz.ablate`.
        queries, keys: positions in the sequence, padding left out; negative ones count from its end, which while
            generating moves with every step; None: all.
        heads: as there; None: all heads of ``stack``.
        stack: the stack that is meant when ``heads`` names none; default: every one.

    Raises:
        ArgumentError: neither queries nor keys.
        CaptureError: when the block ends: no such row or key was there; or gradients were on, and are not carried.
    """
    for name, chosen in (("queries", queries), ("keys", keys)):
        if chosen is not None and (isinstance(chosen, (int, str)) or not chosen):
            raise ArgumentError(
                Text(
                    f"{name}={chosen!r}: expected a list of positions such as [0, -1], or None for all",
                    f"{name}={chosen!r}：应为位置的列表，例如 [0, -1]；None 表示全部",
                )
            )
    if queries is None and keys is None:
        raise ArgumentError(
            Text(
                "queries=None, keys=None would forbid everything; name positions of one of the two",
                "queries=None、keys=None 会禁止一切；请至少指明其一的位置",
            )
        )
    return _KnockOut(model, heads, stack, queries, keys)


class _KnockOut(Intervention):
    reweighs = True

    def __init__(
        self,
        model: Any,
        heads: Sequence[Head] | None,
        stack: str | None,
        queries: Sequence[int] | None,
        keys: Sequence[int] | None,
    ) -> None:
        super().__init__(model, heads, self._forbid)
        self._stack, self._queries, self._keys = stack, queries, keys
        self._forbidden = False

    def check(self) -> None:
        super().check()
        if self.runs and not self._forbidden:
            stacks = listed(dict.fromkeys(stack for stack, _ in self._ran))
            raise CaptureError(
                Text(
                    f"nothing was knocked out: queries {self._queries} and keys {self._keys} never met"
                    f"{f' in stack {self._stack!r}' if self._stack else ''}; stacks that ran: {stacks}",
                    f"什么也没有切断：查询 {self._queries} 与键 {self._keys} "
                    f"{f'在堆栈 {self._stack!r} 中' if self._stack else ''}从未相遇；运行过的堆栈：{stacks}",
                )
            )

    def _forbid(self, site: Site, chosen: torch.Tensor, mixed: Mixed) -> Mixed:
        if self._stack not in (None, site.stack):
            return mixed
        rows = _at(site.queries, self._queries, site.keys if site.stack != "cross" else site.queries)
        forbidden = (rows[:, :, None] & _at(site.keys, self._keys, site.keys)[:, None, :]).to(mixed.output.device)
        if not bool(forbidden.any()):
            return mixed
        self._forbidden = True
        if _drops(self.model.get_submodule(site.module)):
            raise CaptureError(
                Text(
                    "knock_out mixes the values once more, without dropout; call model.eval() first",
                    "knock_out 会不带 dropout 再混合一次值；请先调用 model.eval()",
                )
            )
        if torch.is_grad_enabled() and mixed.output.requires_grad:
            raise CaptureError(
                Text(
                    "knock_out carries no gradients; run the model inside torch.no_grad()",
                    "knock_out 不传递梯度；请在 torch.no_grad() 内运行模型",
                )
            )
        every = forbidden[:, None] & chosen[:, None, None]
        every = every if mixed.forbidden is None else every | mixed.forbidden
        instead, weights = mixed.masked(every) or _again(site, mixed.see(), every)
        hit = every.any(-1)
        plain = mixed.see().proved.weights
        cut = torch.where(hit[..., None], weights.to(plain.dtype), plain)
        return replace(put(mixed, hit.transpose(1, 2)[..., None], instead), weights=cut, forbidden=every)


def _drops(module: nn.Module) -> bool:
    """Whether dropout is on in a module: a layer for it, or a share by name."""
    training = [part for part in module.modules() if part.training]
    named = [share for part in training for name, share in vars(part).items() if "drop" in name]
    layers = [part.p for part in training if isinstance(part, nn.Dropout)]
    return any(isinstance(share, (int, float)) and share > 0 for share in [*named, *layers])


def _again(site: Site, seen: Seen, forbidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The output ``[batch, query, head, size]`` and the weights, mixed again of what was seen."""
    value, weights = seen.vectors().get("value"), seen.proved.weights
    if value is None or weights.dim() != 4:
        raise CaptureError(
            Text(
                f"{site.stack} layer {site.layer} does not show its values; ablate its heads instead",
                f"{site.stack} 第 {site.layer} 层不显露其值；请改为关闭它的头（ablate）",
            )
        )
    cut = _without(weights, forbidden, _visible(site, weights))
    values = value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)
    return (cut.to(values.dtype) @ values).transpose(1, 2), cut


def _visible(site: Site, weights: torch.Tensor) -> torch.Tensor:
    """Which keys a query may look at ``[batch, 1, query, key]``: where any query looks ahead, all of them.

    Weights do not tell: one of zero may be too small for its dtype.
    """
    keys, queries = (places.to(weights.device) for places in (site.keys, site.queries))
    ahead = (keys[:, None, :] > queries[:, :, None])[:, None]
    all_of_them = site.stack == "cross" or bool((weights * ahead).any())
    real = (keys >= 0)[:, None, None, :]
    return real.expand_as(ahead) if all_of_them else real & ~ahead


def _without(weights: torch.Tensor, forbidden: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Rows without some of their keys, the others (and a sink that is no key) scaled up in proportion.

    Raises:
        CaptureError: what is left of a row is too small, in this dtype, to be scaled up.
    """
    exact, hit = weights.double(), forbidden.any(-1, keepdim=True)
    left, whole = exact.masked_fill(forbidden, 0), exact.sum(-1, keepdim=True)
    kept, loose = left.sum(-1, keepdim=True), max(_LOOSE, torch.finfo(weights.dtype).eps)
    beyond = torch.where(whole > 0, 1 - whole, 0)
    sinks = beyond.amax(-2, keepdim=True) > loose  # every row of a head has the same one
    remaining = kept + torch.where(sinks, beyond.clamp(min=0), 0)
    lost = (kept < torch.finfo(weights.dtype).tiny) & (visible & ~forbidden).any(-1, keepdim=True)
    if bool((hit & (lost | (sinks & (kept > 0) & (remaining < _SURE * loose)))).any()):
        raise CaptureError(
            Text(
                f"next to nothing is left of a row once its keys are forbidden, too little to be scaled up in "
                f"{str(weights.dtype).removeprefix('torch.')}; run the model in a finer dtype, or forbid it fewer keys",
                f"某行禁止其键之后几乎什么也不剩，以 {str(weights.dtype).removeprefix('torch.')} 的精度无法放大；"
                "请以更高的精度运行模型，或少禁止一些键",
            )
        )
    return torch.where(hit, torch.where(kept > 0, left / remaining, 0), exact).to(weights.dtype)


def _at(places: torch.Tensor, wanted: Sequence[int] | None, whole: torch.Tensor) -> torch.Tensor:
    """Which places ``[batch, …]`` are wanted; negative ones count from the end of each sequence, ``whole``."""
    if wanted is None:
        return places >= 0
    length = whole.amax(-1, keepdim=True) + 1
    chosen = torch.zeros_like(places, dtype=torch.bool)
    for place in wanted:
        chosen |= places == (place if place >= 0 else length + place)
    return chosen & (places >= 0)
