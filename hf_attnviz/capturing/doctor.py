"""The doctor: runs a model plain and captured, demands the exact proof of every map, and says what it found."""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing.address import model_name
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.runs import AttentionCall
from hf_attnviz.capturing.text import encode, read
from hf_attnviz.errors import CaptureError


@dataclass(frozen=True)
class Finding:
    """What the doctor found at one attention map.

    Attributes:
        module, stack, kind, layer, index: where it is.
        calls: how often it ran.
        layout: heads, queries and keys of the largest.
        backend: the attention implementation that ran.
        way: how the weights were obtained.
        grade: ``"exact"``, ``"consistent"``, ``"stated"`` (by a user's own function, not proved) or ``"refused"``;
            ``"none"`` where there is no softmax over keys to prove.
        error, bound: the largest deviation, and what is allowed.
        masked_rows: rows that may attend to nothing, left out of the proof.
        reason: why it was refused, or what it is instead of attention over keys; else empty.
    """

    module: str
    stack: str = ""
    kind: str = ""
    layer: int = -1
    index: int = 0
    calls: int = 0
    layout: str = ""
    backend: str = ""
    way: str = ""
    grade: str = "refused"
    error: float | None = None
    bound: float | None = None
    masked_rows: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The doctor's report on one model and one input.

    Attributes:
        model: the model's name.
        findings: one for each attention map that ran.
        identical: the captured output equals the plain one in every bit.
        unchanged: configuration, weights, hooks and attributes are as they were before.
        reason: why nothing was found, else empty.
    """

    model: str
    findings: tuple[Finding, ...]
    identical: bool
    unchanged: bool
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Everything that attends is proved exact, the output is identical and nothing was left behind."""
        proved = bool(self.findings) and all(finding.grade in ("exact", "none") for finding in self.findings)
        return proved and self.identical and self.unchanged

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {**asdict(self), "ok": self.ok}


def doctor(model: nn.Module, inputs: Mapping[str, Any] | str, processor: Any = None) -> Diagnosis:
    """Run ``model(**inputs)`` plain and captured, and prove every attention map exactly.

    Args:
        model: the model, as it will be used.
        inputs: the keyword arguments of one forward pass; or a text that ``processor`` encodes, which the model then
            reads as it is used: with greedy ``generate()`` where it can, so that decoding steps are proved too.
        processor: the tokenizer, needed for a text.
    """
    if isinstance(inputs, str):
        run = functools.partial(read, model, encode(model, processor, inputs), max_new_tokens=8)
    else:
        run = functools.partial(model, **inputs)
    before = _state(model)
    rng = torch.get_rng_state()
    with torch.no_grad():
        plain = run()
    torch.set_rng_state(rng)
    recording = Recording(model, exact=True)
    reason = ""
    recording.open()
    try:
        with torch.no_grad():
            seen = run()
    finally:
        recording.detach()
    try:
        recording.check()
    except CaptureError as problem:
        told = any(run.problems or run.others for run in recording.runs)
        reason = "" if told else str(problem)
    maps: dict[tuple[str, int, str, int], list[AttentionCall]] = {}
    for call in recording.calls:
        maps.setdefault((call.module, call.index, call.kind, call.layer), []).append(call)
    findings = [_finding(calls) for calls in maps.values()]
    refused = [Finding(name, reason=str(problem)) for run in recording.runs for name, problem in run.problems.items()]
    others = [
        Finding(name, kind="other", grade="none", reason=str(what))
        for name, what in {name: what for run in recording.runs for name, what in run.others.items()}.items()
    ]
    return Diagnosis(
        model_name(model),
        (*findings, *others, *refused),
        _identical(plain, seen),
        _state(model) == before,
        reason,
    )


def _finding(calls: list[AttentionCall]) -> Finding:
    """One map, with the worst that any of its calls (a prompt, decoding steps) showed."""
    worst = max(calls, key=lambda call: (call.grade != "exact", call.error))
    largest = max(calls, key=lambda call: call.weights.numel())
    return Finding(
        worst.module, worst.stack, worst.kind, worst.layer, worst.index, len(calls),
        "×".join(map(str, largest.weights.shape[1:])), worst.implementation, worst.way, worst.grade,
        _number(worst.error), _number(worst.bound), sum(call.masked_rows for call in calls),
    )  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _identical(one: Any, other: Any) -> bool:
    """Whether two outputs hold the same tensors, bit by bit; outputs without any tensor prove nothing."""
    first, second = list(_tensors(one)), list(_tensors(other))
    return bool(first) and len(first) == len(second) and all(map(_same_bits, first, second))


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (t.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format) for t in (a, b))
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))  # as bytes: 0 is not -0, and NaN is itself


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for part in vars(value).values():
            yield from _tensors(part)


@dataclass(frozen=True)
class _State:
    """Everything of a model that a capture might leave a mark on.

    Weights are told apart by where they lie; those of before are held, so that no new ones come to lie in their place.
    """

    modules: Any
    weights: Mapping[str, tuple[int, int]]
    backend: Any
    config: Any
    held: Any = field(compare=False, repr=False)


def _state(model: nn.Module) -> _State:
    config: Any = getattr(model, "config", None)
    modules = {
        name: (len(module._forward_hooks), len(module._forward_pre_hooks), sorted(module.__dict__), module.training)
        for name, module in model.named_modules()
    }
    tensors = model.state_dict(keep_vars=True)
    return _State(
        modules,
        {name: (tensor.data_ptr(), tensor._version) for name, tensor in tensors.items()},
        getattr(config, "_attn_implementation", None),
        config.to_dict() if hasattr(config, "to_dict") else None,
        [tensor.detach() for tensor in tensors.values()],
    )
