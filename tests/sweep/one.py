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
        return row | {"stage": "not built", "reason": f"{type(problem).__name__}: {problem}"[:300]}
    row["inputs"] = {name: list(one.shape) for name, one in inputs.items() if isinstance(one, torch.Tensor)}
    with torch.no_grad(), Witness() as witness:
        torch.manual_seed(0)
        model(**inputs)
    row |= {name: getattr(witness, name) for name in ("kernels", "products", "sums", "softmaxes")}
    try:
        torch.manual_seed(0)
        row |= {"stage": "ran"} | av.doctor(model, inputs).to_dict()
        row["traces"] = _traces(model, inputs)
    except Exception as problem:
        row |= {"stage": "doctor failed", "reason": f"{type(problem).__name__}: {problem}"[:500]}
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row


def _traces(model: Any, inputs: dict[str, Any]) -> str:
    torch.manual_seed(0)
    recording = av.attach(model)
    try:
        with torch.no_grad():
            model(**inputs)
        return "; ".join(f"{len(trace.maps)} maps" for trace in recording.traces) or "none"
    except av.errors.CaptureError as problem:
        return f"{type(problem).__name__}: {problem}"[:300]
    finally:
        recording.detach()
