"""What the prediction loses with the head that shows the evidence: the counter-check to any picture of attention.

The head shown is the one of the last layer that puts most weight on the token which raw attention ranks first. It is
silenced (its output is zero), then all heads of its layer are, then heads drawn at random from the same stack.
"""

from collections.abc import Sequence
from typing import Final

import torch

from hf_attnviz import progress
from hf_attnviz.axes import STATISTIC, head_name
from hf_attnviz.capturing.intervening import ablate
from hf_attnviz.explaining.prediction import Prediction
from hf_attnviz.explaining.rankings import attention_of, looking
from hf_attnviz.explaining.rows import mean_row
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result

_DRAWN: Final = 20
_RUNNING: Final = Text("running the text without heads", "正在关闭注意力头后重新运行")
_NOTE: Final = Text(
    "Silenced means: its output is zero. What a head shows and what depends on it are two things: other heads may do "
    "the same work, and a head may matter by what it carries to other positions.",
    "“关闭”指令该头的输出为零。头所显示的与依赖于它的是两回事：其他头可能做着同样的工作，它也可能因传给其他位置的内容而重要。",
)


def heads_effect(prediction: Prediction, positions: Sequence[int], seed: int) -> Result:
    """By how much the probability moves without heads ``[statistic]``: ``top_head``, ``layer``, ``random_mean`` and
    ``random_deviation`` (over at most 20 other heads of the stack), ``random_share`` (of these heads, how many move it
    less than the one shown).

    Raises:
        AttnvizError: the attention of this model cannot be seen, or cannot be changed.
    """
    stack = looking(prediction)
    last = stack.maps[-1].plain()
    first = list(positions)[int(attention_of(prediction)[list(positions)].argmax())]
    shown = (
        last.layer,
        int(torch.stack([mean_row(head, prediction.rows) for head in last.weights])[:, first].argmax()),
    )
    others = [(m.layer, head) for m in stack.maps for head in range(m.heads) if (m.layer, head) != shown]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:_DRAWN]
    groups = [[shown], [(last.layer, head) for head in range(last.heads)], *([others[n]] for n in drawn.tolist())]
    lost = [_without(prediction, stack.name, heads) for heads in progress.shown(groups, len(groups), _RUNNING)]
    (top, layer), random = lost[:2], torch.tensor(lost[2:], dtype=torch.float64)
    values = {
        "top_head": top,
        "layer": layer,
        "random_mean": float(random.mean()),
        "random_deviation": float(random.std()) if len(random) > 1 else float("nan"),
        "random_share": float((random.abs() < abs(top)).double().mean()),
    }
    return Result(
        torch.tensor(list(values.values()), dtype=torch.float64),
        (Axis(STATISTIC, tuple(values)),),
        "ablation of the heads shown",
        {"stack": stack.name, "head": head_name(*shown), "layer": last.layer, "random": len(random), "seed": seed},
        "Michel et al. 2019, section 3",
        "probability",
        (_NOTE,),
    )


def _without(prediction: Prediction, stack: str, heads: Sequence[tuple[int, int]]) -> float:
    """By how much the probability moves without these heads."""
    silenced = [(stack, layer, head) for layer, head in heads]
    with ablate(prediction.model, heads=silenced), torch.no_grad():
        outputs = prediction.model(**prediction.inputs)
    return float(prediction.target.probability(outputs)[0]) - prediction.probability
