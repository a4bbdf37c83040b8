"""What stands beside a number is never lost: not by selecting, not in tables, not by turning axes."""

import pytest
import torch

from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.language import Text
from hf_attnviz.result import BESIDE, Axis, Result

AXES = (Axis("statistic", ("a", "b")), Axis("layer", ("0",)), Axis("head", ("0", "1", "2")))


def result(**more: torch.Tensor) -> Result:
    values = torch.arange(6.0).reshape(2, 1, 3)
    told = {name: values + 10 * (n + 1) for n, name in enumerate(BESIDE)} | more
    return Result(values, AXES, "m", {"x": 1}, "s", "share", (Text("a note", "一条"),), **told)


def test_selecting_keeps_all_that_stands_beside() -> None:
    found = result().select(statistic="b", head="2")
    assert found.values.tolist() == [5.0]
    assert {name: tensor.tolist() for name, tensor in found.beside.items()} == {
        "low": [15.0],
        "high": [25.0],
        "baseline": [35.0],
        "verdict": [45.0],
    }
    assert [axis.name for axis in found.axes] == ["layer"]
    assert dict(found.parameters) == {"x": 1, "statistic": "b", "head": "2"}
    assert (found.method, found.source, found.unit, found.notes) == ("m", "s", "share", (Text("a note", "一条"),))


def test_tables_have_a_column_for_each() -> None:
    table = result().to_pandas()
    assert list(table.columns[-5:]) == ["value", *BESIDE]
    row = table[(table.statistic_label == "b") & (table["head"] == 1)].iloc[0]
    assert [row[name] for name in ("value", *BESIDE)] == [4, 14, 24, 34, 44]
    array = result().to_xarray()
    assert array.dims == ("statistic", "layer", "head")
    chosen = array.sel(statistic="b", layer="0", head="1")
    assert [float(chosen), *(float(chosen[name]) for name in BESIDE)] == [4, 14, 24, 34, 44]


def test_what_is_not_there_makes_no_column() -> None:
    plain = Result(torch.zeros(3), AXES[2:], "m", low=torch.zeros(3), high=torch.ones(3))
    assert list(plain.to_pandas().columns) == ["head", "head_label", "value", "low", "high"]
    assert set(plain.to_xarray().coords) == {"head", "low", "high"}
    assert list(plain.beside) == ["low", "high"]


def test_above_and_at_the_baseline() -> None:
    above, at = result().above_baseline(), result().at_baseline()
    assert above.values.flatten().tolist() == [-30.0] * 6
    assert at.values.flatten().tolist() == [30.0, 31.0, 32.0, 33.0, 34.0, 35.0]
    assert not above.beside and not at.beside
    assert (above.method, at.method) == ("m (minus uniform attention)", "m (uniform attention)")
    assert above.axes == at.axes == AXES
    with pytest.raises(ArgumentError, match="m has no baseline"):
        Result(torch.zeros(3), AXES[2:], "m").above_baseline()


def test_another_shape_beside_the_values_is_refused() -> None:
    for name in BESIDE:
        with pytest.raises(ShapeError, match=f"m: {name} of shape"):
            result(**{name: torch.zeros(2)})


def test_printed_it_says_what_it_is_and_what_to_know_and_no_tensor() -> None:
    found = result()
    found.values[1, 0, 2] = float("nan")
    shape, beside = "statistic 2 × layer 1 × head 3", "low, high, baseline, verdict"
    said = f"Result(m; {shape}; unit: share; 0 to 4, 1 undefined; beside: {beside})"
    assert repr(found) == said
    assert str(found) == f"{said}\n  · a note"
    empty = Result(torch.full((2,), float("nan")), (Axis("statistic", ("a", "b")),), "m")
    assert repr(empty) == "Result(m; statistic 2; 2 undefined)"
