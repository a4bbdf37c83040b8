"""What each key of one attention layer adds to each query's vector: the pieces of which a layer's output is the sum.

With attention weights a, value vectors v, the output projection W and its constant c, the layer adds
Σ_head Σ_key a[head, query, key] · v[head, key] · W[head] + c to the residual stream. A norm on the way is linear once
its statistics are held fast: each part is centred and scaled as the whole was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, Final

import torch

from hf_attnviz.errors import ShapeError
from hf_attnviz.language import Text
from hf_attnviz.storage import typed

_TENSORS: Final = ("values", "projection", "constant", "residual")
_NORM_TENSORS: Final = ("weight", "bias", "scale")


@dataclass(frozen=True, eq=False)
class HeldNorm:
    """A normalisation with its statistics held fast, so that it acts on each part by itself.

    Attributes:
        weight, bias: ``[width]``; the bias belongs to no key.
        scale: ``[query]``: what each row was divided by.
        centred: whether a vector's own mean is subtracted (LayerNorm), or not (RMSNorm).
    """

    weight: torch.Tensor
    bias: torch.Tensor
    scale: torch.Tensor
    centred: bool

    def direction(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors ``[..., width]`` before they are divided by the scale of the query to which they are added."""
        return (vectors - vectors.mean(-1, keepdim=True) if self.centred else vectors) * self.weight

    def part(self, vectors: torch.Tensor) -> torch.Tensor:
        """What becomes of parts ``[query, width]`` of the rows: without the bias."""
        return self.direction(vectors) / self.scale[:, None]

    def whole(self, vectors: torch.Tensor) -> torch.Tensor:
        """What becomes of the rows ``[query, width]`` themselves."""
        return self.part(vectors) + self.bias


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Of what the output of one attention layer is made, for one sequence.

    Attributes:
        values: ``[key_value_head, key, size]``.
        projection: ``[head, size, width]``, as the module really applied it.
        constant: ``[width]``: what is added whatever was attended to; it belongs to no key.
        residual: ``[query, width]``: the stream to which the sum is added; None where it is added to nothing.
        inner: the norm that the sum goes through before it is added to the residual (Gemma 2, OLMo 2), or None.
        outer: the norm that the stream goes through right after (post-LN: BERT), or None (pre-LN: GPT-2, Llama).
        form: how the block is built: ``"post-norm"``, ``"pre-norm"``, ``"inner norm"``, ``"parallel"``, ``"no norm"``.
        error: the proof: the largest deviation of the sum of all parts from what the module really gave.
        bound: what it may be at most.
    """

    values: torch.Tensor
    projection: torch.Tensor
    constant: torch.Tensor
    residual: torch.Tensor | None = None
    inner: HeldNorm | None = None
    outer: HeldNorm | None = None
    form: str = ""
    error: float = float("nan")
    bound: float = float("nan")

    def check(self, module: str, weights: torch.Size) -> None:
        """Raise unless this belongs to weights ``[head, query, key]``.

        Raises:
            ShapeError: sizes do not fit.
        """
        heads, queries, keys = weights if len(weights) == 3 else (0, 0, 0)
        size, width = self.values.shape[-1], self.constant.shape[-1]
        shared = len(self.values)
        fits = heads and shared and heads % shared == 0 and tuple(self.values.shape[1:]) == (keys, size)
        fits = fits and tuple(self.projection.shape) == (heads, size, width)
        fits = fits and (self.residual is None or tuple(self.residual.shape) == (queries, width))
        for norm in (self.inner, self.outer):
            fits = fits and (norm is None or (norm.weight.shape, len(norm.scale)) == (self.constant.shape, queries))
        if not fits:
            raise ShapeError(
                Text(
                    f"{module}: the decomposition of weights [head, query, key] of {tuple(weights)} does not fit them: "
                    f"values {tuple(self.values.shape)}, projection {tuple(self.projection.shape)}",
                    f"{module}：分解与权重 [head, query, key] {tuple(weights)} 不相配："
                    f"值 {tuple(self.values.shape)}，投影 {tuple(self.projection.shape)}",
                )
            )

    def to(self, dtype: torch.dtype) -> "Decomposition":
        """The same in another precision."""

        def norm(held: HeldNorm | None) -> HeldNorm | None:
            if held is None:
                return None
            return HeldNorm(held.weight.to(dtype), held.bias.to(dtype), held.scale.to(dtype), held.centred)

        return replace(
            self,
            values=self.values.to(dtype),
            projection=self.projection.to(dtype),
            constant=self.constant.to(dtype),
            residual=None if self.residual is None else self.residual.to(dtype),
            inner=norm(self.inner),
            outer=norm(self.outer),
        )

    def mixed(self, attention: torch.Tensor) -> torch.Tensor:
        """All parts together ``[query, width]`` of attention ``[head, query, key]``, without constant and residual."""
        group = attention.shape[0] // self.values.shape[0]
        heads = attention @ self.values.repeat_interleave(group, dim=0)
        return torch.einsum("hqs,hsw->qw", heads, self.projection)

    def added(self, mixed: torch.Tensor) -> torch.Tensor:
        """What is added to the residual ``[query, width]``: the constant with it, and through the inner norm."""
        whole = mixed + self.constant
        return whole if self.inner is None else self.inner.whole(whole)

    def output(self, attention: torch.Tensor) -> torch.Tensor:
        """What the layer gives ``[query, width]``: everything added up, and through the outer norm."""
        stream = self.added(self.mixed(attention))
        stream = stream if self.residual is None else stream + self.residual
        return stream if self.outer is None else self.outer.whole(stream)


def description_of(one: Decomposition) -> dict[str, Any]:
    """What a file says of a decomposition, beside its tensors."""
    norms = {"inner": one.inner, "outer": one.outer}
    about: dict[str, Any] = {name: None if norm is None else norm.centred for name, norm in norms.items()}
    return about | {"form": one.form, "error": str(one.error), "bound": str(one.bound)}  # JSON has no NaN


def tensors_of(one: Decomposition, prefix: str) -> dict[str, torch.Tensor | None]:
    """The tensors of a decomposition by name, for a file."""
    found = {f"{prefix}.{name}": getattr(one, name) for name in _TENSORS}
    for which, norm in (("inner", one.inner), ("outer", one.outer)):
        if norm is not None:
            found |= {f"{prefix}.{which}.{name}": getattr(norm, name) for name in _NORM_TENSORS}
    return found


def restored(about: Mapping[str, Any] | None, tensors: Mapping[str, torch.Tensor], prefix: str) -> Decomposition | None:
    """What :func:`description_of` and :func:`tensors_of` told."""
    if about is None:
        return None

    def norm(which: str) -> HeldNorm | None:
        centred = typed(about[which], bool, NoneType)
        if centred is None:
            return None
        weight, bias, scale = (tensors[f"{prefix}.{which}.{name}"] for name in _NORM_TENSORS)
        return HeldNorm(weight, bias, scale, centred)

    values, projection, constant = (tensors[f"{prefix}.{name}"] for name in _TENSORS[:3])
    error, bound = (float(typed(about[name], str)) for name in ("error", "bound"))
    residual = tensors.get(f"{prefix}.residual")
    form = typed(about["form"], str)
    return Decomposition(values, projection, constant, residual, norm("inner"), norm("outer"), form, error, bound)
