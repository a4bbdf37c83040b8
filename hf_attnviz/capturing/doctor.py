"""The doctor: runs a model plain and captured, demands the exact proof of every map, and says what it found."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import torch
from torch import nn

from hf_attnviz.capturing.address import Address, model_name
from hf_attnviz.capturing.feeding import Given, run_of
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.runs import AttentionCall
from hf_attnviz.errors import AttnvizError, CaptureError, ModelError, NothingCapturedError
from hf_attnviz.language import Text

_NO_MAP = Text(
    "there is nothing to prove: this model has no attention map, its positions look at one another by other means",
    "无可核验：此模型没有注意力图，各位置以其他方式相互作用",
)

# The first time that a model of transformers is asked for its hidden states, it hangs hooks of its own on itself.
_OWN_HOOKS, _OWN_MARK = "transformers.utils.output_capturing", "_output_capturing_hooks_installed"


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
        reason: why there was nothing to prove, or what ran unseen; else empty.
        given: the names and sizes of what the model was given.
    """

    model: str
    findings: tuple[Finding, ...]
    identical: bool
    unchanged: bool
    reason: str = ""
    given: str = ""

    def __repr__(self) -> str:
        grades = Counter(finding.grade for finding in self.findings)
        count = ", ".join(f"{number} {grade}" for grade, number in grades.items()) or "nothing found"
        bits = "identical output" if self.identical else "OUTPUT DIFFERS"
        left = "nothing left behind" if self.unchanged else "MODEL CHANGED"
        return f"Diagnosis({self.model}: {'ok' if self.ok else 'NOT OK'}; {count}; {bits}, {left})"

    @property
    def ok(self) -> bool:
        """There are maps, each of them is proved exact, the output is identical and nothing was left behind."""
        grades = {finding.grade for finding in self.findings} - {"none"}
        return grades == {"exact"} and not self.reason and self.identical and self.unchanged

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {**asdict(self), "ok": self.ok}


def doctor(model: nn.Module, inputs: Given = None, processor: Any = None) -> Diagnosis:
    """Run the model plain and captured, and prove every attention map exactly.

    Args:
        model: the model, as it will be used.
        inputs: the keyword arguments of one forward pass; or what ``processor`` makes inputs of: a text, the
            :class:`~pathlib.Path` of a picture (png, jpg), of a sound (wav) or of a text (txt), or a list of one of
            each. The model then reads it as it is used: with greedy ``generate()`` where it can, so that decoding steps
            are proved too. Or the path of a file of named tensors (json, safetensors), for one forward pass. None: a
            harmless input is made for the kind of model.
        processor: the tokenizer, image processor, feature extractor, or the processor that holds them.

    Raises:
        ArgumentError: nothing that this model reads can be made of the inputs.
        ModelError: the model itself cannot run on them.
    """
    run, given = run_of(model, inputs, processor)
    before = _state(model)
    rng = torch.get_rng_state()
    plain = _plain(model, run)
    torch.set_rng_state(rng)
    recording = Recording(model, exact=True)
    recording.open()
    try:
        with torch.no_grad():
            seen = run()
    finally:
        recording.detach()
    findings, reason = _findings(recording)
    unchanged = _state(model) == before
    return Diagnosis(model_name(model), findings, _identical(plain, seen), unchanged, reason, _sizes(given))


def _plain(model: nn.Module, run: Callable[[], Any]) -> Any:
    try:
        with torch.no_grad():
            return run()
    except AttnvizError:
        raise
    except Exception as error:
        raise ModelError(
            Text(
                f"{model_name(model)} itself cannot run on this input; give one that it reads "
                f"({type(error).__name__}: {error})",
                f"{model_name(model)} 自身无法在此输入上运行；请给出它能读的输入（{type(error).__name__}: {error}）",
            )
        ) from error


def _findings(recording: Recording) -> tuple[tuple[Finding, ...], str]:
    """What was found, the maps first; and why there was nothing to prove, if there was not."""
    maps: dict[tuple[str, int, str, int], list[AttentionCall]] = {}
    for call in recording.calls:
        maps.setdefault((call.module, call.index, call.kind, call.layer), []).append(call)
    places = {one.module: one for one in recording._addresses.values()}
    refused = [
        _refused(name, problem, places.get(name)) for run in recording.runs for name, problem in run.problems.items()
    ]
    others = {name: what for run in recording.runs for name, what in run.others.items()}
    named = [Finding(name, kind="other", grade="none", reason=str(what)) for name, what in others.items()]
    return (*map(_finding, maps.values()), *named, *refused), "" if refused else _reason(recording, bool(named))


def _refused(module: str, problem: Exception, place: Address | None) -> Finding:
    stack, layer = (place.stack, place.layer) if place is not None else ("", None)
    return Finding(module, stack, layer=-1 if layer is None else layer, reason=str(problem))


def _reason(recording: Recording, mixes: bool) -> str:
    try:
        recording.check()
    except NothingCapturedError as problem:
        return str(_NO_MAP if mixes else problem)
    except CaptureError as problem:
        return str(problem)
    return ""


def _sizes(given: Mapping[str, Any]) -> str:
    tensors = {name: one for name, one in given.items() if isinstance(one, torch.Tensor)}
    return ", ".join(f"{name} {'×'.join(map(str, one.shape))}" for name, one in tensors.items())


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
        name: (
            sum(getattr(hook, "__module__", "") != _OWN_HOOKS for hook in module._forward_hooks.values()),
            len(module._forward_pre_hooks),
            sorted(set(module.__dict__) - {_OWN_MARK}),
            module.training,
        )
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
