"""Attention rollout, labelled, with the drift that it has by itself."""

from typing import Any

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.caveats import UNTESTED, drift_note, nan_weights
from hf_attnviz.analysis.grouped_rollout import grouped_rollout, streamed
from hf_attnviz.analysis.pooling import stack_of
from hf_attnviz.axes import KEY, LAYER, QUERY
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import Trace

NO_PROOF = Text(
    "Rollout follows weights, not what is moved along them: it is no proof of influence.",
    "Rollout 只跟踪权重，不看沿权重传递的内容：它不能证明影响。",
)
_NOTHING_LEFT = Text(
    "NaN: a row of which nothing is left (all its weights discarded, no residual), and those that take of it.",
    "NaN：什么也不剩的行（权重全被舍弃且无残差），以及取自它的行。",
)


def rollout(
    trace: Trace,
    *,
    stack: str | None = None,
    residual: float = 0.5,
    head_fusion: str = "mean",
    normalise: str = "after",
    discard: float = 0.0,
    start_layer: int = 0,
) -> Result:
    """Attention followed through the layers down to the input: ``[layer, query, key]``, each row a share of the input.

    Of a trace without weights that was captured with :class:`av.Rollout`, the same for groups of sources, ``[layer,
    query, group]``.

    Beside it stands, as ``baseline``, the rollout of uniform attention under the mask of each layer (as its maps show
    it) with the same options: what rollout gives for no reason of the model's. ``result.above_baseline()`` is the
    difference, ``result.at_baseline()`` the drift alone.

    Args:
        residual, head_fusion, normalise, discard, start_layer: see :func:`hf_attnviz.functional.rollout`.
        stack: a self-attention stack; default: the only one.

    Raises:
        NotKeptError: cross-attention, or maps without all their rows; groups that were followed with other options.
    """
    options: dict[str, Any] = {
        "residual": residual,
        "head_fusion": head_fusion,
        "normalise": normalise,
        "discard": discard,
        "start_layer": start_layer,
    }
    found = stack_of(trace, stack)
    if streamed(found):
        return grouped_rollout(found, options, (NO_PROOF, UNTESTED))
    chosen = found.whole()
    maps = chosen.stacked()[:, None]
    values = functional.rollout(maps, **options)[:, 0]
    baseline = functional.rollout(functional.uniform_like(maps), **options)[:, 0]
    drift = float(baseline[-1, -1, 0])
    axes = (
        Axis(LAYER, tuple(map(str, chosen.layers[start_layer:]))),
        Axis(QUERY, chosen.queries.texts),
        Axis(KEY, chosen.keys.texts),
    )
    return Result(
        values,
        axes,
        "attention rollout",
        {"stack": chosen.name, **options, "uniform_first_token": drift},
        "Abnar & Zuidema 2020",
        "share of the input",
        (drift_note(drift, float(values[-1, -1, 0])), *nan_weights(maps), *_gone(values, maps), NO_PROOF, UNTESTED),
        baseline=baseline,
    )


def layer_by_layer(trace: Trace, *, stack: str | None = None, residual: float = 0.5) -> Result:
    """What rollout multiplies: of each layer by itself, the mean over heads with the residual, ``[layer, query, key]``.

    Raises:
        NotKeptError: cross-attention, or maps without all their rows.
    """
    chosen = stack_of(trace, stack).whole()
    maps = chosen.stacked()[:, None]
    values = torch.cat([functional.rollout(layer[None], residual=residual)[:, 0] for layer in maps])
    axes = (
        Axis(LAYER, tuple(map(str, chosen.layers))),
        Axis(QUERY, chosen.queries.texts),
        Axis(KEY, chosen.keys.texts),
    )
    notes = (*nan_weights(maps), *_gone(values, maps), NO_PROOF, UNTESTED)
    about = {"stack": chosen.name, "residual": residual}
    return Result(values, axes, "attention with residual", about, "Abnar & Zuidema 2020", "share", notes)


def _gone(values: torch.Tensor, maps: torch.Tensor) -> list[Text]:
    return [_NOTHING_LEFT] if bool(values.isnan().any()) and not bool(maps.isnan().any()) else []
