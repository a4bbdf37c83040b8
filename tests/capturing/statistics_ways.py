"""What tests of statistics share: the four of each map against float64 arithmetic on that map, and the way taken."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

import hf_attnviz as av
from tests.reducing.reference import of_map, off

PROMISE = 1e-4
Run = Callable[[], Any]


def by_tiles(recording: av.Recording) -> set[str]:
    """The ways of its calls: "tiles", "slow", or both."""
    return {"tiles" if "log-sum-exp" in call.way else "slow" for call in recording.calls}


def recorded(model: Any, run: Run, keep: Any = "statistics", **options: Any) -> tuple[Any, av.Recording]:
    """What a run gives while it is recorded, and the recording; random numbers begin at the same place."""
    torch.manual_seed(0)
    with av.capture(model, keep=keep, **options) as recording:
        return run(), recording


def held_against_maps(model: Any, run: Run, way: str, bound: float = PROMISE) -> av.Recording:
    """Run plain, with maps and with statistics: one output, and statistics that are those of the maps.

    way: "tiles", "slow" or "both".
    """
    torch.manual_seed(0)
    plain = run()
    after = torch.get_rng_state()
    _, maps = recorded(model, run, "maps")
    output, found = recorded(model, run)
    assert torch.equal(torch.get_rng_state(), after)
    assert alike(output, plain)
    assert by_tiles(found) == ({"tiles", "slow"} if way == "both" else {way})
    assert_those_of_maps(maps, found, bound)
    return found


def assert_those_of_maps(maps: av.Recording, found: av.Recording, bound: float = PROMISE) -> None:
    assert _rows(maps) == _rows(found)
    for call in found.calls:
        assert set(call.kept) == {"statistics"} and call.statistics.entropy.shape == tuple(call.shape[:3])
    assert len(maps.traces) == len(found.traces) > 0
    for trace, same in zip(maps.traces, found.traces, strict=True):
        assert len(trace.maps) == len(same.maps) > 0
        for one, other in zip(trace.maps, same.maps, strict=True):
            assert not other.has_weights
            assert (one.keys, one.queries, one.positions, one.steps) == (
                other.keys, other.queries, other.positions, other.steps
            )  # fmt: skip
            assert one.causal == other.causal
            for name, wanted in of_map(one.weights, one.positions).items():
                assert off(other.statistics[name], wanted) <= bound, (one.module, name)


def _rows(recording: av.Recording) -> Counter[tuple[str, str, int]]:
    """How many rows each module has seen, whether step by step or many steps at once."""
    rows = Counter[tuple[str, str, int]]()
    for call in recording.calls:
        rows[call.module, call.kind, call.layer] += call.shape[0] * call.shape[2]
    return rows


def alike(one: Any, other: Any) -> bool:
    """Whether two outputs are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
    if hasattr(one, "items") and not isinstance(one, str):
        return set(one) == set(other) and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(alike(a, b) for a, b in zip(one, other, strict=True))
    return isinstance(one, (str, int, float, bool, type(None))) is False or one == other
