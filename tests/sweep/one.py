"""One type of the sweep: built, run plain under the witness, examined by the doctor, read as a trace."""

import time
import warnings
from typing import Any

import torch
import transformers

import hf_attnviz as av
from tests.sweep.build import NotBuiltError, built
from tests.sweep.intervene import intervened
from tests.sweep.witness import Witness


def examined(key: str) -> dict[str, Any]:
    """A row of the table: what ran, what was captured and how it was proved; or why the type was not built."""
    start = time.perf_counter()
    row: dict[str, Any] = {"type": key}
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    try:
        model, inputs = built(key)
        with torch.no_grad():
            torch.manual_seed(0)
            model(**inputs)
    except NotBuiltError as reason:
        return row | {"stage": "not built", "reason": str(reason)}
    except Exception as problem:
        return row | {"stage": "failed to run", "reason": f"{type(problem).__name__}: {problem}"[:300]}
    row["inputs"] = {name: list(one.shape) for name, one in inputs.items() if isinstance(one, torch.Tensor)}
    with torch.no_grad(), Witness() as witness:
        torch.manual_seed(0)
        model(**inputs)
    row |= {name: getattr(witness, name) for name in ("kernels", "products", "sums", "softmaxes")}
    try:
        torch.manual_seed(0)
        row |= {"stage": "ran"} | av.doctor(model, inputs).to_dict()
        row |= _captured(model, inputs)
        maps = row["findings"] and row["traces"].endswith("maps")
        row["together"] = together(model, inputs) if maps else ""
        row["intervened"] = intervened(model, inputs) if maps else ""
    except Exception as problem:
        row |= {"stage": "doctor failed", "reason": f"{type(problem).__name__}: {problem}"[:500]}
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row


def _captured(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the traces hold, or why there are none; and how far from uniform the attention is, in total variation."""
    torch.manual_seed(0)
    recording = av.attach(model)
    try:
        with torch.no_grad():
            model(**inputs)
        spread = [_from_uniform(call.weights) for call in recording.calls if call.weights.shape[-1] > 1]
        traces = "; ".join(f"{len(trace.maps)} maps" for trace in recording.traces) or "none"
    except av.errors.CaptureError as problem:
        return {"spread": None, "traces": f"{type(problem).__name__}: {problem}"[:300]}
    finally:
        recording.detach()
    return {"spread": sum(spread) / len(spread) if spread else None, "traces": traces}


def together(model: Any, inputs: dict[str, Any]) -> str:
    """Whether two inputs in one batch have the traces that they have alone: "yes", "refused", or what differs.

    "" where that says nothing: inputs without a batch, words that hold the places of pictures, a model that makes one
    sequence of all inputs, or that puts out other numbers itself.
    """
    tensors = [one for one in inputs.values() if isinstance(one, torch.Tensor)]
    mixed = "input_ids" in inputs and any(one.is_floating_point() for one in tensors)
    if mixed or not all(one.dim() > 1 and len(one) == 1 for one in tensors) or len(tensors) < len(inputs):
        return ""
    other = {name: _another(name, one) for name, one in inputs.items()}
    batch = {name: torch.cat([one, other[name]]) for name, one in inputs.items()}
    try:
        alone = torch.cat([_output(model, inputs), _output(model, other)])
        if not torch.allclose(alone, _output(model, batch), atol=1e-3):
            return ""
    except Exception:  # it takes no batch, or makes outputs of different sizes
        return ""
    try:
        both = _traces(model, batch)
    except av.errors.CaptureError:
        return "refused"
    if len(both) == 1:
        return ""
    pairs = zip([*_traces(model, inputs), *_traces(model, other)], both, strict=True)
    far = [_far(one, same) for found, trace in pairs for one, same in zip(found.maps, trace.maps, strict=True)]
    return "yes" if max(far, default=0.0) < 1e-3 else f"differs: by {max(far):.1g}"


def _output(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        found: torch.Tensor = model(**inputs)[0]
    return found


def _another(name: str, one: torch.Tensor) -> torch.Tensor:
    """Another input of the same shape: other numbers, the same words the other way round."""
    if one.is_floating_point():
        return torch.randn(one.shape, generator=torch.Generator().manual_seed(1))
    return one if "mask" in name or int(one.max()) <= 1 else one.flip(1)


def _traces(model: Any, inputs: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    with torch.no_grad(), av.capture(model) as recording:
        model(**inputs)
    return recording.traces


def _far(one: Any, other: Any) -> float:
    """The largest difference of two maps; infinite where their shapes or labels differ."""
    if one.weights.shape != other.weights.shape or (one.keys, one.queries) != (other.keys, other.queries):
        return float("inf")
    return float((one.weights - other.weights).abs().max())


def _from_uniform(weights: torch.Tensor) -> float:
    """The mean over rows of the distance from a row that is alike on all keys that it may see (0 to 1)."""
    seen = weights > 0
    uniform = seen / seen.sum(-1, keepdim=True).clamp(min=1)
    return float(((weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)) - uniform).abs().sum(-1).mean() / 2)
