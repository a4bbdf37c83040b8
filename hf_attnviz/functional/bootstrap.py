"""A number over examples and how sure it is: the sums and counts of each example, their pooled mean and its interval.

Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), sections 6.2 and 13.3 (percentile interval).
Steps: draw as many examples as there are, with replacement, many times; pool the rows of each draw as those of the
whole were pooled; the interval lies between the percentiles of these means. Whole examples are drawn, not rows: rows of
one text are not independent.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional.checks import check_share, upcast
from hf_attnviz.language import Text

RESAMPLES = 1000
LEVEL = 0.95
FEWEST = 5  # examples below which percentiles say nothing
COLUMNS_AT_ONCE = 2048  # bounds memory, and what torch sorts at a time


@dataclass(frozen=True)
class Tally:
    """What each example adds to a mean: `totals` `[example, ...]`, summed over as many rows as `counts` says.

    `counts` has the shape of `totals`, or one that is expanded to it. best: the last axis holds alternatives, of which
    the largest mean counts.
    """

    totals: Tensor
    counts: Tensor
    best: bool = False

    @staticmethod
    def of_examples(values: Tensor) -> "Tally":
        """Each example one number, `[example, ...]`; one that is NaN in an example is left out there."""
        values = upcast(values)
        return Tally(values.masked_fill(values.isnan(), 0), (~values.isnan()).to(values.dtype))

    def mean(self) -> Tensor:
        """The mean over the rows of all examples, `[...]`; NaN where there is none."""
        return self._best(self.totals.sum(0) / self.counts.sum(0))

    def interval(self, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Lower and upper end, `[...]` each, of the bootstrap interval of `mean`, over examples.

        NaN: fewer than five examples have a row that counts. Draws without such a row are left out.
        Draw r takes the examples `numpy.random.default_rng(seed).integers(n, size=(resamples, n))[r]`.

        >>> low, high = Tally(torch.arange(8.0)[:, None], torch.ones(8, 1)).interval()
        >>> low.tolist(), high.tolist()
        ([2.0], [5.0])
        """
        check_share(level, "level")
        if resamples < 1:
            raise ArgumentError(
                Text(
                    f"expected at least one resample, got {resamples}; {RESAMPLES} is usual",
                    f"重抽样次数应至少为 1，得到 {resamples}；通常为 {RESAMPLES}",
                )
            )
        examples = self.totals.shape[0]
        if not examples:
            raise ArgumentError(Text("expected at least one example, got none", "应至少有一个样本，得到零个"))
        counts = self.counts.expand(self.totals.shape)
        times = _times_drawn(examples, resamples, seed).to(self.totals.device)
        parts = zip(_parts(self.totals.double()), _parts(counts.double()), strict=True)
        means = torch.cat([(times @ sums) / (times @ rows) for sums, rows in parts], 1)
        means = self._best(means.view(resamples, *self.totals.shape[1:]))
        few = self._any((counts > 0).sum(0)) < FEWEST
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=means.device)
        found = torch.cat([part.nanquantile(ends, dim=0) for part in _parts(means)], 1).view(2, *means.shape[1:])
        low, high = found.masked_fill(few, torch.nan).to(self.totals.dtype)
        return low, high

    def _best(self, means: Tensor) -> Tensor:
        if not self.best:
            return means
        known = means.nan_to_num(-torch.inf).amax(-1)
        return known.masked_fill(known == -torch.inf, torch.nan)

    def _any(self, examples: Tensor) -> Tensor:
        return examples.amax(-1) if self.best else examples


def _parts(values: Tensor) -> tuple[Tensor, ...]:
    """`values` `[row, ...]` as `[row, column]`, some columns at a time."""
    flat = values.reshape(len(values), -1)
    return flat.tensor_split(-(-flat.shape[1] // COLUMNS_AT_ONCE), 1)


def _times_drawn(examples: int, resamples: int, seed: int) -> Tensor:
    """How often each draw takes each example, `[draw, example]` in float64."""
    drawn = np.random.default_rng(seed).integers(examples, size=(resamples, examples))
    places = (drawn + examples * np.arange(resamples)[:, None]).ravel()
    return torch.from_numpy(np.bincount(places, minlength=resamples * examples).reshape(resamples, examples)).double()
