"""What a recording keeps of one call that was seen: without the matrix where that is possible, else the slow way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from hf_attnviz.capturing.gradients import FROZEN, Gradient
from hf_attnviz.capturing.probe import unpadded
from hf_attnviz.capturing.proof import Proved, looks_back, prove_rows
from hf_attnviz.capturing.runs import Side
from hf_attnviz.capturing.seen import Seen
from hf_attnviz.capturing.streams import Station
from hf_attnviz.errors import CaptureError, NotUnderstoodError
from hf_attnviz.language import Text, told
from hf_attnviz.reducing.carried import Carriage
from hf_attnviz.reducing.keeping import over_tiles, over_weights, tileable
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.reducer import Reducer
from hf_attnviz.reducing.rows import KeptRows, Maps, Rows
from hf_attnviz.reducing.tile import Tile


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of a call, by reducer, with its proof; and why the matrix was built all the same, if it was."""

    kept: Mapping[str, Any]
    proved: Proved
    slow: Text | None = None


def kept_of(seen: Seen, asked: Sequence[Reducer[Any]], places: Places, side: Side, station: Station) -> Kept:
    """Reduce one call.

    Raises:
        CaptureError: what the model computed cannot be taken out of it, or cannot be proved.
    """
    reducers = [one for one in asked if "below" not in one.needs or not station.across]  # no layer of that is below
    carriage = station.carriage(reducers, places)
    kept = _kept_of(seen, reducers, places, side, carriage)
    station.leave(carriage, places)
    return kept


def _kept_of(seen: Seen, reducers: Sequence[Reducer[Any]], places: Places, side: Side, carriage: Carriage) -> Kept:
    vectors = seen.vectors() if any("vectors" in reducer.needs for reducer in reducers) else {}
    why = _hidden(seen.implementation) if seen.fused and tileable(reducers) else None
    if seen.ran is not None:
        try:
            with unobserved(seen.ran.query):
                proved = prove_rows(seen.ran, places)
                if proved.weights.shape == seen.ran.shape:  # so few rows that all of them were proved
                    return Kept(over_weights(reducers, proved.weights, places, vectors, carriage, seen.ran), proved)
                return Kept(over_tiles(reducers, seen.ran, places, vectors, carriage), proved)
        except NotUnderstoodError as problem:
            why = told(problem)
    proved = seen.proved
    weights = proved.weights.detach()
    if seen.pads:
        weights = unpadded(weights, side.new)
    if torch._C._functorch.is_batchedtensor(weights):
        raise CaptureError(
            Text(
                "torch.vmap hides the batch, and its tensors die with it; run the model on a plain batch",
                "torch.vmap 隐藏了 batch，其张量也随之消失；请在普通的 batch 上运行模型",
            )
        )
    if tileable(reducers) and weights.dim() == 4:
        proved = replace(proved, looks_back=looks_back(weights, places))
    with unobserved(weights):
        attends = None if seen.pads else proved.attends
        return Kept(over_weights(reducers, weights, places, vectors, carriage, attending=attends), proved, why)


@contextmanager
def unobserved(tensor: torch.Tensor) -> Iterator[None]:
    """Our own work: no observer is to look at each operation of it, and an autocast of the model's is not for it."""
    with torch.no_grad(), torch.autocast(tensor.device.type, enabled=False), torch._C.DisableTorchFunction():
        yield


def _hidden(implementation: str) -> Text:
    return Text(f"{implementation} does not show its log-sum-exp", f"{implementation} 不给出它的 log-sum-exp")


def gradient_rows(seen: Seen, reducers: Sequence[Reducer[Any]], module: str, places: Places) -> Callable[[], KeptRows]:
    """Gives the gradient of the rows that are kept, once there is one."""
    asked = next((one for one in reducers if isinstance(one, (Maps, Rows))), Maps())
    reducer = Maps(asked.dtype) if isinstance(asked, Maps) else asked  # a gradient is beyond float16: never packed
    watched = seen.gradient or Gradient(FROZEN)

    def read() -> KeptRows:
        gradient = watched.read(module)
        found = reducer.update(None, Tile(gradient, places, gradient.shape))
        assert isinstance(found, KeptRows)
        return found

    return read
