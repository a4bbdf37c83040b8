"""ALTI, labelled: how much of each key is in each query's vector, and what remains of it at the input."""

from typing import Final

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.caveats import UNTESTED
from hf_attnviz.analysis.norms import layer_axis, pair_axes, proof_of, rows_of
from hf_attnviz.analysis.pooling import stack_of
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import NotKeptError
from hf_attnviz.functional.alti import contributions_of
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.trace import Trace

_SOURCE: Final = "Ferrando et al. 2022"
_NO_MLP: Final = Text(
    "Each layer's MLP is taken to leave the shares as they are; biases belong to no key.",
    "视各层 MLP 不改变这些占比；偏置不属于任何键。",
)
_NO_PROOF: Final = Text(
    "A share says how near a part is to the whole, not whether the answer depends on it.",
    "占比说明某部分与整体有多接近，而不说明回答是否依赖于它。",
)
_UNDEFINED: Final = Text(
    "NaN: in that row no key brings us nearer to the whole.", "NaN：该行中没有任何键使其更接近整体。"
)


def alti(trace: Trace, *, stack: str | None = None, rolled: bool = True) -> Result:
    """How much of each key is in each query's vector, by layer: ``[layer, query, key]``.

    Beside it stands, when rolled out, as ``baseline``, what it would be if every key that a layer's mask lets a row see
    contributed alike.

    Args:
        trace: captured with ``keep=["maps", "contributions"]``.
        stack: which stack; default: the only one.
        rolled: follow the contributions through the layers down to the input; False: each layer by itself. Rows of
            cross-attention lack the residual's share to one, and are not rolled out.

    Raises:
        NotKeptError: the trace does not tell of what a layer's output is made, or (rolled) is cross-attention.
    """
    chosen = stack_of(trace, stack)
    if rolled and chosen.maps[0].kind == "cross":
        raise NotKeptError(
            Text(
                "cross-attention has no layers to follow down to its keys; ask for each: rolled=False",
                "交叉注意力没有可逐层追溯至键的层；请各层单独求：rolled=False",
            )
        )
    values = torch.stack([_of_layer(m) for m in (chosen.whole() if rolled else chosen)])
    notes = [_apart(values)] if chosen.maps[0].kind == "cross" else []
    notes += [_UNDEFINED] if bool(values.isnan().any()) else []
    about = {"stack": chosen.name, "rolled": rolled} | proof_of(chosen)
    baseline = None
    if rolled:
        values = functional.alti_rollout(values[:, None])[:, 0]
        even = functional.uniform_like(chosen.stacked()[:, None])[:, :, 0]
        baseline = functional.alti_rollout(even)[:, 0]
        drift = float(baseline[-1, -1, 0])
        about |= {"uniform_first_token": drift}
        notes.append(_drift(drift, float(values[-1, -1, 0])))
    axes = (layer_axis(chosen), *pair_axes(chosen))
    method = "ALTI rollout" if rolled else "ALTI contributions"
    unit = "share of the input" if rolled else "share"
    return Result(values, axes, method, about, _SOURCE, unit, (*notes, _NO_MLP, _NO_PROOF, UNTESTED), baseline=baseline)


def _of_layer(m: AttentionMap) -> torch.Tensor:
    parts = m.taken_apart()
    return contributions_of(m.plain().weights, parts, positions=rows_of(m))


def _drift(even: float, here: float) -> Text:
    return Text(
        f"If every key that may be seen contributed alike, the last row would hold {even:.2f} of the first token at "
        f"this depth; here it holds {here:.2f}.",
        f"若可见的各键贡献相同，到这一深度最后一行会含第一个词元的 {even:.2f}；这里是 {here:.2f}。",
    )


def _apart(values: torch.Tensor) -> Text:
    share = float(1 - values.sum(-1).nanmean())
    return Text(
        f"What a row lacks to one is the share of the query's own residual: {share:.0%} on average.",
        f"每行与一的差额是查询自身残差的占比：平均 {share:.0%}。",
    )
