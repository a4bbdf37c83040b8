"""The pieces of a pipeline's inputs: which input, chunk or candidate a run of its model reads.

A pipeline makes one or several pieces of each input (``preprocess``), some pipelines one after another while they run;
the pieces made since the last forward are those of the next one, row by row.
"""

import contextlib
import threading
import types
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_attnviz.capturing.doors import stand_at
from hf_attnviz.trace import Origin

_NAMES = ("candidate_labels", "candidate_label")


@dataclass(frozen=True)
class Piece:
    """A piece of an input, as the pipeline made it; its candidates are rows of one forward where there are several."""

    input: int
    chunk: int
    candidates: tuple[str, ...] = ()
    seconds: float | None = None

    def of(self, row: int, rows: int) -> Origin:
        """Where a row of a run belongs that reads this piece in so many rows."""
        known = self.candidates if len(self.candidates) == rows else self.candidates[:1] * rows
        one = known[row] if len(self.candidates) in (1, rows) and known else None
        return Origin(self.input, self.chunk, one, self.seconds)


class Pieces(threading.local):
    """What a pipeline is at work on in this thread; :meth:`open` gives the function that ends the watch."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self._call = -1
        self._inputs = 0
        self._made: list[Piece] = []
        self._now: Sequence[Piece] = ()

    @property
    def now(self) -> Sequence[Piece]:
        """The pieces that a forward of the model reads now, one a row; none when that is not known."""
        return self._now

    def open(self, undo: contextlib.ExitStack) -> None:
        """Stand at the pipeline's doors."""
        for name, around in (("preprocess", self._preprocess), ("forward", self._forward)):
            if callable(getattr(self.pipeline, name, None)):
                undo.callback(stand_at(self.pipeline, name, around))

    def _preprocess(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = getattr(self.pipeline, "call_count", 0)
        if call != self._call:
            self._call, self._inputs, self._made = call, 0, []
        number, self._inputs = self._inputs, self._inputs + 1
        made = following(*args, **kwargs)
        if isinstance(made, types.GeneratorType):
            return self._each(made, number)
        self._made.append(Piece(number, 0, _candidates(made)))
        return made

    def _each(self, made: Generator[Any, None, None], number: int) -> Iterator[Any]:
        """The pieces of one input as they are made; some pipelines run a part of the model for that."""
        begins, before = 0, None
        chunk = 0
        while True:
            with self._reading([Piece(number, chunk)]):
                one = next(made, None)
            if one is None:
                return
            stride = one.get("stride") if isinstance(one, Mapping) else None
            if stride is not None and before is not None:
                begins += before[0] - before[2] - stride[1]  # a chunk overlaps the one before it
            before = stride
            self._made.append(Piece(number, chunk, _candidates(one), self._seconds(begins) if stride else None))
            yield one
            chunk += 1

    def _forward(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made, self._made = self._made, []
        with self._reading(made):
            return following(*args, **kwargs)

    @contextlib.contextmanager
    def _reading(self, pieces: Sequence[Piece]) -> Iterator[None]:
        outer, self._now = self._now, pieces
        try:
            yield
        finally:
            self._now = outer

    def _seconds(self, samples: int) -> float | None:
        rate = getattr(getattr(self.pipeline, "feature_extractor", None), "sampling_rate", None)
        return samples / rate if rate else None


def _candidates(made: Any) -> tuple[str, ...]:
    """The candidate labels of a piece."""
    found = next((made[name] for name in _NAMES if hasattr(made, "keys") and name in made), ())
    several = [found] if isinstance(found, str) else found
    known = isinstance(several, (list, tuple)) and all(isinstance(one, str) for one in several)
    return tuple(several) if known else ()
