"""The attention of one layer for one sequence: its weights, or what was made of them, with labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import torch

from hf_attnviz.axes import BATCH, HEAD, KEY, QUERY
from hf_attnviz.decomposition import Decomposition
from hf_attnviz.errors import NotKeptError, ShapeError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text, told
from hf_attnviz.packed import PackedRows
from hf_attnviz.reduced import Reduced

LAYOUT: Final = (HEAD, QUERY, KEY)


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The attention of one layer for one sequence.

    Attributes:
        kept_weights: ``[head, query, key]``; rows over keys, as they ran; packed, or None where ``keep`` kept none.
            :attr:`weights` are these, unpacked.
        queries, keys: labels of the rows and of the columns.
        stack: where the block stands: ``"encoder"``, ``"decoder"``, ``"vision"`` …
        layer: the block's index in its stack.
        index: which map of this module it is (a module may compute several).
        kind: ``"self"`` or ``"cross"``.
        module: the attention module's name in ``model.named_modules()``.
        steps: the decoding step in which each row came (0 for a plain pass and for the prompt).
        positions: the key position at which each row stands; None for cross-attention.
        produced: the token that each row put out, None for a prompt's rows before its last; None for plain passes.
        error: the proof: the largest deviation from what the kernel computed (see :mod:`hf_attnviz.capturing`); NaN for
            a map that is not proved, but stated by a user.
        query_vectors: ``[head, query, size]``, times the model's scaling; None unless ``keep`` has ``Vectors``.
        key_vectors: ``[key_value_head, key, size]``: a query times its group's key is the score before mask and bias.
        layout: the axes of ``weights``; anything but head, query, key is the model's own (blocks, windows), and
            such a map is neither stacked nor drawn.
        gradient: d(scalar)/d(weights), shaped like ``weights``; None unless captured with ``gradients=True`` and read
            after ``backward()``.
        decomposition: of what the layer's output is made; None unless ``keep`` has ``"contributions"``.
        undecomposed: why that is not known, though it was asked for.
        reduced: what was made of the weights while they were there, by the reducer's name.
        looks_back: whether a map that keeps no weights is one in which no row looks at a later position; None where
            that is not known. Weights that are kept speak for themselves.
        head_count: of a map that keeps no weights: how many heads it has; 0 where what was reduced tells.
    """

    kept_weights: torch.Tensor | PackedRows | None
    queries: Labels
    keys: Labels
    stack: str
    layer: int
    index: int = 0
    kind: str = "self"
    module: str = ""
    steps: tuple[int, ...] = ()
    positions: tuple[int, ...] | None = None
    produced: tuple[str | None, ...] | None = None
    error: float = float("nan")
    query_vectors: torch.Tensor | None = None
    key_vectors: torch.Tensor | None = None
    layout: tuple[str, ...] = LAYOUT
    gradient: torch.Tensor | None = None
    decomposition: Decomposition | None = None
    undecomposed: Text | str = ""
    reduced: Mapping[str, Reduced] = field(default_factory=dict)
    looks_back: bool | None = None
    head_count: int = 0

    def __post_init__(self) -> None:
        expected = (len(self.queries), len(self.keys))
        if self.kept_weights is None and not self.reduced:
            raise ShapeError(
                Text(
                    f"{self.module}: expected weights, or something that was made of them; got neither",
                    f"{self.module}：应有权重，或由权重得出的东西；两者都没有",
                )
            )
        if len(self.shape) != len(self.layout) or tuple(self.shape[-2:]) != expected or self.heads < 1:
            raise ShapeError(
                Text(
                    f"{self.module}: expected weights [{', '.join(self.layout)}] with {expected[0]} queries and "
                    f"{expected[1]} keys, got {tuple(self.shape)}",
                    f"{self.module}：权重应为 [{', '.join(self.layout)}]，含 {expected[0]} 个查询和 {expected[1]} "
                    f"个键，得到的是 {tuple(self.shape)}",
                )
            )
        if self.gradient is not None and self.gradient.shape != self.shape:
            raise ShapeError(
                Text(
                    f"{self.module}: expected a gradient shaped like the weights, {tuple(self.shape)}, got "
                    f"{tuple(self.gradient.shape)}",
                    f"{self.module}：梯度的形状应与权重相同，即 {tuple(self.shape)}，得到的是 "
                    f"{tuple(self.gradient.shape)}",
                )
            )
        if self.decomposition is not None:
            self.decomposition.check(self.module, self.shape)
        for name, one in self.reduced.items():
            _check_reduced(f"{self.module}: {name}", one, dict(zip(self.layout, self.shape, strict=True)))

    @property
    def weights(self) -> torch.Tensor:
        """``[head, query, key]``; packed ones are unpacked anew each time.

        Raises:
            NotKeptError: only what was made of them was kept.
        """
        kept = self._kept()
        return kept.unpacked() if isinstance(kept, PackedRows) else kept

    @property
    def has_weights(self) -> bool:
        """Whether the weights were kept, packed or not."""
        return self.kept_weights is not None

    @property
    def statistics(self) -> Reduced:
        """What ``keep="statistics"`` kept: ``entropy``, ``distance``, ``sink`` ``[head, query]``; ``received``
        ``[head, key]``.

        Raises:
            NotKeptError: nothing of the kind.
        """
        if "statistics" not in self.reduced:
            raise NotKeptError(
                Text(
                    f"no statistics of {self.module or self.stack} were kept: capture with "
                    + ('keep="statistics", or use head_statistics(trace)' if self.has_weights else 'keep="statistics"'),
                    f"没有保留 {self.module or self.stack} 的统计量：请以 "
                    + (
                        'keep="statistics" 捕获，或使用 head_statistics(trace)'
                        if self.has_weights
                        else 'keep="statistics" 捕获'
                    ),
                )
            )
        return self.reduced["statistics"]

    @property
    def shape(self) -> torch.Size:
        """That of the weights, whether they were kept or not."""
        if self.kept_weights is not None:
            return self.kept_weights.shape
        told = {axis: size for one in self.reduced.values() for axis, size in one.sizes.items()}
        known = {HEAD: self.head_count or told.get(HEAD, 0), QUERY: len(self.queries), KEY: len(self.keys)}
        return torch.Size((told | known).get(axis, 0) for axis in self.layout)

    @property
    def heads(self) -> int:
        """How many heads the map has."""
        return int(self.shape[0])

    def plain(self) -> "AttentionMap":
        """This map, when it keeps weights ``[head, query, key]``.

        Raises:
            NotKeptError: it keeps no weights.
            ShapeError: it keeps a layout of the model's own (blocks, windows).
        """
        if self.layout != LAYOUT:
            raise ShapeError(
                Text(
                    f"{self.module or self.stack} attends in a layout of its own, [{', '.join(self.layout)}] of "
                    f"{tuple(self.shape)}; such a map cannot be stacked or drawn: look at its .weights",
                    f"{self.module or self.stack} 的注意力有自己的布局：[{', '.join(self.layout)}]，形状 "
                    f"{tuple(self.shape)}；这样的图无法堆叠，也无法绘制：请直接查看它的 .weights",
                )
            )
        self._kept()
        return self

    def _kept(self) -> torch.Tensor | PackedRows:
        if self.kept_weights is None:
            raise NotKeptError(
                Text(
                    f"the weights of {self.module or self.stack} were not kept, only {listed(self.reduced)}: capture "
                    "with "
                    'keep="maps"',
                    f"没有保留 {self.module or self.stack} 的权重，只有 {listed(self.reduced, '无')}：请以 "
                    'keep="maps" 捕获',
                )
            )
        return self.kept_weights

    def taken_apart(self) -> Decomposition:
        """Of what the layer's output is made.

        Raises:
            NotKeptError: that was not asked for, or could not be proved; the message says which.
        """
        if self.decomposition is not None:
            return self.decomposition
        if self.undecomposed:
            why = told(self.undecomposed)
            raise NotKeptError(
                Text(
                    f"what {self.module} adds to the stream could not be taken apart: {why.en}",
                    f"{self.module} 加到残差流上的内容无法分解：{why.zh}",
                )
            )
        raise NotKeptError(
            Text(
                f"this needs to know of what the output of {self.module or self.stack} is made; capture with "
                'keep=["maps", "contributions"]',
                f'这需要知道 {self.module or self.stack} 的输出由什么组成；请以 keep=["maps", "contributions"] 捕获',
            )
        )

    @property
    def whole(self) -> bool:
        """True for a self-attention map that holds the row of every position."""
        return self.positions == tuple(range(len(self.keys)))

    @cached_property
    def causal(self) -> bool:
        """True when no row of this self-attention map looks at a later position."""
        if self.kind != "self" or self.positions is None:
            return False
        if self.kept_weights is None:
            return bool(self.looks_back)
        return not _looks_ahead(self.kept_weights, self.positions)

    @property
    def row_texts(self) -> tuple[str, ...]:
        """What a picture writes beside each row: the token read there; for cross-attention of a generation ``→`` and
        the token put out, since that is what the row was looking for."""
        written = self.written
        return self.queries.texts if written is None else tuple(f"→ {text}" for text in written)

    @property
    def written(self) -> tuple[str, ...] | None:
        """The tokens put out, where rows are known by them and not by what they read; else None."""
        if self.kind != "cross" or self.produced is None:
            return None
        told = tuple(text for text in self.produced if text is not None)
        return told if len(told) == len(self.produced) else None

    @property
    def group(self) -> str:
        """The name of the stack of a trace that this map belongs to: ``"cross"`` for cross-attention."""
        return "cross" if self.kind == "cross" else self.stack


def _looks_ahead(weights: torch.Tensor | PackedRows, positions: Sequence[int]) -> bool:
    """Whether a row gives weight to a key after the one on which it stands."""
    stand = torch.tensor(positions)[:, None]
    for row, key, tile in weights.tiles() if isinstance(weights, PackedRows) else [(0, 0, weights)]:
        later = torch.arange(key, key + tile.shape[-1]) > stand[row : row + tile.shape[-2]]
        if bool(tile.cpu()[:, later].any()):
            return True
    return False


def _check_reduced(name: str, one: Reduced, sizes: Mapping[str, int]) -> None:
    """Raise unless what was reduced is of one sequence, and of these heads, queries and keys."""
    wrong = [axis for axis, size in one.sizes.items() if size != sizes.get(axis, size) or axis == BATCH]
    if wrong:
        raise ShapeError(
            Text(
                f"{name}: expected sizes {dict(sizes)} without a batch, got {one!r}",
                f"{name}：应有各轴长度 {dict(sizes)}，且不含 batch 轴，得到的是 {one!r}",
            )
        )
    for value, axis in one.holds.items():
        places = one[value]
        if axis in sizes and places.numel() and not -1 <= int(places.min()) <= int(places.max()) < sizes[axis]:
            raise ShapeError(
                Text(
                    f"{name}: expected {value} to hold places of {sizes[axis]} {axis}s, or -1, got others",
                    f"{name}：{value} 中应为 {sizes[axis]} 个 {axis} 的位置或 -1，得到了其他数",
                )
            )
