"""How attention moves while text is generated, labelled by step."""

import torch

from hf_attnviz import functional
from hf_attnviz.axes import HEAD, LAYER, STATISTIC, STEP
from hf_attnviz.errors import NotKeptError
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace

_OF_CROSS = ("entropy", "argmax", "drift")


def evolution(trace: Trace, *, stack: str | None = None) -> Result:
    """The row that put out each new token, step by step: ``[statistic, step, layer, head]``.

    Statistics: ``lookback_ratio``, ``prompt_mass``, ``entropy``, ``first_token``, ``self_token``, ``argmax``,
    ``drift`` (see :func:`hf_attnviz.functional.evolution`); for cross-attention, whose keys are the source alone, only
    ``entropy``, ``argmax`` and ``drift`` mean something.

    Args:
        stack: default: the decoder's own attention, or cross-attention where that alone was kept.

    Raises:
        NotKeptError: the trace is of a plain forward, or lacks the rows that put out tokens.
    """
    chosen = trace.stack(stack or next((name for name in ("decoder", "cross") if name in trace.stacks), None))
    steps, produced = _rows(chosen)
    prompt = steps[0].shape[-1]  # all there is to look at before anything is generated
    numbers = functional.evolution(steps, prompt)
    if chosen.maps[0].kind == "cross":
        numbers = {name: numbers[name] for name in _OF_CROSS}
    values = torch.stack([number[:, :, 0].to(torch.float32) for number in numbers.values()])
    heads = tuple(map(str, range(values.shape[-1])))
    return Result(
        values,
        (
            Axis(STATISTIC, tuple(numbers)),
            Axis(STEP, tuple(f"{n} → {text}" for n, text in enumerate(produced))),
            Axis(LAYER, tuple(map(str, chosen.layers))),
            Axis(HEAD, heads),
        ),
        "evolution over decoding steps",
        {"stack": chosen.name, "prompt_length": prompt},
        "Chuang et al. 2024 (lookback ratio)",
        "nats (entropy, drift), key number (argmax), shares (all others)",
        (Text("Some of the drift is only the growth of the keys.", "漂移中有一部分只是因为键在增多。"),),
    )


def _rows(stack: AttentionStack) -> tuple[list[torch.Tensor], list[str]]:
    """One map of one row ``[layer, 1, head, 1, key]`` for each step, on the keys there were by then."""
    first = stack.maps[0]
    produced = first.produced
    if produced is None:
        raise NotKeptError(
            "this trace is of a plain forward pass; evolution needs a generation: capture model.generate()"
        )
    rows = [n for n, text in enumerate(produced) if text is not None]
    if [first.steps[n] for n in rows] != list(range(len(rows))) or not rows:
        raise NotKeptError('rows that put out tokens were not kept; capture with keep="maps" or av.Rows([-1])')
    weights = stack.stacked()
    ends = first.positions
    steps = [weights[:, None, :, n : n + 1, : None if ends is None else ends[n] + 1] for n in rows]
    return steps, [produced[n] or "" for n in rows]
