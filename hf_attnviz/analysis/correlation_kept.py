"""Which heads look at the same things, of traces that keep sums or sketches of their products and not the weights."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hf_attnviz import functional
from hf_attnviz.analysis.pooling import UNLIKE, Labelled, causal
from hf_attnviz.errors import NotKeptError, ShapeError
from hf_attnviz.language import Text
from hf_attnviz.reduced import Reduced
from hf_attnviz.trace import AttentionStack

METHODS = ("pearson", "cosine")
_WITHIN = Text(
    'Heads of different layers are not compared (NaN): what was kept is of one layer each. keep="sketch" keeps what '
    "compares all layers, with an interval.",
    '不同层的头没有比较（NaN）：所保留的只属于各层自身。keep="sketch" 保留可比较所有层的内容，并给出区间。',
)
_EXACT = Text(
    "Within a layer the numbers are exact, and the interval is the number itself.",
    "同一层内的数值是精确的，区间即数值本身。",
)


def _estimated(size: Sequence[int]) -> Text:
    return Text(
        f"Estimated from sketches of {size[0]} × {size[1]} random signs. The interval of 95 % is that of the estimate, "
        "for each pair of heads by itself, and none over texts.",
        f"由 {size[0]} × {size[1]} 的随机符号草图估计。95% 区间是该估计的区间，对每一对头各自成立，而非对文本而言。",
    )


@dataclass(frozen=True, eq=False)
class Sums(Labelled):
    """What the same stack of several traces keeps of products of heads, all heads of all layers in a line.

    Attributes:
        centred: whether each row is to be centred by an even share.
    """

    stacks: tuple[AttentionStack, ...]
    causal: bool
    centred: bool

    @property
    def what(self) -> dict[str, object]:
        """What was analysed, for a result's parameters."""
        kept = [name for name in ("gram", "sketch") if _have(self.stacks, name)]
        return {**super().what, "made_of": tuple(kept)}

    @cached_property
    def _name(self) -> str:
        return "gram" if _have(self.stacks, "gram") else "sketch"

    def _of(self, layer: int, stack: AttentionStack, name: str | None = None) -> Reduced:
        return stack.maps[layer].reduced[name or self._name]

    def _total(self, layer: int, value: str) -> Tensor:
        return sum((self._of(layer, stack)[value].double() for stack in self.stacks), torch.zeros(()).double())

    def _sums(self, layer: int) -> Tensor:
        """The sum of what is to be correlated ``[head]``."""
        mass = self._total(layer, "mass")
        return mass - self._total(layer, "rows") if self.centred else mass

    def _pairs(self, layer: int) -> Tensor:
        return self._total(layer, "pairs_causal" if self.causal else "pairs")

    @property
    def parked(self) -> Text:
        """How much weight lies on the first key, mean over rows and heads."""
        shares = [self._total(n, "sink") / self._total(n, "rows") for n in range(len(self.stacks[0]))]
        share = float(torch.cat(shares).mean())
        return Text(
            f"{share:.0%} of all weight lies on the first token (mean over heads): read what stands here with that in "
            "mind.",
            f"全部权重的 {share:.0%} 落在第一个词元上（各头平均）：看这些数值时请记住这一点。",
        )

    def likeness(self, method: str) -> tuple[Tensor, Tensor | None, Tensor | None, list[Text]]:
        """``[head, other_head]``, with the lower and upper end of the interval where there is one, and what to say."""
        layers = range(len(self.stacks[0]))
        exact = [self._exact(n, method) for n in layers] if self._name == "gram" else []
        if not _have(self.stacks, "sketch"):
            count = sum(map(len, exact))
            values = torch.full((count, count), torch.nan)
            for part, one in zip(_parts(exact), exact, strict=True):
                values[part, part] = one.float()
            return values, None, None, [_WITHIN] * (len(exact) > 1)
        sketches, scale = zip(*(self._sketches(n, method) for n in layers), strict=True)
        found = functional.correlation_of_sketches(torch.cat(sketches), scale=torch.cat(scale))
        for part, one in zip(_parts(exact), exact, strict=True):
            for table in found:
                table[part, part] = one
        value, low, high = (one.float() for one in found)
        return value, low, high, [_estimated(sketches[0].shape[1:]), *([_EXACT] if exact else [])]

    def _exact(self, layer: int, method: str) -> Tensor:
        plain = self._total(layer, "products")
        name = ("products_centred_causal" if self.causal else "products_centred") if self.centred else "products"
        sums = self._sums(layer) * (method == "pearson")
        products = self._total(layer, name)
        return functional.correlation_of_products(products, sums=sums, pairs=self._pairs(layer), scale=plain.diagonal())

    def _sketches(self, layer: int, method: str) -> tuple[Tensor, Tensor]:
        """The sketches of a layer's heads, centred, and their mean squares before that.

        Those of several texts are added, each with signs of its own for all its rows and columns: so what two texts
        have at the same places is not taken for the same pair.
        """
        ends = "_causal" if self.causal else ""
        means = self._sums(layer) / self._pairs(layer) * (method == "pearson")
        total, before = torch.zeros(()).double(), torch.zeros(()).double()
        for n, stack in enumerate(self.stacks):
            kept = self._of(layer, stack, "sketch")
            plain = kept["sketch"].double()
            apart = plain - means[:, None, None] * kept["ones" + ends] - kept["even" + ends] * self.centred
            rows, columns = (_signs(size, 2 * n + side) for side, size in enumerate(plain.shape[1:]))
            total = total + apart * rows[:, None] * columns
            before = before + plain.square().mean((1, 2))
        return total, before


def sums_of(stacks: Sequence[AttentionStack], *, method: str, centred: bool) -> Sums | None:
    """What these stacks keep of products of heads; None where they keep all weights, or nothing of the kind.

    Raises:
        NotKeptError: the method needs the weights themselves.
        ShapeError: traces whose layers, heads or sketches differ.
    """
    if all(m.has_weights for stack in stacks for m in stack) or not any(_have(stacks, n) for n in ("gram", "sketch")):
        return None
    if method not in METHODS:
        raise NotKeptError(
            Text(
                'only pearson and cosine can be told without the weights; capture with keep="maps" for '
                f"method={method!r}",
                f'没有权重时只能得知 pearson 与 cosine；method={method!r} 请以 keep="maps" 捕获',
            )
        )
    if len({tuple((m.layer, m.heads) for m in stack) for stack in stacks}) > 1:
        raise ShapeError(UNLIKE)
    if _have(stacks, "sketch") and len({m.reduced["sketch"]["ones"].shape for stack in stacks for m in stack}) > 1:
        raise ShapeError(
            Text(
                "these traces keep sketches of different sizes; capture them with the same keep",
                "这些 trace 所留 sketch 的大小不同；请以相同的 keep 捕获",
            )
        )
    return Sums(tuple(stacks), causal(stacks), centred)


def _have(stacks: Sequence[AttentionStack], name: str) -> bool:
    return all(name in m.reduced for stack in stacks for m in stack)


def _parts(tables: Sequence[Tensor]) -> list[slice]:
    """Where tables stand that are put corner to corner."""
    ends = [0, *itertools.accumulate(map(len, tables))]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _signs(count: int, seed: int) -> Tensor:
    return torch.randint(0, 2, (count,), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
