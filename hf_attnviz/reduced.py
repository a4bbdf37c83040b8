"""What is left of attention once the matrix is gone: a few tensors by name, each with named axes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import torch

from hf_attnviz.axes import BATCH, KEY, NAMES, QUERY
from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError, UnknownValueError, listed
from hf_attnviz.language import Text, told
from hf_attnviz.storage import restored_text, typed

_FIELDS: Final = ("values", "axes", "holds", "lost", "about")
_OWN: Final = (
    *_FIELDS, "names", "sizes", "nbytes", "at", "named", "cut", "widened", "to", "described", "tensors", "restored",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reduced:
    """What a reducer made of the attention of one call, or of one map.

    The values are attributes: ``reduced.entropy``.

    Attributes:
        values: the tensors by name.
        axes: the names of the axes of each, out of :mod:`hf_attnviz.axes`; that of a call begins with ``"batch"``, that
            of a map has none.
        holds: for a value whose numbers are places: of which axis (``"key"`` for the keys with the largest weights);
            -1 there is no place.
        lost: values that cannot be told any more, and why.
        about: what must be known to read them: the arguments of the reducer, and under the name of an axis the names of
            its places.
    """

    values: Mapping[str, torch.Tensor]
    axes: Mapping[str, tuple[str, ...]]
    holds: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, Text | str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _FIELDS:
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        _check_names(self)
        sizes: dict[str, tuple[int, str]] = {}
        for name, value in self.values.items():
            axes = self.axes[name]
            if value.dim() != len(axes):
                raise ShapeError(
                    Text(
                        f"{name}: expected the axes [{', '.join(axes)}], got a shape of {tuple(value.shape)}",
                        f"{name}：应有轴 [{', '.join(axes)}]，得到的形状为 {tuple(value.shape)}",
                    )
                )
            for axis, size in zip(axes, value.shape, strict=True):
                known, first = sizes.setdefault(axis, (size, name))
                if known != size:
                    raise ShapeError(
                        Text(
                            f"expected one size of the axis {axis!r}, got {known} in {first!r} and {size} in {name!r}",
                            f"轴 {axis!r} 的长度应一致，{first!r} 中为 {known}，{name!r} 中为 {size}",
                        )
                    )
        for axis, (size, _) in sizes.items():
            if len(self.about.get(axis, range(size))) != size:
                raise ShapeError(
                    Text(
                        f"expected {size} names for the axis {axis!r}, got {len(self.about[axis])}",
                        f"轴 {axis!r} 应有 {size} 个名字，得到 {len(self.about[axis])} 个",
                    )
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, tuple(dict(getattr(self, name)) for name in _FIELDS)  # a read-only view cannot be copied

    def __getattr__(self, name: str) -> torch.Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> torch.Tensor:
        try:
            return self.values[name]
        except KeyError:
            if name in self.lost:
                why = told(self.lost[name])
                raise UnknownValueError(
                    Text(f"{name!r} cannot be told: {why.en}", f"{name!r} 无从得知：{why.zh}")
                ) from None
            raise UnknownValueError(
                Text(
                    f"expected one of {listed(self)}; got {name!r}; pick one of the list",
                    f"应为 {listed(self, '无')} 之一；得到 {name!r}；请从中选择",
                )
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        """The names and shapes; the numbers would fill pages."""
        told = (
            f"{name} [{', '.join(f'{axis} {size}' for axis, size in zip(self.axes[name], value.shape, strict=True))}]"
            for name, value in self.values.items()
        )
        return f"Reduced({', '.join(told)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the values, in order."""
        return tuple(self.values)

    @property
    def sizes(self) -> Mapping[str, int]:
        """How long each axis is."""
        return {
            axis: size
            for name, value in self.values.items()
            for axis, size in zip(self.axes[name], value.shape, strict=True)
        }

    @property
    def nbytes(self) -> int:
        """The memory that the values take, in bytes."""
        return sum(value.nbytes for value in self.values.values())

    def at(self, axis: str, places: int | Sequence[int] | torch.Tensor) -> "Reduced":
        """These places of an axis, in this order, of every value that has it; one place as a number drops the axis.

        A value that holds places of that axis (:attr:`holds`) holds those in the new order, and -1 where a place is
        not among them. ``reduced.at("batch", 0)`` is what a call made of the first row of its batch.

        Raises:
            UnknownNameError: no value has or holds that axis.
            ArgumentError: one place as a number of an axis of which places are held.
        """
        held = [name for name, of in self.holds.items() if of == axis]
        if axis not in self.sizes and not held:
            raise UnknownNameError(
                Text(
                    f"expected one of the axes {listed(self.sizes)}; got {axis!r}",
                    f"应为轴 {listed(self.sizes, '无')} 之一；得到 {axis!r}",
                )
            )
        alone = isinstance(places, int)
        if held and alone:
            raise ArgumentError(
                Text(
                    f"{listed(held)}: places of the axis {axis!r} say nothing without it; give a list",
                    f"{listed(held)}：没有轴 {axis!r}，它的位置就没有意义；请给出一个列表",
                )
            )
        given = [places] if isinstance(places, int) else places
        wanted = (
            given.long() if isinstance(given, torch.Tensor) else torch.tensor(given, dtype=torch.long, device="cpu")
        )
        values = dict(self.values)
        for name, value in self.values.items():
            if axis in self.axes[name]:
                place = self.axes[name].index(axis)
                cut = value.index_select(place, wanted.to(value.device))
                values[name] = cut.squeeze(place) if alone else cut
        values |= {name: _moved(values[name], wanted) for name in held}
        axes = {name: tuple(one for one in of if one != axis or not alone) for name, of in self.axes.items()}
        names = {} if alone or axis not in self.about else {axis: [self.about[axis][n] for n in wanted.tolist()]}
        about = {name: value for name, value in self.about.items() if name != axis} | names
        return replace(self, values=values, axes=axes, about=about)

    def named(self, axis: str, other: str) -> "Reduced":
        """The same with another name for an axis."""
        axes = {name: tuple(other if one == axis else one for one in of) for name, of in self.axes.items()}
        return replace(self, axes=axes, about={other if name == axis else name: of for name, of in self.about.items()})

    def cut(self, queries: Sequence[int], keys: Sequence[int] | None, before: int = 0) -> "Reduced":
        """What was made of one sequence of a call, with these rows and columns only (None: all columns).

        Args:
            before: how many keys stood before the first column and are gone; nothing was made of them.
        """
        found = self.at(QUERY, queries) if QUERY in self.sizes else self
        if keys is not None and (KEY in self.sizes or KEY in self.holds.values()):
            found = found.at(KEY, keys)
        return found.widened(before, 0) if before else found

    def widened(self, before: int, after: int) -> "Reduced":
        """The same over more keys, of which nothing was made: zeros."""
        values = dict(self.values)
        for name, value in self.values.items():
            if KEY in self.axes[name]:
                behind = value.dim() - 1 - self.axes[name].index(KEY)
                values[name] = torch.nn.functional.pad(value, (0, 0) * behind + (before, after))
            if self.holds.get(name) == KEY:
                values[name] = torch.where(value < 0, value, value + before)
        return replace(self, values=values)

    def to(self, device: torch.device | str) -> "Reduced":
        """The same on another device."""
        return replace(self, values={name: value.to(device) for name, value in self.values.items()})

    def described(self) -> dict[str, Any]:
        """What a file says of it, beside its tensors."""
        axes = {name: self.axes[name] for name in self}
        lost = {name: told(why) for name, why in self.lost.items()}
        reasons = {
            "lost": {name: why.en for name, why in lost.items()},
            "lost_zh": {n: why.zh for n, why in lost.items()},
        }
        return {"axes": axes, "holds": dict(self.holds), "about": dict(self.about), **reasons}

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors by name, for a file."""
        return {f"{prefix}.{name}": value for name, value in self.values.items()}

    @classmethod
    def restored(cls, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], prefix: str) -> "Reduced":
        """What :meth:`described` and :meth:`tensors` told."""
        axes = {name: typed(of, str, each=True) for name, of in typed(about["axes"], dict).items()}
        holds = {name: typed(axis, str) for name, axis in typed(about["holds"], dict).items()}
        en, zh = (typed(about.get(name, {}), dict) for name in ("lost", "lost_zh"))
        lost = {name: restored_text({name: why, f"{name}_zh": zh.get(name, why)}, name) for name, why in en.items()}
        values = {name: tensors[f"{prefix}.{name}"] for name in axes}
        return cls(values, axes, holds, lost, typed(about.get("about", {}), dict))


def joined(parts: Sequence[Reduced], keys: int, lost: Text | str = "") -> Reduced:
    """What was made of a sequence in several passes, as if it had run in one.

    Values with a query axis are put one after another; those without are sums over rows, and are added. ``keys``: how
    many keys there are in the end: early passes saw fewer. lost: why the sums cannot be told, if they cannot.
    """
    wide = [one.widened(0, keys - one.sizes.get(KEY, keys)) for one in parts]
    first = wide[0]
    if len(wide) == 1 and not lost:
        return first
    values, gone = {}, {name: lost for name, axes in first.axes.items() if lost and QUERY not in axes}
    for name, axes in first.axes.items():
        if name in gone:
            continue
        each = [one[name] for one in wide]
        values[name] = torch.cat(each, axes.index(QUERY)) if QUERY in axes else torch.stack(each).sum(0)
    holds = {name: axis for name, axis in first.holds.items() if name in values}
    told = {name: first.axes[name] for name in values}
    return Reduced(values, told, holds, gone | dict(first.lost), first.about)


def _check_names(one: Reduced) -> None:
    for name in one.values:
        if not name.isidentifier() or name.startswith("_") or name in _OWN:
            raise ArgumentError(
                Text(
                    f"{name!r} cannot name a value: expected a word that is none of {listed(_OWN)}",
                    f"{name!r} 不能用作值的名字：应为一个单词，且不是 {listed(_OWN)}",
                )
            )
    if set(one.axes) != set(one.values):
        raise ShapeError(
            Text(
                f"expected axes for each of {listed(one.values)}; got them for {listed(one.axes)}",
                f"应为 {listed(one.values, '无')} 各给出轴；得到的是 {listed(one.axes, '无')} 的轴",
            )
        )
    for name, axes in one.axes.items():
        if len(set(axes)) < len(axes) or not set(axes) <= NAMES:
            raise UnknownNameError(
                Text(
                    f"{name}: expected different axes out of {listed(sorted(NAMES))}; got {axes}",
                    f"{name}：各轴应互不相同，且取自 {listed(sorted(NAMES))}；得到 {axes}",
                )
            )
        if BATCH in axes[1:]:
            raise ShapeError(
                Text(
                    f"{name}: expected the axis 'batch' first; got [{', '.join(axes)}]",
                    f"{name}：首轴应为 'batch'；得到 [{', '.join(axes)}]",
                )
            )
    for name, axis in one.holds.items():
        if name not in one.values or axis not in NAMES:
            raise UnknownNameError(
                Text(
                    f"{name!r} cannot hold places of {axis!r}: expected a value and a known axis",
                    f"{name!r} 不能存放 {axis!r} 的位置：应为一个值和一个已知的轴",
                )
            )
        if one.values[name].is_floating_point() or one.values[name].dtype == torch.bool:
            raise ShapeError(
                Text(
                    f"{name} holds places: expected an integer dtype, got {one.values[name].dtype}",
                    f"{name} 存放位置：应为整数类型，得到 {one.values[name].dtype}",
                )
            )


def _moved(places: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Places after their axis was cut to those wanted; -1 for those that are gone, and for what was -1."""
    last = max([-1, *(int(one.max()) for one in (places, wanted) if one.numel())])
    moved = torch.full((last + 2,), -1, dtype=places.dtype, device=places.device)  # the last entry serves -1
    moved[wanted.to(places.device)] = torch.arange(len(wanted), dtype=places.dtype, device=places.device)
    return moved[places.long()]
