"""The report: everything about one trace on one page, each part with how to read it."""

from collections.abc import Callable

from hf_attnviz import analysis, views
from hf_attnviz.analysis.sides import target_side
from hf_attnviz.drawing.long import long_view
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.stack_names import stack_name
from hf_attnviz.trace import AttentionStack, Trace
from hf_attnviz.view import View

_FLOW_WORK = 25_000_000  # layers × tokens³ up to which the flow of one row takes a few seconds at most
_INTRO = (
    Text(
        "These are attention weights, captured while the model ran on its own backend and checked against the kernel's "
        "output. They show where the model looked, not why it answered as it did.",
        "以下注意力权重是在模型以自身后端运行时捕获的，并与内核输出核对过。它们显示模型看向哪里，而不是它为何如此作答。",
    ),
)
_NO_GRADIENTS = Text(
    "Left out: relevance and head importance, which need gradients: capture with gradients=True and call backward().",
    "略去：相关性与头的重要性，它们需要梯度：以 gradients=True 捕获并调用 backward()。",
)
_NOT_KEPT = Text(
    'Left out: norms and ALTI, which need what each key adds: capture with keep=["maps", "contributions"].',
    '略去：范数与 ALTI，它们需要每个键所加的内容：以 keep=["maps", "contributions"] 捕获。',
)
_NOT_APART = Text(
    "Left out: norms and ALTI, for what attention adds could not be taken apart",
    "略去：范数与 ALTI，因为注意力所加的内容未能分解",
)
_NO_WEIGHTS = Text(
    'Left out: all that needs the weights themselves, of which only statistics were kept: capture with keep="maps".',
    '略去：一切需要权重本身的部分，因为只保留了统计量：以 keep="maps" 捕获。',
)
_NO_FLOW = Text(
    "Left out: attention flow, which takes long on so long a text; av.flow(trace, queries=[0]) computes it.",
    "略去：注意力流，文本过长，计算耗时；可用 av.flow(trace, queries=[0]) 计算。",
)


def report(trace: Trace, *, title: Text | str | None = None, layer: int | None = None) -> View:
    """Head view, statistics, roles, sinks, likeness, rollout, flow and, for generations, evolution: one page.

    Args:
        trace: a trace with whole maps (``keep="maps"``); of one that keeps statistics only, as of a long text, the page
            shows what each head does along it, and what else can be told of them.
        title: the page's heading; default: the model's name.
        layer: the layer that the head view shows first; default: the first.

    Raises:
        ArgumentError: something else than one trace.
        NotKeptError: a trace that keeps neither weights nor statistics.
    """
    if not isinstance(trace, Trace):
        raise ArgumentError(
            Text(
                f"a report is about one trace, got {type(trace).__name__}: call it for each, "
                "report(recording.traces[0]); head_statistics and head_correlation pool several, compare takes two",
                f"一份报告只讲一个 trace，得到的是 {type(trace).__name__}：请对每个 trace 各调用一次，如 "
                "report(recording.traces[0])；head_statistics 与 head_correlation 可汇总多个，compare 比较两个",
            )
        )
    sections: list[tuple[Text | str, View]] = []
    if _has_weights(trace):
        sections.append((Text("Head view: who looks at whom", "头视图：谁在看谁"), views.head_view(trace, layer=layer)))
    for name, stack in trace.stacks.items():
        for heading, draw in _PARTS:
            view = draw(trace, name) if stack.has_weights or _kept_for(draw, stack) else None
            if view is not None:
                sections.append((_heading(heading, name, trace), view))
    proof = max(m.error for m in trace.maps)
    proved = Text(
        f"{len(trace.maps)} maps; largest deviation from the kernel's own output: {proof:.1e}.",
        f"共 {len(trace.maps)} 张注意力图；与内核输出的最大偏差：{proof:.1e}。",
    )
    return views.compose(
        title or Text(f"Attention of {trace.model}", f"{trace.model} 的注意力"),
        sections,
        (*_INTRO, proved, *_left_out(trace)),
    )


def _left_out(trace: Trace) -> list[Text]:
    """The parts that this trace cannot have, and what to capture for them."""
    found = [] if _has_weights(trace) else [_NO_WEIGHTS]
    if not any(_has_gradients(trace, name) for name in trace.stacks):
        found.append(_NO_GRADIENTS)
    if not any(_taken_apart(trace, name) for name in trace.stacks):
        reason = next((m.undecomposed for m in trace.maps if m.undecomposed), "")
        found.append(Text(f"{_NOT_APART.en}: {reason}.", f"{_NOT_APART.zh}：{reason}。") if reason else _NOT_KEPT)
    if any(stack.has_weights and _too_long_for_flow(stack) for stack in trace.stacks.values()):
        found.append(_NO_FLOW)
    return found


def _has_weights(trace: Trace) -> bool:
    return all(stack.has_weights for stack in trace.stacks.values())


def _along(trace: Trace, stack: str) -> View | None:
    return None if trace.stacks[stack].has_weights else long_view(trace, stack=stack)


def _statistics(trace: Trace, stack: str) -> View:
    return views.heatmap(analysis.head_statistics(trace, stack=stack))


def _correlation(trace: Trace, stack: str) -> View:
    return views.correlation_view(analysis.head_correlation(trace, stack=stack))


def _divergence(trace: Trace, stack: str) -> View:
    return views.correlation_view(analysis.head_correlation(trace, stack=stack, method="js"))


def _rollout(trace: Trace, stack: str) -> View | None:
    if not all(m.whole for m in trace.stacks[stack]):
        return None  # cross-attention has no identity to add: rollout is about one sequence
    return views.heatmap(analysis.rollout(trace, stack=stack))


def _above_uniform(trace: Trace, stack: str) -> View | None:
    if not all(m.whole for m in trace.stacks[stack]):
        return None
    return views.heatmap(analysis.rollout(trace, stack=stack).above_baseline())


def _flow(trace: Trace, stack: str) -> View | None:
    found = trace.stacks[stack]
    weights = all(m.whole and bool((m.weights >= 0).all()) for m in found)  # NaN is none
    if not weights or _too_long_for_flow(found):
        return None
    row = -1 if all(m.causal for m in found) else 0
    return views.heatmap(analysis.flow(trace, stack=stack, queries=[row]))


def _too_long_for_flow(stack: AttentionStack) -> bool:
    return all(m.whole for m in stack) and len(stack) * len(stack.keys) ** 3 > _FLOW_WORK


def _roles(trace: Trace, stack: str) -> View:
    return views.roles_view(analysis.head_roles(trace, stack=stack))


def _sinks(trace: Trace, stack: str) -> View:
    return views.heatmap(analysis.sinks(trace, stack=stack))


def _map(trace: Trace, stack: str) -> View | None:
    found = analysis.head_map(trace, stack=stack)
    return views.head_map_view(found) if bool(found.values.isfinite().any()) else None


def _distance(trace: Trace, stack: str) -> View | None:
    if any(m.keys.cells is None or not m.whole for m in trace.stacks[stack]):
        return None
    try:
        return views.heatmap(analysis.image_distance(trace, stack=stack))
    except ArgumentError:  # several pictures, or a part of one
        return None


def _relevance(trace: Trace, stack: str) -> View | None:
    crossed = trace.stacks[stack].maps[0].kind == "cross"
    if not all(_has_gradients(trace, name) for name in (("encoder", "decoder", stack) if crossed else (stack,))):
        return None
    return views.heatmap(analysis.relevance(trace, stack=stack))


def _importance(trace: Trace, stack: str) -> View | None:
    return views.heatmap(analysis.head_importance(trace, stack=stack)) if _has_gradients(trace, stack) else None


def _has_gradients(trace: Trace, stack: str) -> bool:
    """Whether the trace holds every row of a stack, and its gradient."""
    maps = trace.stacks[stack].maps if stack in trace.stacks else ()
    return bool(maps) and all(m.gradient is not None and (m.positions is None or m.whole) for m in maps)


def _norms(trace: Trace, stack: str) -> View | None:
    return views.heatmap(analysis.norms(trace, stack=stack)) if _taken_apart(trace, stack) else None


def _alti(trace: Trace, stack: str) -> View | None:
    if not _taken_apart(trace, stack):
        return None
    return views.heatmap(analysis.alti(trace, stack=stack, rolled=all(m.whole for m in trace.stacks[stack])))


def _taken_apart(trace: Trace, stack: str) -> bool:
    """Whether the trace tells of what the output of each layer is made, and layers are alike."""
    maps = trace.stacks[stack].maps
    return all(m.decomposition is not None for m in maps) and len({m.shape for m in maps}) == 1


def _evolution(trace: Trace, stack: str) -> View | None:
    if trace.stacks[stack].maps[0].produced is None:
        return None
    return views.evolution_view(analysis.evolution(trace, stack=stack))


def _paths(trace: Trace, stack: str) -> View | None:
    if trace.stacks[stack].maps[0].produced is None:
        return None
    return views.evolution_view(analysis.argmax_paths(trace, stack=stack))


def _two_texts(trace: Trace, stack: str) -> bool:
    """Whether this is cross-attention from a text that was generated to another, with something to align."""
    one = trace.stacks[stack].maps[0]
    kinds = set(one.keys.kinds)
    if one.kind != "cross" or "text" not in kinds or not kinds <= {"text", "special"}:
        return False
    told = [text for text in one.produced or () if text is not None]
    return len(told) > 2 and bool(target_side(trace, one, "reading").text_only().places)


def _alignment(trace: Trace, stack: str) -> View | None:
    return views.heatmap(analysis.alignment(trace, stack=stack)) if _two_texts(trace, stack) else None


def _alignment_scores(trace: Trace, stack: str) -> View | None:
    return views.heatmap(analysis.alignment_scores(trace, stack=stack)) if _two_texts(trace, stack) else None


def _word_times(trace: Trace, stack: str) -> View | None:
    one = trace.stacks[stack].maps[0]
    if one.kind != "cross" or one.produced is None or set(one.keys.kinds) != {"frame"}:
        return None
    if not target_side(trace, one, "output").text_only().places:
        return None
    return views.heatmap(analysis.word_times(trace, stack=stack))


_PARTS: tuple[tuple[Text, Callable[[Trace, str], View | None]], ...] = (
    (Text("Along the text", "沿文本观察"), _along),
    (Text("Head statistics", "注意力头统计"), _statistics),
    (Text("Head roles", "注意力头的角色"), _roles),
    (Text("Attention sinks", "注意力汇点"), _sinks),
    (Text("Distance across the picture", "图像上的注视距离"), _distance),
    (Text("Head correlation", "注意力头相关性"), _correlation),
    (Text("Head divergence (Jensen–Shannon)", "注意力头差异（Jensen–Shannon）"), _divergence),
    (Text("Map of the heads", "注意力头分布图"), _map),
    (Text("Attention rollout", "注意力 Rollout"), _rollout),
    (Text("Attention rollout minus uniform attention", "注意力 Rollout 减去均匀注意力"), _above_uniform),
    (Text("Attention flow to one row", "流向一行的注意力流"), _flow),
    (Text("Relevance (attention and its gradient)", "相关性（注意力及其梯度）"), _relevance),
    (Text("Head importance", "注意力头重要性"), _importance),
    (Text("Weights and norms of what is moved", "权重与所搬运内容的范数"), _norms),
    (Text("ALTI: contributions of the input", "ALTI：输入的贡献"), _alti),
    (Text("Evolution over decoding steps", "随解码步的演变"), _evolution),
    (Text("The key each head looks at most, step by step", "各头逐步最关注的键"), _paths),
    (Text("Alignment: which source each word looks at", "对齐：每个词看向哪个源"), _alignment),
    (Text("How far each head keeps the order of the source", "各头在多大程度上保持源的次序"), _alignment_scores),
    (Text("When each word was spoken", "每个词的发声时间"), _word_times),
)


_WITHOUT_WEIGHTS: dict[
    Callable[[Trace, str], View | None], tuple[str, ...]
] = {  # what a part can be made of instead of weights: any of these
    _along: ("statistics",),
    _statistics: ("statistics",),
    _sinks: ("statistics",),
    _correlation: ("gram", "sketch"),
    _evolution: ("evolution",),
}


def _kept_for(draw: Callable[[Trace, str], View | None], stack: AttentionStack) -> bool:
    """Whether a stack without weights keeps what a part is made of. Statistics are asked for in any case."""
    names = _WITHOUT_WEIGHTS.get(draw, ())
    return "statistics" in names or any(all(name in m.reduced for m in stack) for name in names)


def _heading(heading: Text, stack: str, trace: Trace) -> Text:
    if len(trace.stacks) == 1:
        return heading
    name = stack_name(stack)
    return Text(f"{heading.en}: {name.en}", f"{heading.zh}：{name.zh}")
