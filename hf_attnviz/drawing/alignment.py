"""From the trace of a translation to its alignment, drawn."""

from dataclasses import replace

from hf_attnviz import analysis
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views.alignment import alignment_picture

_BARE = Text(
    "Tokens, not words: on one side the words are not known (frames, patches).",
    "此处是词元而非词：其中一侧没有词可言（声音帧、图块）。",
)


def alignment_view(
    data: Trace | Result,
    *,
    stack: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    words: bool = True,
    threshold: float = 0.1,
    title: Text | str | None = None,
) -> View:
    """The words of a source and of a target, joined by arrows as thick as the weight, and the table of weights.

    The row of a target is the one that put it out (see :func:`hf_attnviz.alignment`); for another rule, or with special
    tokens, pass the result of ``alignment(trace, read=…, special=True)``. Saves as html, svg, png and pdf.

    Args:
        data: the trace of a translation (generated, or read along with its source), or an alignment of it.
        stack: default: cross-attention where there is some, else the only stack, of a generation whose prompt is the
            source.
        layer: shown first; default: the last.
        head: shown first; default: the mean over heads.
        words: join the pieces of a word, where the words of both sides are known.
        threshold: the least weight that has an arrow at first; 0.1 is ours and leaves a few arrows a word. It is of the
            drawing alone: the page has a menu for it, and the table every weight.
        title: the page's heading.

    Raises:
        UnknownStackError, UnknownNameError: no such stack, layer or head; the message lists them.
        NotKeptError: rows that ``keep`` left out.
        ArgumentError: no token is left on one side, a threshold outside 0 … 1, or neither a trace nor an alignment.
    """
    if isinstance(data, Result):
        return alignment_picture(data, layer=layer, head=head, threshold=threshold, title=title)
    if not isinstance(data, Trace):
        raise ArgumentError(
            Text(
                f"expected a trace or the result of alignment(trace), got {type(data).__name__}",
                f"应为 trace 或 alignment(trace) 的结果，现为 {type(data).__name__}",
            )
        )
    name = "cross" if stack is None and "cross" in data.stacks else data.stack(stack).name
    known = _has_words(data.stack(name).maps[0])
    found = analysis.alignment(data, stack=name, words=words and known)
    if words and not known:
        found = replace(found, notes=(*found.notes, _BARE))
    named = Text(
        f"Which source words each target word of {data.model} looks at", f"{data.model}：每个目标词看向哪些源词"
    )
    return alignment_picture(
        found, layer=layer, head=head, threshold=threshold, title=title or (named if data.model else None)
    )


def aligns(trace: Trace) -> bool:
    """Whether the rows of this trace's cross-attention stand for tokens of a text, and its keys for another's."""
    if "cross" not in trace.stacks:
        return False
    several = trace.stacks["cross"]
    whole = several.has_weights and len({m.shape for m in several}) == 1
    return whole and all("text" in ends.kinds for ends in (several.queries, several.keys)) and _has_targets(trace)


def _has_targets(trace: Trace) -> bool:
    one = trace.stacks["cross"].maps[0]
    if one.produced is None:
        own = trace.stacks.get(one.stack)
        return len(one.queries) > 1 and (own is None or len(own.keys) == len(one.queries))
    steps = [one.steps[n] for n, text in enumerate(one.produced) if text is not None]
    return bool(steps) and steps == list(range(len(steps)))


def _has_words(one: AttentionMap) -> bool:
    return all(any(word is not None for word in ends.words) for ends in (one.queries, one.keys))
