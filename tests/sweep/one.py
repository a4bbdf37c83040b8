"""One type of the sweep: built, run plain under the witness, examined by the doctor, read as a trace."""

import time
import warnings
from typing import Any

import torch
import transformers

import hf_attnviz as av
from tests.sweep.build import NotBuiltError, built
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


def _from_uniform(weights: torch.Tensor) -> float:
    """The mean over rows of the distance from a row that is alike on all keys that it may see (0 to 1)."""
    seen = weights > 0
    uniform = seen / seen.sum(-1, keepdim=True).clamp(min=1)
    return float(((weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)) - uniform).abs().sum(-1).mean() / 2)
