"""The two ways to open a recording: around a block, and by hand."""

from collections.abc import Sequence
from typing import Any

from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.reducers import Keep
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text


def capture(
    target: Any,
    processor: Any = None,
    *,
    keep: Keep = "maps",
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
    gradients: bool = False,
    max_memory: int | str | None = None,
) -> Recording:
    """Record attention while ``target`` runs: ``with av.capture(model, tokenizer) as recording: model(**inputs)``.

    The model runs as it is: same backend, same config, output equal to the last bit; nothing is left behind. A module
    that is compiled inside the block runs uncompiled there, with the bits that it had when the block was opened. Two
    blocks on one model in two threads or tasks hear their own runs only; threads that stand in no block are heard.

    Args:
        target: an ``nn.Module``, a ``PreTrainedModel``, a wrapper around one, a transformers ``Pipeline``, or a
            pipeline of diffusers (the part that paints is captured, its text encoders tell what the keys are).
        processor: the tokenizer or processor that gives labels; default: the pipeline's. Without one labels are ids.
        keep: what to keep: ``"maps"``, ``"vectors"``, a reducer such as ``av.Rows([-1])``, or a list of them.
            ``["maps", "contributions"]`` keeps of what each layer's output is made, for norms and ALTI, by running
            blocks again.
        layers: block indices to keep; None keeps all. Others run without any cost.
        queries: short for ``keep=av.Rows(queries)``.
        gradients: give ``.gradient``, d(scalar)/d(weights), after your own ``backward()``. A kernel's weights are not
            in the graph of its output, so the model's own eager function (or the explicit softmax) runs in its place,
            checked against the kernel: outputs then differ from the plain run by rounding. Wants ``model.eval()``.
        max_memory: bytes that calls may take, or a size such as ``"2GiB"``; None: for each run, half of what is free
            when it begins (of the device where it runs, within the limits of this process). What a run needs is
            estimated before its first call keeps anything, and watched as it goes on. The other half is for traces:
            those that are joined of several passes, or lose padding, are copies.

    Raises:
        ArgumentError, UnknownNameError: what is asked for does not exist on this model.
        CaptureError: the model was compiled before; and, when the block ends, attention that could not be proved.
        MemoryBudgetError: when the block ends: ``max_memory`` did not do; the model ran as ever, and nothing was kept.
        NothingCapturedError: when the block ends: the model ran and no attention was seen.
    """
    return Recording(
        target, processor, keep=keep, layers=layers, queries=queries, gradients=gradients, max_memory=max_memory
    )


def attach(
    target: Any,
    processor: Any = None,
    *,
    last: int = 1,
    keep: Keep = "maps",
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
    gradients: bool = False,
    max_memory: int | str | None = None,
) -> Recording:
    """The same recording, opened here and closed with ``recording.detach()``: for servers and notebooks.

    Args:
        target, processor, keep, layers, queries, gradients, max_memory: as in :func:`capture`.
        last: how many of the latest runs are kept.

    Problems never disturb the model; they are raised when the traces are read.
    """
    if last < 1:
        raise ArgumentError(
            Text(
                f"last={last}: expected how many of the latest runs to keep, 1 or more",
                f"last={last}：应为保留最近几次运行，1 或更多",
            )
        )
    return Recording(
        target,
        processor,
        keep=keep,
        layers=layers,
        queries=queries,
        gradients=gradients,
        max_memory=max_memory,
        last=last,
    ).open()
