"""All heads as points on a plane, those that look alike side by side."""

import math
from collections.abc import Sequence

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.caveats import left_out, parked
from hf_attnviz.analysis.pooling import pooled
from hf_attnviz.axes import HEAD, STATISTIC
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

_NOWHERE = Text("No head has a place: no distance between heads is known.", "没有头有位置：头与头之间的距离均未知。")


def head_map(
    traces: Trace | Sequence[Trace],
    *,
    stack: str | None = None,
    dimensions: int = 2,
    likeness: Result | None = None,
) -> Result:
    """Coordinates of all heads of all layers, ``[head, statistic]``: ``dimension 1``, ``dimension 2`` …

    Classical scaling of √JS, the root of the Jensen–Shannon divergence, which is a distance: heads whose rows are
    alike on the same texts stand close together. ``parameters["stress"]`` says how far the distances on the map are
    from the real ones (0 is exact).

    Args:
        dimensions: 2 draws a plane.
        stack: default: the only one.
        likeness: the result of ``head_correlation(traces, method="js")``, where it is at hand already: of long texts
            it takes its time.

    Raises:
        ArgumentError: a likeness of other heads or by another method.
    """
    data = pooled(traces, stack)
    if likeness is None:
        distance = functional.head_similarity(data.attention, method="js", **data.masks).sqrt()
    else:
        distance = _checked(likeness, data.head_names).values.sqrt()
    values = functional.classical_mds(distance, dimensions)
    stress = _stress(distance, values)
    return Result(
        values,
        (Axis(HEAD, data.head_names), Axis(STATISTIC, tuple(f"dimension {n + 1}" for n in range(dimensions)))),
        "head map",
        {**data.what, "method": "js", "dimensions": dimensions, "stress": stress},
        "Clark et al. 2019, section 6; Torgerson 1952",
        "√nats",
        (
            Text(
                f"Distances on the map differ from the real ones by {stress:.0%} (Kruskal's stress-1); directions mean "
                "nothing by themselves.",
                f"图上距离与真实距离相差 {stress:.0%}（Kruskal stress-1）；方向本身没有含义。",
            )
            if not math.isnan(stress)
            else _NOWHERE,
            parked(data),
            *left_out(data),
        ),
    )


def _checked(likeness: Result, names: tuple[str, ...]) -> Result:
    if likeness.parameters.get("method") != "js" or likeness.axes[0].labels != names:
        raise ArgumentError(
            Text(
                f'expected likeness of these {len(names)} heads, head_correlation(traces, method="js"); got '
                f"{likeness!r}",
                f'应为这 {len(names)} 个头的相似度，head_correlation(traces, method="js")；得到 {likeness!r}',
            )
        )
    return likeness


def _stress(distance: torch.Tensor, places: torch.Tensor) -> float:
    """√(Σ(d − δ)² / Σδ²) over all pairs of heads that are known: Kruskal 1964. Exact where all are one; NaN without."""
    drawn = (places[:, None] - places).double().norm(dim=-1)
    real = distance.double()
    if bool(real.isnan().all()):
        return math.nan
    missed, size = ((drawn - real).square().nansum(), real.square().nansum())
    return float((missed / size).sqrt()) if bool(size) else float(missed.sqrt())
