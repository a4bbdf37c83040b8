"""What an analysis gives back: numbers with named, labelled axes, and where the method comes from."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.axes import NAMES
from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.optional import require

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

BESIDE: Final = ("low", "high", "baseline", "verdict")  # what may stand beside each number, in this order


@dataclass(frozen=True)
class Axis:
    """One axis of a result.

    Attributes:
        name: one of the names in :mod:`hf_attnviz.axes`.
        labels: a label for each position.
        order: the order in which a picture should draw the positions (a permutation), or None for as they come.
    """

    name: str
    labels: tuple[str, ...]
    order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UnknownNameError(
                Text(
                    f"unknown axis {self.name!r}; known: {listed(sorted(NAMES))}",
                    f"未知的轴 {self.name!r}；可用：{listed(sorted(NAMES))}",
                )
            )
        if self.order is not None and sorted(self.order) != list(range(len(self.labels))):
            raise ArgumentError(
                Text(
                    f"the order of axis {self.name!r} must be a permutation of its {len(self.labels)} places",
                    f"轴 {self.name!r} 的次序必须是其 {len(self.labels)} 个位置的一个排列",
                )
            )


@dataclass(frozen=True, eq=False)
class Result:
    """Numbers of one analysis.

    Attributes:
        values: the numbers, one tensor axis for each of ``axes``; NaN where the method is undefined.
        axes: the axes, in the tensor's order.
        method: what was computed, in a few words.
        parameters: every argument that shaped the numbers.
        source: the paper or definition.
        unit: what the numbers are: ``"share"``, ``"nats"``, ``"tokens"``, ``""`` …
        notes: what a reader must know before believing the numbers (drift, sinks, rows left out …), in both languages.
        low, high: the ends of an interval around each number, shaped like ``values``; None where none was computed,
            NaN where it is undefined.
        baseline: what attention without any preference would get on the same cells, shaped like ``values``.
        verdict: 1 where a number passes its threshold, 0 where not, NaN where undefined, shaped like ``values``.
    """

    values: torch.Tensor
    axes: tuple[Axis, ...]
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    unit: str = ""
    notes: tuple[Text, ...] = ()
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None
    baseline: torch.Tensor | None = None
    verdict: torch.Tensor | None = None

    def __post_init__(self) -> None:
        expected = tuple(len(axis.labels) for axis in self.axes)
        for name, tensor in {"values": self.values, **self.beside}.items():
            if tuple(tensor.shape) != expected:
                raise ShapeError(
                    Text(
                        f"{self.method}: {name} of shape {tuple(tensor.shape)}, axes of lengths {expected}",
                        f"{self.method}：{name} 的形状为 {tuple(tensor.shape)}，各轴长度为 {expected}",
                    )
                )
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def __repr__(self) -> str:
        """In one line what this is; the numbers would fill pages."""
        axes = " × ".join(f"{axis.name} {len(axis.labels)}" for axis in self.axes)
        told = [axes, *([f"unit: {self.unit}"] if self.unit else []), _span(self.values)]
        told += [f"beside: {', '.join(self.beside)}"] if self.beside else []
        return f"Result({self.method}; {'; '.join(part for part in told if part)})"

    def __str__(self) -> str:
        """The same, and what a reader must know before believing the numbers."""
        return "\n".join([repr(self), *(f"  · {note}" for note in self.notes)])

    @property
    def beside(self) -> dict[str, torch.Tensor]:
        """What stands beside the values, by name: those of ``low``, ``high``, ``baseline``, ``verdict`` there are."""
        return {name: tensor for name in BESIDE if (tensor := getattr(self, name)) is not None}

    def reshaped(self, change: Callable[[torch.Tensor], torch.Tensor], axes: Iterable[Axis]) -> "Result":
        """The result on other axes: ``change`` is done to the values and to all that stands beside them."""
        tensors = {"values": self.values, **self.beside}
        moved: dict[str, Any] = {name: change(tensor) for name, tensor in tensors.items()}
        return replace(self, **moved, axes=tuple(axes))

    def at_baseline(self) -> "Result":
        """What attention without any preference would get, as a result of its own.

        Raises:
            ArgumentError: the method has no baseline.
        """
        return self._alone(self._known_baseline(), "uniform attention")

    def above_baseline(self) -> "Result":
        """The values minus what attention without any preference would get; intervals and verdicts are of the values
        themselves, and are left out.

        Raises:
            ArgumentError: the method has no baseline.
        """
        return self._alone(self.values - self._known_baseline(), "minus uniform attention")

    def _alone(self, values: torch.Tensor, what: str) -> "Result":
        """Other values on the same axes, with nothing beside them."""
        return Result(values, self.axes, f"{self.method} ({what})", self.parameters, self.source, self.unit, self.notes)

    def _known_baseline(self) -> torch.Tensor:
        if self.baseline is None:
            raise ArgumentError(
                Text(
                    f"{self.method} has no baseline of uniform attention; rollout, alti (rolled out), flow, "
                    "head_statistics, head_roles, sinks and image_distance have one",
                    f"{self.method} 没有均匀注意力的基线；有基线的是 rollout、alti（逐层追溯）、flow、head_statistics、"
                    "head_roles、sinks 和 image_distance",
                )
            )
        return self.baseline

    def axis(self, name: str) -> Axis:
        """The axis called ``name``."""
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise UnknownNameError(
            Text(
                f"{self.method} has no axis {name!r}; it has: {listed(a.name for a in self.axes)}",
                f"{self.method} 没有轴 {name!r}；它有：{listed((a.name for a in self.axes), '无')}",
            )
        )

    def select(self, **labels: str) -> "Result":
        """The part at one label of each named axis: ``statistics.select(statistic="entropy")``."""
        found = self
        for name, label in labels.items():
            axis = found.axis(name)
            if label not in axis.labels:
                raise UnknownNameError(
                    Text(
                        f"axis {name!r} has no {label!r}; it has: {listed(axis.labels)}",
                        f"轴 {name!r} 没有 {label!r}；它有：{listed(axis.labels, '无')}",
                    )
                )
            place, number = found.axes.index(axis), axis.labels.index(label)
            rest = found.axes[:place] + found.axes[place + 1 :]
            found = found.reshaped(partial(torch.select, dim=place, index=number), rest)
        chosen = {name: str(label) for name, label in labels.items()}
        return replace(found, parameters={**self.parameters, **chosen})

    def to_numpy(self) -> npt.NDArray[Any]:
        """The values as a NumPy array (a copy)."""
        return _array(self.values)

    def to_pandas(self) -> "pd.DataFrame":
        """A long table: a column an axis, ``value``, and one for each of :attr:`beside`. Needs the extra ``tables``."""
        pandas = require("pandas", "tables")
        index = pandas.MultiIndex.from_product(
            [range(len(axis.labels)) for axis in self.axes], names=[axis.name for axis in self.axes]
        )
        table: pd.DataFrame = index.to_frame(index=False)
        for axis in self.axes:  # by place, not by label: two tokens may read the same
            table[f"{axis.name}_label"] = [axis.labels[i] for i in table[axis.name]]
        for name, tensor in {"value": self.values, **self.beside}.items():
            table[name] = _array(tensor).reshape(-1)
        return table

    def to_xarray(self) -> "xr.DataArray":
        """An ``xarray.DataArray`` with dimensions and labels; what stands beside the values becomes coordinates of it.
        Needs the extra ``tables``."""
        xarray = require("xarray", "tables")
        names = [axis.name for axis in self.axes]
        beside = {name: (names, _array(tensor)) for name, tensor in self.beside.items()}
        array: xr.DataArray = xarray.DataArray(
            self.to_numpy(),
            dims=names,
            coords={**{axis.name: list(axis.labels) for axis in self.axes}, **beside},
            name=self.method,
            attrs={"source": self.source, "unit": self.unit, **{k: str(v) for k, v in self.parameters.items()}},
        )
        return array


def _span(values: torch.Tensor) -> str:
    """The least and the largest number, and how many are undefined."""
    known = values[values.isfinite()]
    missing = values.numel() - known.numel()
    ends = f"{float(known.min()):.4g} to {float(known.max()):.4g}" if known.numel() else ""
    return ", ".join(filter(None, [ends, f"{missing:,} undefined" if missing else ""]))


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    return np.array(tensor.detach().cpu().numpy())
