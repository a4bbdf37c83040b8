"""Interventions on one type of the sweep: heads that get their own outputs back change no bit, silenced ones do."""

from typing import Any

import torch

import hf_attnviz as av


def intervened(model: Any, inputs: dict[str, Any]) -> str:
    """ "yes"; "refused: …", in words; "no effect" where silence is not heard; or what differs."""
    plain = _numbers(model, inputs)
    with av.capture(model, keep=["maps", "vectors"]) as source:
        _numbers(model, inputs)
    shown = [call for call in source.calls if "output" in call.kept["vectors"]]
    heads = list(dict.fromkeys((*_place(call), min(1, call.weights.shape[1] - 1)) for call in shown))
    if not heads:
        return "refused: no outputs of heads are seen"
    try:
        with av.patch(model, heads=heads, source=source):
            same = _numbers(model, inputs)
        with av.ablate(model, heads=heads):
            silent = _numbers(model, inputs)
    except av.errors.CaptureError as problem:
        return f"refused: {problem}"[:300]
    if not _alike(same, plain):
        return "differs: with their own outputs put back, heads give another result"
    if not _alike(_numbers(model, inputs), plain):
        return "differs: after the interventions the model is another"
    return "no effect" if _alike(silent, plain) else "yes"


def _place(call: av.AttentionCall) -> tuple[str, int]:
    return ("cross" if call.kind == "cross" else call.stack), call.layer


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def _numbers(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """All floating-point numbers that the model puts out, one after another."""
    torch.manual_seed(0)
    with torch.no_grad():
        return torch.cat([torch.zeros(0), *_flat(model(**inputs))])


def _flat(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output.float().flatten()] if output.is_floating_point() else []
    parts = output.values() if hasattr(output, "values") else output if isinstance(output, (list, tuple)) else ()
    return [found for part in parts for found in _flat(part)]
