"""A stand-in for the kernels of flash-attn, written as slowly and plainly as can be: one head and one row at a time.

Everything above the kernel is the real thing: transformers unpads, packs and cuts windows, and calls these functions
in place of those of a package that needs a GPU.
"""

from typing import Any

import torch


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    s_aux: torch.Tensor | None = None,
) -> torch.Tensor:
    """``[batch, position, head, size]`` each; the last query stands at the last key, as flash-attn has it."""
    assert dropout_p == 0.0
    out = q.new_zeros(*q.shape[:3], v.shape[-1])
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    for batch, row, head in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        place, group = row + k.shape[1] - q.shape[1], head // (q.shape[2] // k.shape[2])
        first = 0 if window_size[0] < 0 else max(0, place - window_size[0])
        last = k.shape[1] if window_size[1] < 0 else min(k.shape[1], place + window_size[1] + 1)
        seen = slice(first, min(last, place + 1) if causal else last)
        scores = (k[batch, seen, group] @ q[batch, row, head]) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        sink = scores.new_zeros(0) if s_aux is None else s_aux[head : head + 1].to(scores)
        weights = torch.cat([scores, sink]).softmax(0)[: len(scores)]
        out[batch, row, head] = weights @ v[batch, seen, group]
    return out


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    s_aux: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same for sequences one after the other, ``[position, head, size]``; ``cu_seqlens`` say where each begins."""
    out = q.new_zeros(*q.shape[:2], v.shape[-1])
    bounds = zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)
    start = next(bounds)
    for end in bounds:
        (a, c), (b, d) = start, end
        assert b - a <= int(max_seqlen_q) and d - c <= int(max_seqlen_k)
        parts = q[None, a:b], k[None, c:d], v[None, c:d]
        out[a:b] = flash_attn_func(*parts, dropout_p, softmax_scale, causal, window_size, softcap, s_aux)[0]
        start = end
    return out


def install(monkeypatch: Any) -> None:
    """Let transformers find these functions where it looks for flash-attn."""
    from transformers import modeling_flash_attention_utils as home

    def imports(implementation: str | None, *args: Any, **kwargs: Any) -> Any:
        return flash_attn_func, flash_attn_varlen_func, None, home._pad_input, home._unpad_input

    monkeypatch.setattr(home, "_lazy_imports", imports)
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_process_flash_kwargs_fn"):
        monkeypatch.setattr(home, name, None)  # forgotten again afterwards


def through(model: Any, implementation: str = "flash_attention_2") -> Any:
    """The model, made to ask for flash-attn without the check for a GPU."""
    model.config._attn_implementation = implementation
    return model
