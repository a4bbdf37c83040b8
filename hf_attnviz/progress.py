"""Long work says how long it will take before it takes that long, and shows how far it is."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from tqdm import tqdm

from hf_attnviz.language import Text

Item = TypeVar("Item")
LONG: Final = 10.0  # seconds; work that takes longer is announced
_TRIAL: Final = 1.0  # seconds of work by which the rest is estimated


def shown(items: Iterable[Item], total: int, what: Text) -> Iterator[Item]:
    """The items one by one; where all of them will take more than ten seconds, an estimate and a progress bar.

    The estimate comes of the first second of work (or of the first item, where one takes longer) and goes to stderr.

    Args:
        items: what is worked through; each item should be about as much work as any other.
        total: how many there are.
        what: what is done, in a few words: the bar's name.
    """
    began, bar, decided = time.monotonic(), None, False
    try:
        for done, item in enumerate(items):
            passed = time.monotonic() - began
            if done and not decided and passed > min(_TRIAL, LONG / total):
                estimate = passed * total / done
                bar = _announced(total, estimate, what, done) if estimate > LONG else None
                decided = bar is not None or passed > _TRIAL
            yield item
            if bar is not None:
                bar.update()
    finally:
        if bar is not None:
            bar.close()


def _announced(total: int, seconds: float, what: Text, done: int) -> "tqdm[None]":
    estimate = Text(
        f"{what.en}: {total:,} steps, about {_spoken(seconds)}", f"{what.zh}：共 {total:,} 步，约需 {_spoken(seconds)}"
    )
    tqdm.write(str(estimate), file=sys.stderr)
    return tqdm(total=total, initial=done, desc=str(what), file=sys.stderr, leave=False)


def _spoken(seconds: float) -> str:
    """Seconds as a person says them.

    >>> _spoken(42.3), _spoken(200)
    ('42 s', '3 min 20 s')
    """
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
