"""Value zeroing: how far a layer's output turns when it cannot take anything of one token.

Source: Mohebbi et al., "Quantifying Context Mixing in Transformers" (2023), equations 5 to 7. Steps: make the value
vector of token j zero in all heads of a layer, leave the weights as they are, run the layer on its own input; the
score of i and j is 1 − cosine of the layer's output i with and without; rows are divided by their sums. The layer is
the whole block: residual, norms and MLP are in it. Each layer costs a run of itself for each token.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

from hf_attnviz import functional, progress
from hf_attnviz.analysis.norms import layer_axis, pair_axes
from hf_attnviz.capturing import scope
from hf_attnviz.capturing.opening import capture
from hf_attnviz.capturing.zeroing import Zeroing
from hf_attnviz.errors import CaptureError, NotKeptError
from hf_attnviz.explaining.given import one_example, opened
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.trace import AttentionStack, Trace

_RUNNING: Final = Text("running each layer without each token", "逐层逐词元置零并重跑")
_NOT_SPREAD: Final = Text(
    "The weight of the zeroed token is not given to others: what is missing is what it brought.",
    "被置零词元的权重不会分给其他词元：缺少的正是它带来的内容。",
)
_LOCAL: Final = Text(
    "Each layer is judged by its own output, from its own input: it is not told whether the answer changes.",
    "每层只按自身输入与输出评判：不说明最终回答是否改变。",
)
_NOTHING: Final = Text("NaN: no token turns that row at all.", "NaN：没有任何词元能使该行改变。")


@scope.alone()
@torch.no_grad()
def value_zeroing(
    model: Any,
    inputs: str | Mapping[str, Any],
    *,
    processor: Any = None,
    stack: str | None = None,
    layers: Sequence[int] | None = None,
    rolled: bool = False,
) -> Result:
    """How much each layer's output at each query owes to each key's value: ``[layer, query, key]``, rows sum to one.

    Args:
        model: a model in evaluation mode, a pipeline, or what :func:`hf_attnviz.load_model` gives.
        inputs: a text, or the arguments of one forward pass, for one example.
        processor: the tokenizer or processor, for texts and labels.
        stack: which stack; default: the only one.
        layers: block indices; default: all.
        rolled: follow the shares through the layers down to the input (of self-attention, with all layers).

    Raises:
        CaptureError: a layer cannot be run again piece by piece; the message names it and says why.
        NotKeptError: cross-attention is to be rolled out.
    """
    module, processor = opened(model, processor)
    given = one_example(module, processor, inputs)
    with capture(module, processor, layers=layers) as plain:
        module(**given)
    chosen = plain.trace.stack(stack)
    if rolled and any(not m.whole for m in chosen):
        raise NotKeptError(
            Text(
                "only self-attention is followed through layers; leave rolled=True",
                "只有自注意力可以逐层追溯；请用 rolled=True",
            )
        )
    zeroed = _zeroed(module, processor, given, chosen, layers).stack(chosen.name)
    scores = zeroed.stacked()[:, 0]
    values = scores / scores.sum(-1, keepdim=True)
    notes = [_NOTHING] if bool(values.isnan().any()) else []
    values = functional.alti_rollout(values[:, None])[:, 0] if rolled else values
    return Result(
        values,
        (layer_axis(zeroed), *pair_axes(zeroed)),
        "value zeroing, rolled out" if rolled else "value zeroing",
        {"stack": chosen.name, "rolled": rolled},
        "Mohebbi et al. 2023",
        "share of the input" if rolled else "share",
        (*notes, _NOT_SPREAD, _LOCAL),
    )


def _zeroed(
    model: Any, processor: Any, given: dict[str, Any], chosen: AttentionStack, layers: Sequence[int] | None
) -> Trace:
    """A trace whose maps hold the scores."""
    modules = frozenset(id(model.get_submodule(m.module)) for m in chosen)
    total = sum(len(m.keys) for m in chosen)
    steps: Iterator[int] = progress.shown(range(total), total, _RUNNING)
    asked = Zeroing(modules, lambda: next(steps, None))
    with capture(model, processor, keep=asked, layers=layers) as recording:
        model(**given)
    next(steps, None)  # the bar ends with the last of them
    names = {m.module for m in chosen}
    for call in recording.calls:
        kept = call.kept["maps"]
        if call.module in names and kept.refusal:
            why = kept.refusal
            raise CaptureError(
                Text(
                    f"{call.module} cannot be run again without a value: {why.en}",
                    f"{call.module} 无法在去掉某个值后再次运行：{why.zh}",
                )
            )
    return recording.trace
