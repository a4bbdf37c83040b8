"""How far each pure function is from its slow reference: ``python -m tests.deviations`` prints a table.

It runs the tests of :mod:`hf_attnviz.functional` and notes each comparison that they make: the largest
|got − wanted| / max(1, |wanted|), over every random stack, by function and precision.
"""

import contextlib
import os
import sys
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from hf_attnviz import functional
from tests.functional import stacks

_WHERE = "tests/functional"


class Noted:
    """Remembers what the tests compared."""

    def __init__(self) -> None:
        self.largest: dict[tuple[str, str], float] = defaultdict(float)
        self.compared: Counter[tuple[str, str]] = Counter()

    def __call__(self, got: Any, wanted: Any) -> None:
        """One comparison of the test that runs now."""
        test = os.environ["PYTEST_CURRENT_TEST"].partition("/test_")[2].partition(".py")[0]
        single = isinstance(got, torch.Tensor) and got.dtype == torch.float32
        one, other = (
            numbers.double().numpy() if isinstance(numbers, torch.Tensor) else np.asarray(numbers, dtype=float)
            for numbers in (got, wanted)
        )
        known = np.isfinite(one) & np.isfinite(other)
        far = np.abs(one - other)[known] / np.maximum(1, np.abs(other)[known])
        key = test, "float32" if single else "float64"
        self.largest[key] = max(self.largest[key], float(far.max(initial=0)))
        self.compared[key] += int(far.size)


def main() -> int:
    """Run the tests and print the table; the exit status is theirs."""
    noted = Noted()
    stacks.noting.append(noted)
    with contextlib.redirect_stdout(sys.stderr):
        status = int(
            pytest.main(["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning", _WHERE])
        )
    print("| tests | float64 | float32 | numbers compared |\n|---|---|---|---|")
    for name in sorted({name for name, _ in noted.largest}):
        far = [f"{noted.largest[name, d]:.0e}" if (name, d) in noted.largest else "" for d in ("float64", "float32")]
        count = sum(noted.compared[name, d] for d in ("float64", "float32"))
        print(f"| {_WHERE}/test_{name}.py | {far[0]} | {far[1]} | {count:,} |")
    print(f"\n{len(functional.__all__)} public functions: {', '.join(functional.__all__)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
