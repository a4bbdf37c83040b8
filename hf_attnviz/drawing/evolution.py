"""How attention moves while text is generated: of a result the lines, of a trace the page that plays its steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hf_attnviz import analysis, views
from hf_attnviz.analysis.pooling import listed_traces
from hf_attnviz.errors import ArgumentError, UnknownStackError, listed
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.stack_names import stack_name
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views.generation import Generation, generation_view

_NO_WEIGHTS: Final = Text(
    'Left out: which key each step looked at, for the weights themselves were not kept: capture with keep="maps".',
    '略去：每一步看向哪个键，因为没有保留权重本身：以 keep="maps" 捕获。',
)


def evolution_view(
    data: Result | Trace | Sequence[Trace],
    *,
    stack: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    exact: bool = False,
    title: Text | str | None = None,
) -> View:
    """What each decoding step looks at: keys × steps, the text in the colours of one step, statistics as lines.

    Args:
        data: the trace of a generation, or several (the returned beams or samples of one input: a menu chooses); or a
            result of ``evolution(trace)``, ``argmax_paths(trace)``, ``input_reduction(…)``, which is drawn as lines
            alone, as is a trace that keeps no weights.
        stack: default: all that generated, the decoder's own attention first; a menu chooses.
        layer, head: what is shown at first; default: the first layer, the mean over its heads.
        exact: weights as 16-bit floats and not as bytes.
        title: the page's heading.

    Raises:
        NotKeptError: the trace is of a plain forward, or lacks the rows that put out tokens.
        UnknownNameError: no such layer or head.
        ArgumentError: neither a result nor a trace; ``stack``, ``layer``, ``head`` or ``exact`` with a result.
    """
    if isinstance(data, Result):
        if (stack, layer, head, exact) != (None, None, None, False):
            raise ArgumentError(
                Text(
                    "stack, layer, head and exact choose of a trace; of a result choose with result.select(layer=…)",
                    "stack、layer、head 与 exact 用于 trace；Result 请用 result.select(layer=…) 选择",
                )
            )
        return views.evolution_view(data, title=title)
    traces = listed_traces(data)
    names = [_stacks(trace, stack) for trace in traces]
    if not all(trace.stacks[name].has_weights for trace, found in zip(traces, names, strict=True) for name in found):
        result = analysis.evolution(data, stack=stack)
        return views.evolution_view(replace(result, notes=(_NO_WEIGHTS, *result.notes)), title=title)
    several = len(traces) > 1
    found = [_generation(trace, name, several) for trace, stacks in zip(traces, names, strict=True) for name in stacks]
    model = traces[0].model
    heading = Text("Generation, step by step", "逐步看生成")
    named = Text(f"{heading.en}: {model}", f"{heading.zh}：{model}") if model else heading
    return generation_view(found, layer=layer, head=head, exact=exact, title=title or named)


def _stacks(trace: Trace, stack: str | None) -> list[str]:
    """The stacks that put out tokens; the decoder's own attention first."""
    if stack is not None:
        return [trace.stack(stack).name]
    found = [name for name, one in trace.stacks.items() if one.maps[0].produced is not None]
    if not trace.stacks:
        raise UnknownStackError(
            Text(
                f"this trace has no maps; traces of a generation have: {listed(['decoder', 'cross'])}",
                f"这个 trace 没有注意力图；生成的 trace 有：{listed(['decoder', 'cross'])}",
            )
        )
    return sorted(found, key=lambda name: name != "decoder") or list(trace.stacks)[:1]


def _generation(trace: Trace, name: str, several: bool) -> Generation:
    found = stack_name(name)
    if several:
        which = f"{trace.item}.{trace.candidate}"
        found = Text(f"candidate {which} · {found.en}", f"候选 {which} · {found.zh}")
    return Generation(found, trace.stacks[name].alike(), analysis.evolution(trace, stack=name))


def is_generation(trace: Trace) -> bool:
    """Whether a trace has decoding steps to draw."""
    return any(m.produced is not None for m in trace.maps)
