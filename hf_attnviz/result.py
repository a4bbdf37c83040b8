"""What an analysis gives back: numbers with named, labelled axes, and where the method comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

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
            raise UnknownNameError(f"unknown axis {self.name!r}; known: {listed(sorted(NAMES))}")
        if self.order is not None and sorted(self.order) != list(range(len(self.labels))):
            raise ArgumentError(
                f"the order of axis {self.name!r} must be a permutation of its {len(self.labels)} places"
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
    """

    values: torch.Tensor
    axes: tuple[Axis, ...]
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    unit: str = ""
    notes: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        expected = tuple(len(axis.labels) for axis in self.axes)
        if tuple(self.values.shape) != expected:
            raise ShapeError(f"{self.method}: values of shape {tuple(self.values.shape)}, axes of lengths {expected}")
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def axis(self, name: str) -> Axis:
        """The axis called ``name``."""
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise UnknownNameError(f"{self.method} has no axis {name!r}; it has: {listed(a.name for a in self.axes)}")

    def select(self, **labels: str) -> "Result":
        """The part at one label of each named axis: ``statistics.select(statistic="entropy")``."""
        values, axes = self.values, list(self.axes)
        for name, label in labels.items():
            axis = self.axis(name)
            if label not in axis.labels:
                raise UnknownNameError(f"axis {name!r} has no {label!r}; it has: {listed(axis.labels)}")
            place = next(i for i, a in enumerate(axes) if a.name == name)
            values = values.select(place, axis.labels.index(label))
            axes.pop(place)
        chosen = {name: str(label) for name, label in labels.items()}
        return Result(
            values, tuple(axes), self.method, {**self.parameters, **chosen}, self.source, self.unit, self.notes
        )

    def to_numpy(self) -> npt.NDArray[Any]:
        """The values as a NumPy array (a copy)."""
        return np.array(self.values.detach().cpu().numpy())

    def to_pandas(self) -> "pd.DataFrame":
        """A long table: one column an axis, and ``value``. Needs the extra ``tables``."""
        pandas = require("pandas", "tables")
        index = pandas.MultiIndex.from_product(
            [range(len(axis.labels)) for axis in self.axes], names=[axis.name for axis in self.axes]
        )
        table: pd.DataFrame = index.to_frame(index=False)
        for axis in self.axes:  # by place, not by label: two tokens may read the same
            table[f"{axis.name}_label"] = [axis.labels[i] for i in table[axis.name]]
        table["value"] = self.to_numpy().reshape(-1)
        return table

    def to_xarray(self) -> "xr.DataArray":
        """An ``xarray.DataArray`` with dimensions and labels. Needs the extra ``tables``."""
        xarray = require("xarray", "tables")
        array: xr.DataArray = xarray.DataArray(
            self.to_numpy(),
            dims=[axis.name for axis in self.axes],
            coords={axis.name: list(axis.labels) for axis in self.axes},
            name=self.method,
            attrs={"source": self.source, "unit": self.unit, **{k: str(v) for k, v in self.parameters.items()}},
        )
        return array
