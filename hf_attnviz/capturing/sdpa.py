"""``scaled_dot_product_attention``, called by a module itself: its weights by the formula, proved on the kernel."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.arranging import four
from hf_attnviz.capturing.gradients import Watched
from hf_attnviz.capturing.proof import Proved, attending_rows, prove
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.reducing.ran import Ran

SDPA: Final = "scaled_dot_product_attention"
_NAMES: Final = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, whether they came by place or by name."""
    return dict(zip(_NAMES, args, strict=False)) | dict(kwargs)


def sdpa_seen(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: torch.Tensor,
    exact: bool,
    watched: Watched | None = None,
    ran: Ran | None = None,
) -> Seen:
    """One call, its weights to be worked out and proved when they are asked for.

    Args:
        func, args, kwargs, result: the call, and what the kernel gave.
        exact: demand the exact grade of the proof.
        watched: what watches the gradient of its weights, where that was asked for.
        ran: the kernel's call, where it was seen.
    """
    given = named(args, kwargs)
    query, key, value = (given[name] for name in ("query", "key", "value"))
    rest = {name: given[name] for name in _NAMES[3:] if name in given} | {"dropout_p": 0.0}
    mask, scale = rest.get("attn_mask"), rest.get("scale") or query.shape[-1] ** -0.5

    def kernel(v: torch.Tensor) -> torch.Tensor:
        with scope.deaf(), torch.no_grad():
            out = func(query, key, v.reshape(*value.shape[:-1], v.shape[-1]), **rest)
        return four(out).transpose(1, 2)

    def formula() -> torch.Tensor:
        keys = four(key).repeat_interleave(four(query).shape[1] // four(key).shape[1], dim=1)
        scores = four(query) @ keys.transpose(-1, -2) * scale
        if rest.get("is_causal"):
            scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights: torch.Tensor = scores.softmax(-1)
        return weights

    def proved() -> Proved:
        with torch.no_grad(), scope.deaf():
            output = kernel(value) if given.get("dropout_p") else four(result).transpose(1, 2)
            candidates = [("softmax of the scores", formula)] if mask is None or query.dim() == 4 else []
            if watched is not None and watched.weights is not None:
                known = four(watched.weights)
                candidates = [("softmax of the scores, run as the forward", lambda: known)]
            return prove(candidates, kernel, four(value), output, attending_rows(mask), exact=exact)

    def vectors() -> Mapping[str, torch.Tensor]:
        shown = {"query": query, "key": key, "value": value, "output": result}
        found = {name: four(tensor.detach()) for name, tensor in shown.items()}
        return found | {"query": found["query"] * scale}

    return Seen(proved, SDPA, vectors, gradient=None if watched is None else watched.gradient, ran=ran)
