"""The four parts: what each variant costs in time and in memory, and whether it is right."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch

from hf_attnviz.benchmarking.beds import Bed
from hf_attnviz.benchmarking.given import NotThereError, Run
from hf_attnviz.benchmarking.interval import median
from hf_attnviz.benchmarking.memory import available, growth
from hf_attnviz.benchmarking.shapes import Shape
from hf_attnviz.benchmarking.table import Row, Section
from hf_attnviz.benchmarking.timing import clock, interleaved
from hf_attnviz.benchmarking.truth import TOLERANCE, apart, deviations
from hf_attnviz.benchmarking.variants import AGAIN, PLAIN, Variant, captured, is_real
from hf_attnviz.language import Text
from hf_attnviz.progress import shown

ALLOWED: Final = (1.1, 60e6)  # growth of ours: at most that of plain and 10 %, and 60 MB
_SHARE: Final = 0.7  # of the memory at hand that maps may take
_STATISTICS: Final = ("statistics", "statistics-pytorch")


def timed(bed: Bed, variants: Mapping[str, Variant], *, rounds: int, sample: float) -> Section:
    """The time of each variant as a ratio to plain, and whether its output kept every bit."""
    runs: dict[str, Run] = {PLAIN: variants[PLAIN].open(bed)}
    plain, _ = runs[PLAIN]()
    rows = {key: _row(one) for key, one in variants.items()}
    far = {PLAIN: 0.0}
    for key, one in variants.items():
        if key != PLAIN and (not bed.decodes or one.decodes):
            tried = _tried(bed, one, plain)
            if isinstance(tried, Row):
                rows[key] = tried
            else:
                runs[key], far[key] = tried
    what = Text(f"timing, {bed.where.en}", f"计时：{bed.where.zh}")
    taken = interleaved(runs, rounds=rounds, what=what, now=clock(bed.device), sample=sample)
    far[AGAIN] = apart(runs[PLAIN]()[0], plain)  # after all others: what one of them left on the model would show
    for key, seconds in taken.items():
        rows[key] = _row(variants[key], compared(seconds, taken[PLAIN], far[key], bed), variants[key].must(bed))
    rows[PLAIN] = _row(variants[PLAIN], {"ratio": 1.0, "seconds": median(taken[PLAIN]).value, "apart": 0.0})
    left = [row for key, row in rows.items() if not bed.decodes or variants[key].decodes]
    return Section("decoding" if bed.decodes else "time", bed.where, tuple(left))


def compared(seconds: Sequence[float], plain: Sequence[float], far: float, bed: Bed) -> dict[str, float]:
    """The median of the ratios of each round, with its interval, and what stands beside it."""
    bound = {} if bed.decodes else {"bound": bed.shape.bound}  # of a forward that looks at each score once more
    found = median([one / other for one, other in zip(seconds, plain, strict=True)])
    numbers = {"ratio": found.value, "low": found.low, "high": found.high, "seconds": median(seconds).value}
    return numbers | {"apart": far} | bound


def _tried(bed: Bed, variant: Variant, plain: torch.Tensor) -> Row | tuple[Run, float]:
    """A variant made ready and run once, with how far its output is from the plain one; or why there is none."""
    try:
        _enough(variant, bed.shape, bed.device)
        run = variant.open(bed)
        output, _ = run()
    except NotThereError as missing:
        return _row(variant, reason=missing.reason)
    except Exception as problem:  # of other tools, or ours: told in the table, and the other rows are measured
        return _row(variant, reason=_failed(problem), failed=True)
    return run, apart(output, plain)


def _enough(variant: Variant, shape: Shape, device: str) -> None:
    """Whether there is memory for the maps that a variant builds.

    Raises:
        NotThereError: there is not.
    """
    wanted, there = variant.holds(shape), available(device)
    if wanted > _SHARE * there:
        raise NotThereError(
            Text(
                f"not run: its maps take about {wanted / 1e9:,.1f} GB, {there / 1e9:,.1f} GB are free",
                f"未运行：其注意力图约需 {wanted / 1e9:,.1f} GB，可用 {there / 1e9:,.1f} GB",
            )
        )


def remembered(bed: Bed, variants: Mapping[str, Variant]) -> list[Section]:
    """By how much memory grows in each variant: the first use, with all that it compiles, and a later one."""
    cold: dict[str, Row] = {}
    warm: dict[str, Row] = {}
    keys = [key for key in variants if key != AGAIN]
    what = Text(f"memory, {bed.where.en}", f"内存：{bed.where.zh}")
    for key in shown(keys, len(keys), what):
        one = variants[key]
        try:
            _enough(one, bed.shape, bed.device)
            one.open(bed)  # what is not there needs no process to say so
            first, later = growth(key, bed.shape, seed=bed.seed, device=bed.device)
        except NotThereError as missing:
            cold[key] = warm[key] = _row(one, reason=missing.reason)
        except Exception as problem:
            cold[key] = warm[key] = _row(one, reason=_failed(problem), failed=True)
        else:
            cold[key], warm[key] = (_grown(one, bed, n, rows) for n, rows in ((first, cold), (later, warm)))
    return [
        Section("memory", Text(f"first use; {bed.where.en}", f"首次使用；{bed.where.zh}"), tuple(cold.values())),
        Section("memory", Text(f"later use; {bed.where.en}", f"再次使用；{bed.where.zh}"), tuple(warm.values())),
    ]


def _grown(variant: Variant, bed: Bed, number: float, rows: Mapping[str, Row]) -> Row:
    """One row, and what it must hold beside the plain run's, which is measured first."""
    plain = rows[PLAIN].numbers.get("growth") if variant.key != PLAIN else number
    if plain is None:
        return _row(variant, {"growth": number})
    must = ALLOWED[0] * plain + ALLOWED[1] if variant.key in _STATISTICS and is_real(bed) else None
    return _row(variant, {"growth": number, "over": number - plain}, must)


def checked(bed: Bed, variants: Mapping[str, Variant]) -> Section:
    """How far the statistics are from float64 arithmetic on the queries and keys that were captured."""
    _, vectors = captured(bed, "vectors")()
    rows = []
    for one in (variants[key] for key in _STATISTICS if key in variants):
        try:
            _, calls = one.open(bed)()
            found = [deviations(c.statistics, v.query, v.key) for c, v in zip(calls, vectors, strict=True)]
        except NotThereError as missing:
            rows.append(_row(one, reason=missing.reason))
        except Exception as problem:  # told in the table, and the run is not correct
            rows.append(_row(one, reason=_failed(problem), failed=True))
        else:
            rows.append(_row(one, {name: max(each[name] for each in found) for name in found[0]}, TOLERANCE))
    return Section("truth", bed.where, tuple(rows))


def _row(
    variant: Variant,
    numbers: Mapping[str, float] | None = None,
    must: float | None = None,
    *,
    reason: Text | None = None,
    failed: bool = False,
) -> Row:
    return Row(variant.key, variant.name, numbers or {}, must, reason, variant.ours, failed)


def _failed(problem: Exception) -> Text:
    first = next(iter(str(problem).splitlines()), "")[:160]
    said = f"{type(problem).__name__}: {first}"
    return Text(f"failed: {said}", f"失败：{said}")
