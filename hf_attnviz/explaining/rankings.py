"""The rankings that are put to the test: for each method a score for every token of the text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from hf_attnviz.analysis.norms import layer_norms
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.errors import ArgumentError, AttnvizError, NotKeptError, ShapeError, UnknownNameError, listed
from hf_attnviz.explaining.given import with_gradients
from hf_attnviz.explaining.methods import METHODS
from hf_attnviz.explaining.prediction import Prediction
from hf_attnviz.explaining.rows import attention_row, mean_row, rollout_row
from hf_attnviz.explaining.subject import Settings, Subject
from hf_attnviz.language import Text, told
from hf_attnviz.trace import AttentionStack, Trace

Scores = Callable[[Prediction], torch.Tensor]


def attention_of(prediction: Prediction) -> torch.Tensor:
    """Raw attention ``[key]``: last layer, mean over heads, the row at which the prediction is read.

    In an encoder-decoder the row of the decoder's cross-attention; where the prediction is read off several positions,
    the mean of their rows.
    """
    return attention_row(looking(prediction), prediction.rows)


def rollout_of(prediction: Prediction) -> torch.Tensor:
    """The same row of attention rollout ``[key]``.

    In an encoder-decoder the row of the last cross-attention, followed through the encoder by its rollout.
    """
    return rollout_row(_trace(prediction), looking(prediction), prediction.rows)


def norms_of(prediction: Prediction) -> torch.Tensor:
    """The same row of the norms ``‖Σ_h α f_h(x)‖`` of the last layer ``[key]``: how much of each token is moved.

    Raises:
        NotKeptError: the layer cannot be taken apart; the message says why.
    """
    recording = Recording(prediction.model, prediction.processor, keep=["maps", "contributions"])
    with recording, torch.no_grad():
        prediction.model(**_with_two_rows(prediction.inputs))
    stack = looking(replace(prediction, trace=recording.trace))
    return mean_row(layer_norms(stack.maps[-1])["summed"], prediction.rows)


def _with_two_rows(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, a decoder's single token twice: one row alone cannot be told from the residual stream, and what a
    decoder reads later changes no row before."""
    read = inputs.get("decoder_input_ids")
    single = isinstance(read, torch.Tensor) and read.shape[1] == 1 and "decoder_attention_mask" not in inputs
    return {**inputs, "decoder_input_ids": read.repeat(1, 2)} if single and read is not None else {**inputs}


OWN: Final[Mapping[str, Scores]] = {"attention": attention_of, "rollout": rollout_of, "norms": norms_of}
DEFAULT: Final = ("attention", "rollout", "norms", "relevance", "integrated_gradients")


def looking(prediction: Prediction) -> AttentionStack:
    """The stack whose rows look at the text: cross-attention, or the model's own attention to itself.

    Raises:
        NotKeptError: its attention could not be captured.
        ShapeError: no row of it looks at the text's tokens.
    """
    trace = _trace(prediction)
    if prediction.two_sided:
        return trace.stack("cross")
    length = len(prediction.ids)
    fitting = [
        stack
        for stack in trace.stacks.values()
        if stack.maps[-1].kind == "self" and (len(stack.queries), len(stack.keys)) == (length, length)
    ]
    if not fitting:
        raise ShapeError(
            Text(
                f"no stack of this model looks from the {length} tokens to themselves: {listed(trace.stacks)}",
                f"此模型没有哪个堆栈从这 {length} 个词元看向它们自身：{listed(trace.stacks, '无')}",
            )
        )
    return fitting[-1]


@with_gradients
def read_off(prediction: Prediction) -> Prediction:
    """The same prediction, with the rows at which it is read off as its gradient tells, where there is one."""
    try:
        rows = _subject(prediction).rows.tolist()
        every = 1 < len(rows) == len(looking(prediction).queries)
        return replace(prediction, rows=() if every else tuple(rows))
    except (AttnvizError, NotImplementedError):
        return prediction


@with_gradients
def rankings_of(
    prediction: Prediction,
    methods: Sequence[str] | None = None,
    given: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> tuple[dict[str, torch.Tensor], dict[str, Text]]:
    """The scores ``[key]`` of each method and of each ranking of the user's own; and why a method has none.

    Raises:
        UnknownNameError: a method that is not there.
        ShapeError: a ranking of the user's own that does not have a score for each token.
        ArgumentError: one that bears a method's name, or no ranking at all.
    """
    wanted = DEFAULT if methods is None else tuple(dict.fromkeys(methods))
    unknown = [name for name in wanted if name not in OWN and name not in METHODS]
    if unknown:
        raise UnknownNameError(
            Text(
                f"unknown method {listed(unknown)}; known: {listed(dict.fromkeys([*OWN, *METHODS]))}",
                f"未知方法 {listed(unknown, '无')}；可用：{listed(dict.fromkeys([*OWN, *METHODS]))}",
            )
        )
    scores, missing = {}, {}
    subjects: list[Subject] = []  # one for all methods that need gradients
    for name in wanted:
        try:
            scores[name] = _scores(name, prediction, subjects, seed).detach().double().cpu()
        except (AttnvizError, NotImplementedError, ValueError) as problem:  # of the model's own, too
            scores[name] = torch.full((len(prediction.ids),), torch.nan, dtype=torch.float64)
            why = told(problem)
            missing[name] = Text(f"it could not be computed ({why.en})", f"无法计算（{why.zh}）")
    scores |= {name: _checked(name, value, prediction, wanted) for name, value in (given or {}).items()}
    if not scores:
        raise ArgumentError(
            Text(
                "there is no ranking to test; name methods, or give rankings={'mine': scores}",
                "没有可检验的排序；请指明方法，或给出 rankings={'mine': scores}",
            )
        )
    return scores, missing


def _scores(name: str, prediction: Prediction, subjects: list[Subject], seed: int) -> torch.Tensor:
    if name in OWN:
        return OWN[name](prediction)
    if not subjects:
        subjects.append(_subject(prediction, seed))
    return METHODS[name].function(subjects[0]).values


def _subject(prediction: Prediction, seed: int = 0) -> Subject:
    return Subject(
        prediction.model,
        prediction.inputs,
        target=prediction.target,
        processor=prediction.processor,
        settings=Settings(seed=seed),
    )


def _checked(name: str, value: Any, prediction: Prediction, taken: Sequence[str]) -> torch.Tensor:
    if name in taken:
        raise ArgumentError(
            Text(
                f"the ranking {name!r} bears the name of a method; call it otherwise",
                f"排序 {name!r} 与某个方法同名；请改名",
            )
        )
    scores = torch.as_tensor(value).detach().double().cpu()
    if scores.shape != prediction.ids.shape:
        raise ShapeError(
            Text(
                f"the ranking {name!r} needs a score for each of the {len(prediction.ids)} tokens (special ones "
                f"included, they are not ranked), got shape {tuple(scores.shape)}",
                f"排序 {name!r} 应为 {len(prediction.ids)} 个词元各给一个分数（包括特殊词元，它们不参与排名），"
                f"得到的形状为 {tuple(scores.shape)}",
            )
        )
    return scores


def _trace(prediction: Prediction) -> Trace:
    if prediction.trace is None:
        why = told(prediction.unseen)
        raise NotKeptError(Text(f"its attention could not be captured: {why.en}", f"无法捕获它的注意力：{why.zh}"))
    return prediction.trace
