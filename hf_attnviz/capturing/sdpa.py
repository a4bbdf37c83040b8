"""``scaled_dot_product_attention``, called by a module itself: its weights by the formula, proved on the kernel."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.arranging import four
from hf_attnviz.capturing.gradients import Watched
from hf_attnviz.capturing.proof import Proved, attending_rows, prove
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.reducing.outline import Outline
from hf_attnviz.reducing.ran import Ran

SDPA: Final = "scaled_dot_product_attention"
_NAMES: Final = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, whether they came by place or by name."""
    return dict(zip(_NAMES, args, strict=False)) | dict(kwargs)


def outline_of(given: Mapping[str, Any]) -> Outline:
    """What a call will be like, by its arguments."""
    query, key = (four(given[name]) for name in ("query", "key"))
    shape = (max(len(query), len(key)), *query.shape[1:3], key.shape[2])
    causal = bool(given.get("is_causal"))
    return Outline(shape, query.element_size(), query.shape[-1], key.shape[1], causal=causal, device=query.device)


def differentiated(listening: Sequence[scope.Session], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether anybody who listens wants gradients of a call, and has the room."""
    outline = functools.partial(outline_of, named(args, kwargs))
    return any(one.recording.differentiates(one, one.contexts[-1].module, outline) for one in listening)


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

    gradient = None if watched is None else watched.gradient
    return Seen(proved, SDPA, vectors, gradient=gradient, ran=ran, told=outline_of(given))
