"""A trace's file: everything comes back, a damaged or foreign one is refused in words, a full disk loses nothing."""

import dataclasses
import json
import os
import pickle
import random
import stat
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import hf_attnviz as av
from hf_attnviz import trace as trace_module
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.decomposition import Decomposition, HeldNorm
from hf_attnviz.labels import Labels, Segment
from hf_attnviz.packed import PackedRows
from hf_attnviz.reduced import Reduced
from hf_attnviz.storage import write_archive, write_atomically
from hf_attnviz.trace import Origin, Trace
from tests.capturing.extra_models import byte_level
from tests.models import ids, padded, tiny

TEXTS = ("吃⟨1/3⟩", "👍🏽", "a\0b", '"quoted"\\', "</script>", "␣", "\u202eleft", "")


def odd() -> Trace:
    labels = Labels(
        TEXTS,
        (1, None, 3, 4, 5, 6, 7, 8),
        (0, None, 1, 2, 3, 4, 5, 6),
        (
            Segment("special", 0, 2),
            Segment("patch", 2, 6, grid=(2, 2), part=3),
            Segment("frame", 6, 8, seconds=(0.0, 1.5)),
        ),
        (None, None, (0, 0), (0, 1), (1, 0), (1, 1), None, None),
    )
    keys = Labels.plain(["x", "y"], "latent")
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 8, 2, generator=generator)
    maps = (
        AttentionMap(
            weights, labels, keys, "decoder", 4, 1, "cross", "model.x", (0,) * 7 + (1,), None,
            (None,) * 7 + ("吃",), 1e-7, torch.rand(3, 8, 5, generator=generator),
            torch.rand(1, 2, 5, generator=generator),
        ),
        AttentionMap(weights.half(), labels, keys, "encoder", 0, decomposition=taken_apart(3, 8, 2), undecomposed="吃"),
        AttentionMap(torch.rand(2, 2, 2, generator=generator).bfloat16(), keys, keys, "vision", 1, positions=(0, 1)),
        AttentionMap(weights.double()[:, ::2][:, :, :1], labels.at([0, 2, 4, 6]), keys[:1], "text", 2),
    )  # fmt: skip
    return Trace(maps, run=3, item=2, candidate=1, model='名字 "m"', origin=Origin(5, 2, '吃 "it"', 12.5))


def taken_apart(heads: int, queries: int, keys: int, size: int = 2, width: int = 5) -> Decomposition:
    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))

    norms = (HeldNorm(random(width), random(width), random(queries), centred) for centred in (False, True))
    return Decomposition(
        random(1, keys, size), random(heads, size, width), random(width), random(queries, width), *norms, "odd <b>",
        1e-7, float("inf"),
    )  # fmt: skip


def made_of(heads: int, queries: int, keys: int) -> dict[str, Reduced]:
    """Two reducers' tables for one map; names that the file's own separators could confuse."""
    chance = torch.Generator().manual_seed(heads)
    values = {"entropy": torch.rand(heads, queries, generator=chance), "received": torch.rand(heads, keys).double()}
    places = {"top": torch.randint(-1, keys, (heads, queries, 2), generator=chance)}
    axes = {"entropy": ("head", "query"), "received": ("head", "key"), "top": ("head", "query", "rank")}
    one = Reduced(values | places, axes, {"top": "key"})
    return {"statistics": one, "吃.top": Reduced({"gram": torch.rand(2, 2)}, {"gram": ("segment", "group")})}


def shrunk() -> Trace:
    """Maps that keep packed rows, or none, and what was made of them."""
    queries, keys = Labels.plain("abcdefgh"), Labels.plain("xy")
    weights = torch.rand(3, 8, 2, generator=torch.Generator().manual_seed(1))
    packed = PackedRows.of(torch.cat([weights[..., :1], torch.zeros(3, 8, 1)], -1).double())
    long = Labels.plain(map(str, range(130)))
    lower = torch.rand(1, 130, 130).tril()
    maps = (
        AttentionMap(None, queries, keys, "decoder", 0, kind="cross", reduced=made_of(3, 8, 2), looks_back=False),
        AttentionMap(packed, queries, keys, "decoder", 1, reduced=made_of(3, 8, 2)),
        AttentionMap(weights, queries, keys, "decoder", 2, reduced=made_of(3, 8, 2), looks_back=True),
        AttentionMap(PackedRows.of(lower.bfloat16()), long, long, "decoder", 3, positions=tuple(range(130))),
        AttentionMap(None, keys, keys, "decoder", 4, head_count=7, looks_back=True, positions=(0, 1),
                     reduced={"gram": Reduced({"gram": torch.rand(2)}, {"gram": ("group",)})}),
    )  # fmt: skip
    return Trace(maps)


def check(one: Trace, other: Trace) -> None:
    for field in ("run", "item", "candidate", "model", "origin"):
        assert getattr(one, field) == getattr(other, field)
    assert len(one.maps) == len(other.maps)
    for a, b in zip(one.maps, other.maps, strict=True):
        for field in dataclasses.fields(AttentionMap):
            same(getattr(a, field.name), getattr(b, field.name))


def same(x: Any, y: Any) -> None:
    assert type(x) is type(y)
    if isinstance(x, torch.Tensor):
        assert x.dtype == y.dtype and torch.equal(x, y)
    elif isinstance(x, Decomposition | HeldNorm | PackedRows | Reduced):
        for field in dataclasses.fields(x):
            same(getattr(x, field.name), getattr(y, field.name))
    elif isinstance(x, Mapping):
        assert list(x) == list(y)
        for name in x:
            same(x[name], y[name])
    elif isinstance(x, tuple) and len(x) == len(y):
        for one, other in zip(x, y, strict=True):
            same(one, other)
    else:
        assert x == y or (x != x and y != y)


def test_every_field_comes_back(tmp_path: Path) -> None:
    path = odd().save(tmp_path / "吃 trace.safetensors")
    check(odd(), av.load(path))
    assert list(tmp_path.iterdir()) == [path]


def test_packed_rows_and_what_was_reduced_come_back(tmp_path: Path) -> None:
    trace = shrunk()
    found = av.load(trace.save(tmp_path / "t"))
    check(trace, found)
    assert [m.causal for m in found.maps] == [False, False, False, True, True]
    assert torch.equal(found.maps[3].weights, trace.maps[3].weights)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_captured_trace_comes_back(tmp_path: Path, mode: Any) -> None:
    tokenizer = byte_level()
    with mode(), av.capture(tiny("gpt2", vocab_size=300), tokenizer, keep=["maps", av.Vectors()]) as recording:
        model = recording.model
        model(**tokenizer(["the cat 吃", "dog"], padding=True, return_tensors="pt"))
        model.generate(ids(1, 4), max_new_tokens=3)
    for n, trace in enumerate(recording.traces):
        check(trace, av.load(trace.save(tmp_path / str(n))))


def test_an_encoder_decoders_trace_comes_back(tmp_path: Path) -> None:
    model = tiny("bart")
    with av.capture(model) as recording:
        model.generate(**padded([5, 3], "right"), max_new_tokens=4, num_beams=2)
    for n, trace in enumerate(recording.traces):
        check(trace, av.load(trace.save(tmp_path / str(n))))


def test_maps_may_share_one_tensor(tmp_path: Path) -> None:
    keys = Labels.plain("ab")
    weights = torch.rand(1, 2, 2)
    trace = Trace((AttentionMap(weights, keys, keys, "encoder", 0), AttentionMap(weights, keys, keys, "encoder", 1)))
    check(trace, av.load(trace.save(tmp_path / "t")))


def test_views_may_share_one_tensor(tmp_path: Path) -> None:
    whole, one, two = torch.rand(3, 2, 2), Labels.plain("a"), Labels.plain("ab")
    views = [whole, whole[1:], whole[:1], whole.transpose(1, 2)]
    maps = [AttentionMap(view, two, two, "encoder", n) for n, view in enumerate(views)]
    maps += [AttentionMap(whole[:, n : n + 1], one, two, "decoder", n) for n in range(2)]
    check(Trace(tuple(maps)), av.load(Trace(tuple(maps)).save(tmp_path / "t")))


@pytest.mark.parametrize("error", [float("inf"), float("-inf"), float("nan"), 0.1 + 0.2, 5e-324])
def test_any_error_comes_back(tmp_path: Path, error: float) -> None:
    keys = Labels.plain(["\ud800", "b"])
    trace = Trace((AttentionMap(torch.rand(1, 2, 2), keys, keys, "encoder", 0, error=error),))
    check(trace, av.load(trace.save(tmp_path / "t")))


def test_an_empty_trace_comes_back(tmp_path: Path) -> None:
    check(Trace(()), av.load(Trace(()).save(tmp_path / "t")))


def test_an_infinite_error_and_a_broken_character_are_saved_or_refused_by_us(tmp_path: Path) -> None:
    keys = Labels.plain(["\ud800", "b"])
    trace = Trace((AttentionMap(torch.rand(1, 2, 2), keys, keys, "encoder", 0, error=float("inf")),))
    try:
        found = av.load(trace.save(tmp_path / "t"))
    except av.errors.AttnvizError:
        assert not list(tmp_path.iterdir())
    else:
        assert found.maps[0].error == float("inf")


def test_truncated_anywhere(tmp_path: Path) -> None:
    data = odd().save(tmp_path / "whole").read_bytes()
    broken = tmp_path / "broken"
    for length in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        broken.write_bytes(data[:length])
        with pytest.raises(av.errors.TraceFileError, match="broken"):
            av.load(broken)


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    data = bytearray(odd().save(tmp_path / "whole").read_bytes())
    broken, chance = tmp_path / "broken", random.Random(0)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    missed = []
    places = [chance.randrange(len(data)) for _ in range(300)] + list(range(header, len(data), 97))
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << chance.randrange(8)
        broken.write_bytes(bytes(damaged))
        try:
            av.load(broken)
        except av.errors.TraceFileError:
            continue
        missed.append(("header" if place < header else "tensors", place))
    assert not missed, f"{len(missed)} of {len(places)} flipped bits went unnoticed, first: {missed[:3]}"


def test_damage_never_raises_anything_but_our_error(tmp_path: Path) -> None:
    data = odd().save(tmp_path / "whole").read_bytes()
    broken, chance = tmp_path / "broken", random.Random(1)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 20])):
            damaged[chance.randrange(8, header)] = chance.choice(b'0129-e.{}[]",:nulltrue\\ ')
        broken.write_bytes(bytes(damaged))
        try:
            av.load(broken)
        except av.errors.TraceFileError as error:
            assert "broken" in str(error)


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes(tmp_path: Path, seed: int) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(random.Random(seed).randbytes(5000))
    with pytest.raises(av.errors.TraceFileError, match="broken"):
        av.load(broken)


def written(path: Path, **changes: Any) -> Path:
    """A file of ours whose description has been changed."""
    trace = odd()
    trace.save(path)
    with safetensors.safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["hf_attnviz"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return write_archive(path, tensors, meta | changes)


def test_foreign_and_newer_files(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2)}, foreign)
    with pytest.raises(av.errors.TraceFileError, match=r"foreign\.safetensors.*Trace\.save"):
        av.load(foreign)
    safetensors.torch.save_file({"w": torch.ones(2)}, foreign, {"format": "pt"})
    with pytest.raises(av.errors.TraceFileError, match="not one that hf_attnviz wrote"):
        av.load(foreign)
    newer = json.dumps({"format": "hf_attnviz.trace", "version": 99})  # without our checksum: newer, not damaged
    safetensors.torch.save_file({}, foreign, {"hf_attnviz": newer})
    with pytest.raises(av.errors.TraceFileError, match=r"version 99.*1 to \d+.*upgrade"):
        av.load(foreign)
    with pytest.raises(av.errors.TraceFileError, match=r"something\.else"):
        av.load(written(tmp_path / "other", format="something.else"))
    for changes in ({"maps": 3}, {"maps": [{}]}, {"labels": []}, {"version": "1"}, {"run": None}):
        with pytest.raises(av.errors.TraceFileError, match="do not fit|version '1'"):
            av.load(written(tmp_path / "odd", **changes))


@pytest.mark.parametrize("text", ["[" * 200_000, "9" * 6000, '{"version": ' + "9" * 6000 + "}", "nonsense"])
def test_a_description_that_json_cannot_read(tmp_path: Path, text: str) -> None:
    foreign = tmp_path / "foreign"
    safetensors.torch.save_file({"w": torch.ones(2)}, foreign, {"hf_attnviz": text})
    with pytest.raises(av.errors.TraceFileError, match="foreign.*damaged"):
        av.load(foreign)


LABELS = {"texts": ["x"], "ids": [None], "words": [None], "segments": []}
SEGMENT = {"kind": "text", "start": 0, "stop": 1, "grid": None, "seconds": None}
ORIGIN = {"input": 0, "chunk": 0, "candidate": None, "seconds": None}
LIES: dict[str, list[Any]] = {  # what a map says of itself
    "layer": ["0", True, None, 1.0], "index": ["0", 0.5], "stack": [0, None, ["a"]], "module": [3, {}],
    "kind": ["sideways", "", 1, None, ["self"]], "steps": ["0", ["0"], [True], None, 0], "positions": [["0"], "0", 3],
    "produced": [[1], "abc", [["x"]]], "layout": ["abc", [1, 2, 3], None], "error": [0.5, 10**400, None, "nought"],
    "queries": ["0", 99, False, None], "keys": [1.0, False, None], "undecomposed": [3, None],
}  # fmt: skip
TAKEN_APART = {"inner": False, "outer": True, "form": "odd", "error": "0.1", "bound": "nan"}
LIES["decomposition"] = [3, "x", {}, *(TAKEN_APART | lie for lie in (
    {"inner": 1}, {"outer": "yes"}, {"form": None}, {"error": 0.5}, {"bound": "much"}))]  # fmt: skip
TABLES: dict[str, list[Any]] = {  # what a table of labels says
    "texts": [[1], ["x", None], "x", [["<b>"]]], "ids": [["1"], [1.0], [True], "1"], "words": [["1"], [0.5], 1],
    "segments": [3, [SEGMENT | {"kind": 1}], [SEGMENT | {"kind": []}], [SEGMENT | {"start": "0"}],
                 [SEGMENT | {"stop": None}], [SEGMENT | {"grid": [1]}], [SEGMENT | {"grid": ["1", "1"]}],
                 [SEGMENT | {"seconds": "01"}], [SEGMENT | {"seconds": [0, 1, 2]}], [SEGMENT | {"part": "0"}],
                 [SEGMENT | {"part": 0.5}]],
    "cells": [3, "x", [3], [[1]], [["1", 2]], [None, None], [[1, 2, 3]]],
}  # fmt: skip
WHOLE: dict[str, list[Any]] = {  # what the trace says
    "run": ["3", True, 1.5, None], "item": ["2"], "candidate": [[]], "model": [None, 7, ["m"]],
    "origin": [3, "x", {}, ORIGIN | {"input": None}, ORIGIN | {"chunk": "0"}, ORIGIN | {"candidate": 3},
               ORIGIN | {"seconds": "0"}],
}  # fmt: skip


def test_a_description_of_other_types_is_refused_though_its_checksum_fits(tmp_path: Path) -> None:
    labels = Labels.plain("x")
    one = AttentionMap(torch.ones(1, 1, 1), labels, labels, "encoder", 0, decomposition=taken_apart(1, 1, 1))
    trace = Trace((one,))
    path = trace.save(tmp_path / "t")
    with safetensors.safe_open(path, "pt") as file:
        text, tensors = file.metadata()["hf_attnviz"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    good = json.loads(text)
    check(trace, av.load(write_archive(path, tensors, good)))  # so that this test can fail
    lies = [(good | {name: lie}) for name, said in WHOLE.items() for lie in said]
    lies += [good | {"maps": [good["maps"][0] | {name: lie}]} for name, said in LIES.items() for lie in said]
    lies += [good | {"labels": [good["labels"][0] | {name: lie}]} for name, said in TABLES.items() for lie in said]
    passed = []
    for lie in lies:
        write_archive(path, tensors, lie)
        try:
            av.load(path)
        except av.errors.TraceFileError as error:
            assert "damaged: its description" in str(error)
        else:
            passed.append(lie)
    assert not passed


def test_a_file_of_the_first_version_is_still_read(tmp_path: Path) -> None:
    """It knows neither parts nor cells, nor where in a pipeline's inputs a trace belongs."""
    path = odd().save(tmp_path / "t")
    with safetensors.safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["hf_attnviz"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del meta["origin"]
    for table in meta["labels"]:
        del table["cells"]
        for segment in table["segments"]:
            del segment["part"]
    old = av.load(write_archive(path, tensors, meta | {"version": 1}))
    assert old.origin is None
    assert [m.keys.texts for m in old.maps] == [m.keys.texts for m in odd().maps]
    assert old.maps[0].queries.cells is None and old.maps[0].queries.parts == (None,) * 8
    assert old.maps[0].queries.segments[1] == Segment("patch", 2, 6, grid=(2, 2))


def test_a_file_of_the_second_version_is_still_read(tmp_path: Path) -> None:
    """It knows no decompositions."""
    path = odd().save(tmp_path / "t")
    with safetensors.safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["hf_attnviz"])
        tensors = {name: file.get_tensor(name) for name in file.keys() if "decomposition" not in name}  # noqa: SIM118
    for about in meta["maps"]:
        del about["decomposition"], about["undecomposed"]
    old = av.load(write_archive(path, tensors, meta | {"version": 2}))
    assert [m.decomposition for m in old.maps] == [None] * 4
    assert old.origin == odd().origin and torch.equal(old.maps[0].weights, odd().maps[0].weights)


def test_a_file_of_the_third_version_is_still_read(tmp_path: Path) -> None:
    """It knows neither packed rows nor what was reduced, and every map of it has weights."""
    path = odd().save(tmp_path / "t")
    with safetensors.safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["hf_attnviz"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for about in meta["maps"]:
        del about["packed"], about["reduced"], about["looks_back"], about["head_count"]
    check(odd(), av.load(write_archive(path, tensors, meta | {"version": 3})))
    del tensors["1.weights"]
    with pytest.raises(av.errors.TraceFileError, match=r"do not fit.*1\.weights"):
        av.load(write_archive(path, tensors, meta | {"version": 3}))


PACKED = {"starts": [0], "keys": 2, "dtype": "torch.float64"}
TABLE = {"axes": {"entropy": ["head", "query"]}, "holds": {}}
SHRUNK: dict[str, list[Any]] = {  # what a map says of itself that keeps packed rows, or no weights
    "packed": [3, "x", [], {}, *(PACKED | lie for lie in (
        {"starts": 0}, {"starts": ["0"]}, {"starts": []}, {"starts": [0, 0]}, {"starts": [-1]}, {"starts": [2]},
        {"keys": "2"}, {"keys": 1.5}, {"keys": 0}, {"keys": 3}, {"keys": 10**30}, {"dtype": "torch.int8"},
        {"dtype": None}, {"dtype": "os.system"}))],
    "reduced": [3, "x", ["statistics"], {"statistics": 3}, {"none": TABLE}, {"statistics": {}},
                *({"statistics": TABLE | lie} for lie in (
                    {"axes": 3}, {"axes": {"entropy": "head"}}, {"axes": {"entropy": [1, 2]}},
                    {"axes": {"entropy": ["head"]}}, {"axes": {"entropy": ["head", "head"]}},
                    {"axes": {"entropy": ["query", "head"]}}, {"axes": {"entropy": ["head", "somewhere"]}},
                    {"axes": {"nothing": ["head", "query"]}}, {"axes": {"__class__": ["head", "query"]}},
                    {"holds": 3}, {"holds": {"entropy": "key"}}, {"holds": {"entropy": 1}},
                    {"holds": {"none": "key"}}))],
    "looks_back": [0, 1, "yes", []], "head_count": ["3", True, None, 2.0],
}  # fmt: skip


def test_lies_about_packed_rows_and_what_was_reduced_are_refused(tmp_path: Path) -> None:
    first, second = shrunk().maps[:2]
    for maps, saying in (((first,), {"looks_back", "reduced", "head_count"}), ((second,), {"packed"})):
        path = Trace(maps).save(tmp_path / "t")
        with safetensors.safe_open(path, "pt") as file:
            good = json.loads(file.metadata()["hf_attnviz"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        check(Trace(maps), av.load(write_archive(path, tensors, good)))  # so that this test can fail
        lies = [(name, lie) for name in sorted(saying) for lie in SHRUNK[name]]
        lies += [("head_count", lie) for lie in (-1, 2, 10**30) if "reduced" in saying]
        for name, lie in lies:
            write_archive(path, tensors, good | {"maps": [good["maps"][0] | {name: lie}]})
            with pytest.raises(av.errors.TraceFileError, match="damaged: its description"):
                av.load(path)
                pytest.fail(f"{name}={lie} passed")


def test_a_decomposition_of_other_sizes_is_refused(tmp_path: Path) -> None:
    labels, keys = Labels.plain("abcdefgh"), Labels.plain("xy")
    for sizes in ((2, 8, 2), (3, 7, 2), (3, 8, 3)):
        with pytest.raises(av.errors.ShapeError, match="decomposition"):
            AttentionMap(torch.rand(3, 8, 2), labels, keys, "encoder", 0, decomposition=taken_apart(*sizes))


def test_missing_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(av.errors.TraceFileError, match="there is none"):
            av.load(path)
    with pytest.raises(av.errors.SaveError, match=r"no.folder.*folder that exists"):
        odd().save(tmp_path / "no folder" / "t")
    (tmp_path / "folder").mkdir()
    with pytest.raises(av.errors.SaveError):
        odd().save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    bomb = tmp_path / "bomb"
    bomb.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(av.errors.TraceFileError):
        av.load(bomb)
    torch.save({"x": Bomb()}, bomb)
    with pytest.raises(av.errors.TraceFileError):
        av.load(bomb)
    assert not (tmp_path / "exploded").exists()
    path = odd().save(tmp_path / "t")

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    av.load(path)
    source = Path(trace_module.__file__).parent
    for module in ("trace.py", "trace_file.py", "storage.py", "decomposition.py"):
        assert "pickle" not in (source / module).read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_an_interrupt_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    path = odd().save(tmp_path / "old")

    def interrupt(*_: Any, **__: Any) -> None:
        assert len(list(tmp_path.iterdir())) == 2  # so that this test can fail
        raise error

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(os, step, interrupt)
        Trace(()).save(path)
    assert list(tmp_path.iterdir()) == [path]
    check(odd(), av.load(path))


@pytest.mark.parametrize("name", ["a\0b", "no\0folder/t", "\ud800", "x" * 300])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(av.errors.SaveError, match="could not write.*nothing was changed.*a name that a file can have"):
        odd().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link, dangling = tmp_path / "there" / "t", tmp_path / "link", tmp_path / "dangling"
    Trace(()).save(target)
    link.symlink_to("there/t")
    dangling.symlink_to("there/new")
    for one in (link, dangling):
        assert odd().save(one) == one
        assert one.is_symlink()
        check(odd(), av.load(one))
    assert not target.is_symlink()
    check(odd(), av.load(target))
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["new", "t"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_files_mode_is_kept_and_a_new_ones_is_any_files(tmp_path: Path, mode: int) -> None:
    path = odd().save(tmp_path / "t")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    path.chmod(mode)
    odd().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_reader_of_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    """The new file takes the old one's place; it is never written over it."""
    path = write_atomically(tmp_path / "t", b"old" * 1000)
    with path.open("rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        write_atomically(path, b"new")
        assert reader.read() == b"old" * 999
    assert path.read_bytes() == b"new"


FULL_DISK = """
import resource, sys
import torch
torch.set_num_threads(1)
import hf_attnviz as av
from hf_attnviz.labels import Labels
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.trace import Trace
path = sys.argv[1]
keys = Labels.plain(map(str, range(64)))
trace = Trace((AttentionMap(torch.rand(4, 64, 64), keys, keys, "encoder", 0),))
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    trace.save(path)
except av.errors.SaveError as error:
    print(type(error).__name__, error)
else:
    print("no error")
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    path = odd().save(tmp_path / "old")
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=120, check=False,
        cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPATH": "."},
    )  # fmt: skip
    assert run.stdout.startswith("SaveError"), run.stdout + run.stderr
    assert "nothing was changed" in run.stdout
    check(odd(), av.load(path))
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_a_trace_is_printed_in_a_line() -> None:
    model = tiny("llama")
    with torch.no_grad(), av.capture(model) as recording:
        model(ids(1, 5))
    assert repr(recording.trace) == "Trace(LlamaForCausalLM: decoder with 2 × 4×5×5)"
