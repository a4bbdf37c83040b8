"""Run by itself with ``TRITON_INTERPRET=1``: every case through the kernels on the CPU; deviations by case, as JSON."""

import json
import sys

import torch

import hf_attnviz as av
from hf_attnviz.reducing import fused_triton, passes
from hf_attnviz.reducing.sweep import sweep
from tests.models import ids, tiny
from tests.reducing.gpu_cases import CASES, deviations, made


def main() -> None:
    passes._TRITON_ON = frozenset({"cpu"})
    runs, whole = [], fused_triton.fused
    fused_triton.fused = lambda *given: (runs.append(given), whole(*given))
    told = {}
    for name, case in CASES.items():
        ran, places, known = made(case)
        (last,) = sweep(ran, places, weights=False)
        told[name] = deviations(last.given, known)
    assert len(runs) == len(told) and not passes._failed, passes._failed
    told["a model"] = _model()
    assert len(runs) == len(told) + 1, "two layers"
    json.dump(told, sys.stdout)


def _model() -> dict[str, float]:
    model, given = tiny("llama"), ids(2, 20)
    with av.capture(model, keep="statistics") as recording:
        model(given)
    with passes.pure(), av.capture(model, keep="statistics") as pure:
        model(given)
    pairs = zip(recording.calls, pure.calls, strict=True)
    both = [(one.statistics[name], two.statistics[name]) for one, two in pairs for name in one.statistics]
    off = [((one - two).abs() / two.abs().clamp(min=1)).max() for one, two in both]
    return {"all": float(torch.stack(off).max())}


if __name__ == "__main__":
    main()
