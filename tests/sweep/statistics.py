"""Statistics without the matrix on every type of the sweep: ``python -m tests.sweep.statistics [TYPE …]``.

Each map's statistics are held against float64 arithmetic on the map itself, captured beside. Prints a line a type and
one with the counts of calls: by tiles; the slow way, with the reason; refused; WRONG.
"""

import sys
import warnings
from collections import Counter
from typing import Any

import torch
import transformers

import hf_attnviz as av
from hf_attnviz.capturing import proof
from tests.reducing.reference import of_map, off
from tests.sweep.build import NotBuiltError, built

BOUND = 1e-4  # times max(1, |x|)


def judged(key: str) -> dict[str, Any]:
    """What became of a type: ``stage``, the counts of calls by way, and what is wrong."""
    try:
        model, inputs = built(key)
        plain = _outputs(model, inputs)
    except NotBuiltError as reason:
        return {"stage": "not built", "reason": str(reason)}
    except Exception as problem:
        return {"stage": "failed to run", "reason": f"{type(problem).__name__}: {problem}"[:200]}
    try:
        maps, _ = _captured(model, inputs, "maps")
        _ = maps.traces
    except av.errors.CaptureError as problem:
        return {"stage": "no maps", "reason": str(problem)[:200]}
    try:
        seen, output = _captured(model, inputs, "statistics")
    except av.errors.CaptureError as problem:
        return {"stage": "refused", "reason": str(problem)[:300]}
    wrong = [] if _alike(plain, output) else ["the output differs"]
    row: dict[str, Any] = {"stage": "ran", "tiles": 0, "slow": Counter(), "own layout": 0, "off": 0.0}
    for call in seen.calls:
        if call.layout != ("batch", "head", "query", "key"):
            row["own layout"] += 1
        elif "log-sum-exp" in call.way:
            row["tiles"] += 1
        else:
            row["slow"][", ".join(seen.slow) or f"its own matrix ({call.implementation})"] += 1
    try:
        pairs = [pair for one, other in zip(maps.traces, seen.traces, strict=True) for pair in _pairs(one, other)]
    except av.errors.AttnvizError as problem:
        return row | {"stage": "refused", "reason": f"{type(problem).__name__}: {problem}"[:300], "wrong": wrong}
    for one, other in pairs:
        if one.layout != ("head", "query", "key"):
            continue  # windows and tiles, one by one
        weights = one.weights.clone()
        if any(call.masked_rows for call in seen.calls if call.module == one.module):
            weights[other.statistics.entropy.isnan()] = 0  # kernels make a uniform row, which means nothing
        expected = of_map(weights, one.positions)
        for name, wanted in expected.items():
            far = off(other.statistics[name], wanted)
            row["off"] = max(row["off"], far)
            if not far <= BOUND:
                wrong.append(f"{one.module} {one.kind} {name} off by {far:.2g}")
        if one.causal != other.causal:
            wrong.append(f"{one.module} is causal: {one.causal}; told: {other.causal}")
    return row | {"wrong": wrong}


def _pairs(one: av.Trace, other: av.Trace) -> list[tuple[av.AttentionMap, av.AttentionMap]]:
    return list(zip(one.maps, other.maps, strict=True))


def _captured(model: Any, inputs: dict[str, Any], keep: str) -> tuple[av.Recording, list[torch.Tensor]]:
    torch.manual_seed(0)
    with torch.no_grad(), av.capture(model, keep=keep) as recording:
        output = model(**inputs)
    return recording, _flat(output)


def _outputs(model: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return _flat(model(**inputs))


def _flat(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    parts = output.values() if hasattr(output, "values") else output if isinstance(output, (list, tuple)) else ()
    return [found for part in parts for found in _flat(part)]


def _alike(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, other, strict=True)
    )


def main(types: list[str]) -> int:
    """Judge the types given, or all of them."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    proof._SAMPLED = 2  # more rows are summed by tiles, in the small inputs of the sweep too
    stages, slow, tiles, own, wrong = Counter[str](), Counter[str](), 0, 0, []
    for key in types or list(transformers.CONFIG_MAPPING.keys()):
        try:
            row = judged(key)
        except Exception as problem:
            row = {"stage": "ended", "wrong": [f"{type(problem).__name__}: {problem}"[:300]]}
        stages[row["stage"]] += 1
        slow.update(row.get("slow", {}))
        tiles, own = tiles + row.get("tiles", 0), own + row.get("own layout", 0)
        wrong += [f"{key}: {one}" for one in row.get("wrong", ())]
        print(key, {name: dict(one) if isinstance(one, Counter) else one for name, one in row.items()}, flush=True)
    print(f"types: {dict(stages)}")
    print(f"calls: {tiles} by tiles, {slow.total()} the slow way, {own} in a layout of their own; {len(wrong)} WRONG")
    for reason, count in slow.most_common():
        print(f"  {count} slow: {reason}")
    for one in wrong:
        print(f"  WRONG {one}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
