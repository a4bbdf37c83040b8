"""What reducers carry from call to call of a run: up the layers of a stack, and from one pass to the next.

Beams change places from step to step: the rows of what was carried are put in the order of the new pass, found by the
tokens that each had read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hf_attnviz.capturing.address import Address
from hf_attnviz.capturing.families import FOLDED
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text
from hf_attnviz.reducing.carried import CARRYING, Carriage, Carried, Luggage
from hf_attnviz.reducing.ran import Places
from hf_attnviz.reducing.reducer import Reducer

if TYPE_CHECKING:
    from hf_attnviz.capturing.runs import Pass, Run


@dataclass(frozen=True, eq=False)
class Station:
    """Where in a run a call stands.

    Attributes:
        run, one: the run and its pass.
        address, kind: of the module, and the name of its class.
        layer, index, across: as an ``AttentionCall`` says them; whether it is cross-attention.
        alone: whether it is no turn of a loop, and the layer is that of a known block.
        tokens: whether its rows are the positions of the sequence that the pass read.
    """

    run: "Run"
    one: "Pass"
    address: Address
    kind: str
    layer: int
    index: int
    across: bool
    alone: bool
    tokens: bool

    @property
    def module(self) -> str:
        """The name of the module."""
        return self.address.module

    @property
    def chain(self) -> tuple[str, bool]:
        """In which sequence of layers it stands: the second half of guidance is one of its own."""
        return self.address.stack, self.run.is_aside(self.one)

    def carriage(self, reducers: Sequence[Reducer[Any]], places: Places) -> Carriage:
        """What comes to the call.

        Raises:
            CaptureError: what goes on from the layer below, or from the pass before, cannot be told.
        """
        carrying = [one for one in reducers if one.needs & CARRYING]
        if not carrying:
            return Carriage()
        streams, climbing = self.run.streams, any("below" in one.needs for one in carrying)
        below = streams.below(self, places) if climbing else {}
        before = streams.before(self, places)
        return Carriage({one.name: Carried(below.get(one.name), before.get(one.name)) for one in carrying})

    def leave(self, carriage: Carriage, places: Places) -> None:
        """Remember what goes on from the call."""
        if carriage.goes:
            self.run.streams.leave(self, places, carriage.goes)


@dataclass(frozen=True, eq=False)
class _Left:
    station: Station
    queries: torch.Tensor
    goes: Mapping[str, Luggage]


@dataclass(eq=False)
class Streams:
    """What has gone on from calls of one run."""

    _at: dict[tuple[Any, ...], _Left] = field(default_factory=dict)
    _top: dict[tuple[str, bool], _Left] = field(default_factory=dict)
    _foot: dict[tuple[str, bool], Station] = field(default_factory=dict)

    def leave(self, station: Station, places: Places, goes: Mapping[str, Luggage]) -> None:
        """Remember what goes on from a call."""
        left = _Left(station, places.queries, goes)
        self._at[_key(station)] = left
        if not station.across:
            self._top[station.chain] = left

    def below(self, station: Station, places: Places) -> Mapping[str, Luggage]:
        """What goes on from the layer below in the same pass; nothing at the first layer."""
        stack, layer, module = station.address.stack, station.layer, station.module
        name = Text(f"{stack} layer {layer} ({module})", f"{stack} 第 {layer} 层（{module}）")
        if station.index or not station.alone or FOLDED.fullmatch(station.kind):
            raise CaptureError(
                Text(
                    f"what goes up the layers cannot be followed through {name.en}: it computes several maps, works in "
                    "a loop or in windows, or stands in no list of layers",
                    f"无法穿过 {name.zh} 逐层追溯：它计算多张图，按循环或窗口工作，或不在任何层的列表中",
                )
            )
        top, foot = self._top.get(station.chain), self._foot.get(station.chain)
        top = top if top is not None and top.station.one is station.one else None
        if station.layer == 0:
            if foot is not None and foot.one is station.one and foot.module != station.module:
                raise CaptureError(
                    Text(
                        f"{name.en} begins anew where {foot.module} had begun: which is below cannot be told",
                        f"{name.zh} 又从 {foot.module} 开始的地方开始：无法得知哪个在下",
                    )
                )
            self._foot[station.chain] = station
            return {}
        if top is None or top.station.layer != station.layer - 1:
            came = Text("no other layer", "任何层之前")
            if top is not None:
                came = Text(f"layer {top.station.layer}", f"第 {top.station.layer} 层之后")
            raise CaptureError(
                Text(
                    f"what goes up the layers needs each of them in order: {name.en} came after {came.en}. Leave out "
                    "layers=…; a stack some of whose layers mix positions by other means cannot be followed",
                    f"逐层追溯需要各层依次出现：{name.zh} 出现在{came.zh}。请去掉 layers=…；"
                    "有些层以其他方式混合位置的堆栈无法追溯",
                )
            )
        if not torch.equal(top.queries, places.queries):
            raise CaptureError(
                Text(
                    f"{name.en} reads other positions than the layer below: what goes up cannot be followed",
                    f"{name.zh} 读取的位置与下面一层不同：无法逐层追溯",
                )
            )
        return top.goes

    def before(self, station: Station, places: Places) -> Mapping[str, Luggage]:
        """What went on from the same place in the pass before, in the order of this batch; nothing in the first."""
        left = self._at.get(_key(station))
        if left is None or left.station.one is station.one:
            return {}
        afresh = bool((torch.where(places.queries < 0, places.ends[:, None], places.queries).amin(1) == 0).all())
        if len(left.queries) != len(places.queries):
            if afresh:
                return {}
            raise CaptureError(
                Text(
                    f"{station.module} goes on with another batch than that of the pass before",
                    f"{station.module} 接着处理的 batch 与前一次前向的不同",
                )
            )
        order = _order(station, left.station.one, len(places.queries))
        if order is None:
            return left.goes
        rows = torch.tensor(order)
        return {
            name: {of: tensor.index_select(0, rows.to(tensor.device)) for of, tensor in luggage.items()}
            for name, luggage in left.goes.items()
        }


def _key(station: Station) -> tuple[Any, ...]:
    return (*station.chain, station.module, station.layer, station.index, station.across)


def _order(station: Station, then: "Pass", batch: int) -> list[int] | None:
    """Which row of the pass before each row goes on from; None: its own.

    Beams of one input that have read the same are alike in all that they carry; their own rows are taken first.
    """
    run, now = station.run, station.one
    if run.beams == 1 or not station.tokens or now.step < 0 or now in run.prefill:
        return None
    if now.prefix is None or then.prefix is None or len(now.prefix) != batch != len(then.prefix):
        raise CaptureError(
            Text(
                "beams change places, and which row goes on from which cannot be told: use num_beams=1",
                "各束会换位，无法得知哪一行接着哪一行：请用 num_beams=1",
            )
        )
    shift = then.beyond - now.beyond
    known = now.prefix[:, shift : shift + then.prefix.shape[1]]
    order = []
    for row in range(batch):
        first = row - row % run.beams
        block = [row, *range(first, min(first + run.beams, batch))]
        same = [other for other in block if torch.equal(then.prefix[other], known[row])]
        if not same:
            raise CaptureError(
                Text(
                    f"no row of the pass before had read what row {row} of a beam search goes on from",
                    f"前一次前向中没有哪一行读过束搜索第 {row} 行所接续的内容",
                )
            )
        order.append(same[0])
    return None if order == list(range(batch)) else order
