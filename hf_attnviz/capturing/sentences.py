"""What a recording says to people: why there is no trace, what is wrong with a run, and what to do."""

from collections.abc import Collection, Iterable, Sequence

from hf_attnviz.errors import listed
from hf_attnviz.language import Text, told


def not_one(traces: int) -> Text:
    """The only trace was asked for."""
    hint = Text("choose one of recording.traces", "请选择 recording.traces 之一")
    hint = hint if traces else Text("run the model inside the block", "请在代码块内运行模型")
    return Text(f"expected one trace, there are {traces}: {hint.en}", f"应为一个 trace，现有 {traces} 个：{hint.zh}")


def ran_outside(modules: Iterable[str], model: str) -> Text:
    """Modules attended while no forward of the model was under way."""
    names = listed(modules)
    return Text(
        f"{names} ran outside forward() and generate() of {model} (called by itself, or in another thread), so nothing "
        "of it was recorded; capture the part that you call: av.capture(model.part)",
        f"{names} 在 {model} 的 forward() 与 generate() 之外运行（被单独调用，或在另一线程中），因此没有录下任何内容；"
        "请捕获你所调用的部分：av.capture(model.part)",
    )


def came_later(kind: str, model: str) -> Text:
    """A module attends that was not in the model."""
    return Text(
        f"a {kind} attends in {model} that was no part of it when the recording was opened (put in later, or kept "
        "where named_modules() does not look); change the model first, then open the recording",
        f"{model} 中有一个 {kind} 在做注意力，而打开录制时它还不属于模型（后来放入的，或放在 named_modules() "
        "看不到的地方）；请先改好模型，再打开录制",
    )


def went_slowly(module: str, why: Text) -> Text:
    """A matrix was built though none was asked for."""
    return Text(
        f"{module} went the slow way, one layer's matrix at a time: {why.en}. The numbers are the same",
        f"{module} 走了慢路，逐层构建矩阵：{why.zh}。数值相同",
    )


def went_wrong(module: str, problem: Exception, others: int) -> Text:
    """A module could not be captured; ``others``: nor could so many more."""
    why = told(problem)
    more = Text(f" (and {others} more modules)", f"（另有 {others} 个模块）") if others else Text("", "")
    return Text(
        f"{module}{more.en}: {why.en}. Nothing of this run is handed out; capture other layers with layers=…, or look "
        "at it with: attnviz doctor",
        f"{module}{more.zh}：{why.zh}。这次运行的内容一概不给出；请用 layers=… 捕获其他层，或用 attnviz doctor 查看",
    )


def by_other_means(model: str, module: str, means: Text) -> Text:
    """Positions look at one another without a softmax over keys."""
    return Text(
        f"{model} has no attention map: its positions look at one another by other means, without a softmax over keys "
        f"({module}: {means.en}). attnviz doctor lists them all",
        f"{model} 没有注意力图：各位置以其他方式相互作用，没有对键的 softmax（{module}：{means.zh}）。"
        "attnviz doctor 会全部列出",
    )


def nothing_seen(model: str, layers: Collection[int] | None) -> Text:
    """The model ran and no attention was seen."""
    chosen = Text("", "")
    if layers is not None:
        chosen = Text(f"; layers={sorted(layers)} chosen", f"；所选为 layers={sorted(layers)}")
    return Text(
        f"{model} ran and no attention was seen in it. Either the model has none, or it computes it where our "
        f"observers cannot see (a compiled or scripted part, a custom kernel){chosen.en}",
        f"{model} 运行了，其中却没有看到注意力。要么模型没有注意力，要么它在观察者看不到的地方计算"
        f"（已编译或脚本化的部分、自定义内核）{chosen.zh}",
    )


def not_kept(what: str, module: str, kept: Iterable[str], keep: Text | str) -> Text:
    """Something of a call was not kept; ``keep`` would."""
    names, way = list(kept), told(keep)
    return Text(
        f"{what} of {module} were not kept (kept: {listed(names)}); capture with {way.en}",
        f"没有保留 {module} 的 {what}（保留了：{listed(names, '无')}）；请以 {way.zh} 捕获",
    )


def not_reduced(module: str, layout: Sequence[str]) -> Text:
    """A call in a layout of the model's own was to be reduced."""
    axes = ", ".join(layout)
    return Text(
        f"{module} attends in a layout of its own, [{axes}]: keep maps",
        f"{module} 的注意力有自己的布局：[{axes}]：请保留注意力图",
    )


def no_gradients(module: str) -> Text:
    """Gradients were not asked for."""
    return Text(
        f"gradients of {module} were not asked for; capture with gradients=True",
        f"没有要求 {module} 的梯度；请以 gradients=True 捕获",
    )


def by_hand(module: str, vectors: str) -> Text:
    """Attention is written by hand, without vectors that could be seen."""
    return Text(
        f"{module} computes its attention by hand; its {vectors} vectors cannot be seen",
        f"{module} 的注意力是手写的；看不到它的 {vectors} 向量",
    )
