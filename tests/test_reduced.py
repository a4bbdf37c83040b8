"""Tensors by name, with named axes: what is checked, cut, and told of them."""

import copy
import json

import pytest
import torch

from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError
from hf_attnviz.reduced import Reduced, joined


def statistics(batch: int = 2, heads: int = 3, rows: int = 4, keys: int = 6) -> Reduced:
    values = {
        "entropy": torch.rand(batch, heads, rows),
        "received": torch.rand(batch, heads, keys),
        "top": torch.randint(0, keys, (batch, heads, rows, 2)),
    }
    axes = {"entropy": ("batch", "head", "query"), "received": ("batch", "head", "key")}
    return Reduced(values, axes | {"top": ("batch", "head", "query", "rank")}, {"top": "key"})


def test_values_are_attributes_and_unknown_names_list_the_known_ones() -> None:
    one = statistics()
    assert one.entropy is one["entropy"] is one.values["entropy"]
    assert one.names == tuple(one) == ("entropy", "received", "top") and len(one) == 3 and "top" in one
    assert one.sizes == {"batch": 2, "head": 3, "query": 4, "key": 6, "rank": 2}
    assert one.nbytes == 2 * 3 * (4 * 4 + 6 * 4 + 4 * 2 * 8)
    assert repr(one).startswith("Reduced(entropy [batch 2, head 3, query 4], received [")
    with pytest.raises(UnknownNameError, match="entropy, received, top; got 'entrpy'"):
        one.entrpy  # noqa: B018 - the look-up is the test
    assert not hasattr(one, "entrpy") and not hasattr(one, "_private")


def test_it_is_copied_and_cannot_be_changed() -> None:
    one = statistics()
    assert copy.copy(one).names == one.names
    with pytest.raises(TypeError):
        one.values["entropy"] = torch.zeros(1)  # type: ignore[index]
    with pytest.raises(AttributeError):
        one.values = {}  # type: ignore[misc]


def test_a_deep_copy_is_the_same() -> None:
    one = statistics()
    again = copy.deepcopy(one)
    assert again.axes == one.axes and again.holds == one.holds
    assert torch.equal(again.top, one.top) and again.top is not one.top


@pytest.mark.parametrize("axis", ["batch", "head", "query", "key", "rank"])
def test_an_axis_is_cut_wherever_it_stands(axis: str) -> None:
    one = statistics()
    places = [1, 0]
    cut = one.at(axis, places)
    for name, value in one.values.items():
        axes = one.axes[name]
        expected = value[(slice(None),) * axes.index(axis) + (places,)] if axis in axes else value
        if (name, axis) == ("top", "key"):
            expected = torch.tensor([1, 0, -1, -1, -1, -1])[value]
        assert torch.equal(cut[name], expected) and cut.axes[name] == axes


def test_one_place_drops_the_axis() -> None:
    one = statistics()
    first = one.at("batch", 1)
    assert first.axes["entropy"] == ("head", "query") and torch.equal(first.entropy, one.entropy[1])
    assert first.holds == {"top": "key"} and "batch" not in first.sizes


def test_places_that_are_held_move_with_their_axis_and_none_stays_none() -> None:
    one = Reduced({"top": torch.tensor([[4, 2, -1], [0, 3, 2]])}, {"top": ("query", "rank")}, {"top": "key"})
    assert one.at("key", torch.tensor([2, 3, 4])).top.tolist() == [[2, 0, -1], [-1, 1, 0]]
    assert one.at("key", []).top.tolist() == [[-1] * 3] * 2
    assert one.at("key", range(9)).top.tolist() == one.top.tolist()
    with pytest.raises(ArgumentError, match="give a list"):
        one.at("key", 2)


def test_an_axis_that_nothing_has_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="batch, head, query, key, rank; got 'group'"):
        statistics().at("group", [0])


@pytest.mark.parametrize(
    ("values", "axes", "holds", "message"),
    [
        ({"a": (2, 3)}, {"a": ("head",)}, {}, r"a: expected the axes \[head\], got a shape of \(2, 3\)"),
        ({"a": (2, 3), "b": (4,)}, {"a": ("head", "key"), "b": ("key",)}, {}, "'key', got 3 in 'a' and 4 in 'b'"),
        ({"a": (2,)}, {}, {}, "expected axes for each of a; got them for none"),
        ({"a": (2,)}, {"a": ("key",), "b": ("key",)}, {}, "got them for a, b"),
        ({"a": (2,)}, {"a": ("keys",)}, {}, "expected different axes out of"),
        ({"a": (2, 2)}, {"a": ("key", "key")}, {}, "expected different axes"),
        ({"a": (2, 2)}, {"a": ("key", "batch")}, {}, "'batch' first"),
        ({"values": (2,)}, {"values": ("key",)}, {}, "cannot name a value"),
        ({"_a": (2,)}, {"_a": ("key",)}, {}, "cannot name a value"),
        ({"a b": (2,)}, {"a b": ("key",)}, {}, "cannot name a value"),
        ({"a": (2,)}, {"a": ("key",)}, {"b": "key"}, "cannot hold"),
        ({"a": (2,)}, {"a": ("key",)}, {"a": "keys"}, "cannot hold"),
        ({"a": (2,)}, {"a": ("rank",)}, {"a": "key"}, "expected an integer dtype"),
    ],
)
def test_what_does_not_fit_is_refused(values, axes, holds, message) -> None:
    with pytest.raises((ShapeError, UnknownNameError, ArgumentError), match=message):
        Reduced({name: torch.zeros(shape) for name, shape in values.items()}, axes, holds)


def test_places_of_an_axis_may_have_names() -> None:
    values, axes = {"mass": torch.rand(2, 3)}, {"mass": ("query", "group")}
    one = Reduced(values, axes, about={"group": ["a", "b", "c"], "residual": 0.5})
    assert one.at("group", [2, 0]).about == {"group": ["c", "a"], "residual": 0.5}
    assert one.at("group", 1).about == {"residual": 0.5}
    assert one.at("query", [0]).about == one.about == copy.deepcopy(one).about == joined([one, one], 0).about
    again = Reduced.restored(json.loads(json.dumps(one.described())), one.tensors("x"), "x")
    assert again.about == one.about
    with pytest.raises(ShapeError, match="expected 3 names for the axis 'group', got 2"):
        Reduced(values, axes, about={"group": ["a", "b"]})
