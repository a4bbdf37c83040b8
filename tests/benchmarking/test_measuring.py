"""Time, truth and memory, on shapes so small that they say nothing but whether they are measured right."""

import contextlib
import gc
import math
import mmap
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_attnviz.benchmarking import measuring, memory, timing
from hf_attnviz.benchmarking.beds import Bed, DecodingBed
from hf_attnviz.benchmarking.given import NotThereError
from hf_attnviz.benchmarking.shapes import TABLE, Shape, build, eager_of, tokens
from hf_attnviz.benchmarking.table import Bench, Row, Section
from hf_attnviz.benchmarking.truth import STATISTICS, TOLERANCE, apart, deviations, truth
from hf_attnviz.benchmarking.variants import AGAIN, PLAIN, Variant, captured, chosen, plain, variants
from hf_attnviz.capturing.reducers import BY_NAME
from hf_attnviz.errors import UnknownNameError
from hf_attnviz.language import Text

SMALL = Shape(2, 48, 32, 4)


def state(model: Any) -> list[Any]:
    hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()]
    return [model.config._attn_implementation, hooks, [sorted(one.__dict__) for one in model.modules()]]


def row(section: Section, key: str) -> Row:
    return next(one for one in section.rows if one.key == key)


def slow(times: int):
    """A variant that runs the model so many times."""

    def opened(bed: Bed):
        def run():
            for _ in range(times - 1):
                bed.run()
            return bed.output(bed.run()), None

        return run

    return opened


def timed(bed: Bed, wanted: dict[str, Variant], sample: float = 0.0) -> Section:
    with torch.inference_mode():
        return measuring.timed(bed, wanted, rounds=6, sample=sample)


# ---- time


def test_a_slower_variant_is_seen_as_slower() -> None:
    wanted = chosen([]) | {n: Variant(n, Text(n, n), slow(int(n)), ours=True) for n in ("1", "3")}
    section = timed(Bed(SMALL), wanted, sample=0.04)
    once, thrice = row(section, "1").numbers, row(section, "3").numbers
    assert 2.2 < thrice["ratio"] < 3.8
    assert thrice["low"] > 1.5
    assert once["low"] <= once["ratio"] <= once["high"] < thrice["low"]
    assert thrice["bound"] == 1 + 48 / (24 * 32 + 2 * 48)


def test_what_is_measured_is_left_as_it_was() -> None:
    bed = Bed(SMALL)
    before, weights = state(bed.model), {name: p.clone() for name, p in bed.model.named_parameters()}
    threads, frozen = torch.get_num_threads(), gc.get_freeze_count()
    section = timed(bed, chosen(["rows", "maps", "eager", "eager-attentions", "captum"]))
    assert all(row(section, key).numbers["apart"] == 0 for key in (PLAIN, AGAIN, "rows", "maps"))
    assert all(0 < row(section, key).numbers["apart"] < 1e-3 for key in ("eager", "eager-attentions", "captum"))
    assert state(bed.model) == before
    assert all(torch.equal(p, weights[name]) for name, p in bed.model.named_parameters())
    assert (torch.get_num_threads(), gc.get_freeze_count()) == (threads, frozen)


def test_what_a_variant_leaves_on_the_model_is_seen() -> None:
    def leaves(bed: Bed):
        run = plain(bed)
        bed.model.config._attn_implementation = "eager"
        return run

    section = timed(Bed(SMALL), chosen([]) | {"x": Variant("x", Text("x", "x"), leaves)})
    assert row(section, AGAIN).numbers["apart"] > 0
    assert not Bench((section,), {}, {}).correct


def test_the_eager_twin_has_the_same_weights_and_another_config() -> None:
    model = build(SMALL, seed=0, positions=48)
    twin = eager_of(model)
    assert (model.config._attn_implementation, twin.config._attn_implementation) == ("sdpa", "eager")
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)


def test_the_same_seed_gives_the_same_model_and_leaves_the_users_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (build(SMALL, seed=seed, positions=48).h[0].attn.c_attn.weight for seed in (0, 0, 1))
    ids = tokens(9, seed=0)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(ids, tokens(9, seed=0))


def test_turns_are_fair() -> None:
    """In as many rounds as there are variants each stands once at each place, and after more than one other."""
    names = list("abcdef")
    rounds = [timing.turns(names, n) for n in range(6)]
    assert all(sorted(order) == names for order in rounds)
    before = {name: {order[order.index(name) - 1] for order in rounds if order[0] != name} for name in names}
    assert all(len(found) > 1 for found in before.values())


def test_short_runs_are_repeated_until_a_sample_is_long_enough() -> None:
    told = iter(range(10**6))
    runs: list[str] = []
    taken = timing.interleaved(
        {"a": lambda: runs.append("a"), "b": lambda: runs.append("b")},
        rounds=2, what=Text("x", "x"), now=lambda: float(next(told)), sample=3.0,
    )  # fmt: skip
    assert runs == ["a", *"aaabbb", *"aaabbb"]
    assert taken == {"a": [1 / 3, 1 / 3], "b": [1 / 3, 1 / 3]}


@pytest.mark.parametrize("fails", [False, True])
def test_threads_are_as_before(fails: bool) -> None:
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext(), timing.one_thread():
            assert torch.get_num_threads() == 1
            assert 1 / (0 if fails else 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# ---- rows of what is not there


def test_every_variant_has_a_row_with_numbers_or_a_reason() -> None:
    section = timed(Bed(SMALL), variants())
    assert [one.key for one in section.rows] == list(variants())
    assert all(bool(one.numbers) != (one.reason is not None) for one in section.rows)
    assert not [one for one in section.rows if one.failed]
    for key in ("rows", "maps", "vectors", "contributions", "eager", "captum"):
        assert row(section, key).numbers["ratio"] > 0
    assert (row(section, "statistics-pytorch").reason is None) == ("statistics" in BY_NAME)


def test_a_peer_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("nnsight", "transformer_lens", "transformer_lens.model_bridge", "captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, module, None)
    section = timed(Bed(SMALL), chosen(["nnsight", "transformer-lens", "captum"]))
    said = {one.key: one.reason.en for one in section.rows if one.reason}
    assert said == {
        "nnsight": "not installed: nnsight",
        "transformer-lens": "not installed: transformer_lens",
        "captum": "not installed: captum",
    }
    assert Bench((section,), {}, {}).correct


def test_what_fails_is_told_and_the_others_are_measured() -> None:
    def broken(bed: Bed):
        raise ValueError("no such thing\nand more")

    wanted = chosen(["maps"]) | {"x": Variant("x", Text("x", "x"), broken)}
    section = timed(Bed(SMALL), wanted)
    reason = row(section, "x").reason
    assert reason is not None
    assert reason.en == "failed: ValueError: no such thing"
    assert row(section, "maps").numbers
    assert Bench((section,), {}, {}).correct  # what others break is not ours
    wanted["x"] = replace(wanted["x"], ours=True)
    assert not Bench((timed(Bed(SMALL), wanted),), {}, {}).correct


def test_maps_that_do_not_fit_are_not_built() -> None:
    wanted = chosen(["maps"])
    wanted["maps"] = replace(wanted["maps"], kept=1e12)
    reason = row(timed(Bed(SMALL), wanted), "maps").reason
    assert reason is not None
    assert reason.en.startswith("not run: its maps take about 73,728,000.0 GB")


def test_an_unknown_variant_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="statistics-pytorch"):
        chosen(["bertviz"])


def test_what_must_hold_is_the_contract() -> None:
    must = {key: one.must for key, one in variants().items()}
    four, one_layer, long = Bed(TABLE[0]), Bed(TABLE[1]), Bed(Shape(1, 16384))
    decoding = DecodingBed(Shape(12, 272))
    assert [must["statistics"](bed) for bed in (four, one_layer, decoding)] == [1.10, 1.20, 1.08]
    assert must["statistics"](long) == pytest.approx(1.05 * (1 + 16384 / (24 * 768 + 2 * 16384)))
    assert [must["rows"](bed) for bed in (four, one_layer, decoding)] == [1.05, 1.05, 1.08]
    assert [must["gram-topk"](bed) for bed in (four, one_layer)] == [None, 1.35]
    assert not any(one(Bed(SMALL)) for one in must.values())
    assert (round(TABLE[0].bound, 3), round(TABLE[1].bound, 3)) == (1.05, 1.154)


# ---- decoding


def test_generating_keeps_a_row_of_each_token_and_every_bit() -> None:
    bed = DecodingBed(Shape(2, 20, 32, 4))
    with torch.inference_mode():
        output, calls = variants()["rows"].open(bed)()
        assert sum(call.weights.shape[2] for call in calls) == 8  # steps of a module are one call
        assert torch.equal(output, plain(bed)()[0])
    assert output.shape == (1, 20 + 4 * 128)
    section = timed(bed, chosen(["rows", "eager-attentions", "eager"]))
    assert section.part == "decoding"
    assert [one.key for one in section.rows] == [PLAIN, AGAIN, "rows", "eager-attentions"]
    assert row(section, "rows").numbers["apart"] == 0 < row(section, "eager-attentions").numbers["apart"]


# ---- truth


def slow_truth(weights: list[list[list[float]]]) -> dict[str, list[list[float]]]:
    """The four, by loops over weights ``[head][query][key]``."""
    found: dict[str, list[list[float]]] = {name: [] for name in STATISTICS}
    for rows in weights:
        found["entropy"].append([-math.fsum(p * math.log(p) for p in row if p) for row in rows])
        found["distance"].append([math.fsum(p * abs(i - j) for j, p in enumerate(row)) for i, row in enumerate(rows)])
        found["sink"].append([row[0] for row in rows])
        found["received"].append([math.fsum(row[j] for row in rows) for j in range(len(rows))])
    return found


def captured_small(bed: Bed) -> tuple[list[Any], list[Any]]:
    with torch.inference_mode():
        return captured(bed, "maps")()[1], captured(bed, "vectors")()[1]


def as_statistics(call: Any) -> types.SimpleNamespace:
    sums = slow_truth(call.weights[0].double().tolist())
    return types.SimpleNamespace(**{name: torch.tensor(sums[name])[None] for name in STATISTICS})


def test_the_truth_is_that_of_the_maps_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_attnviz.benchmarking.truth._AT_ONCE", 5 * 48)  # blocks of five rows: the last is shorter
    for maps, vectors in zip(*captured_small(Bed(SMALL)), strict=True):
        found = truth(vectors.query[0], vectors.key[0])
        for name, right in slow_truth(maps.weights[0].double().tolist()).items():
            torch.testing.assert_close(found[name], torch.tensor(right, dtype=torch.float64), atol=2e-5, rtol=2e-5)


def fake(name: str | None, by: float) -> Variant:
    """Statistics made of maps, one of them wrong in one place."""

    def opened(bed: Bed):
        def run():
            output, calls = captured(bed, "maps")()
            made = [types.SimpleNamespace(statistics=as_statistics(call)) for call in calls]
            if name is not None:
                getattr(made[-1].statistics, name)[0, 1, 7] += by
            return output, made

        return run

    return replace(variants()["statistics"], open=opened)


@pytest.mark.parametrize("name", [None, *STATISTICS])
@pytest.mark.parametrize("by", [3e-3, float("nan")])
def test_a_false_statistic_is_found(name: str | None, by: float) -> None:
    with torch.inference_mode():
        section = measuring.checked(Bed(SMALL), {"statistics": fake(name, by)})
    found, bench = row(section, "statistics"), Bench((section,), {}, {})
    assert [one for one in STATISTICS if not found.numbers[one] <= TOLERANCE] == ([] if name is None else [name])
    assert (bench.correct, bench.ok, len(bench.missed)) == ((name is None), (name is None), int(name is not None))


def test_the_statistics_of_this_release_are_true() -> None:
    with torch.inference_mode():
        section = measuring.checked(Bed(SMALL), variants())
    assert [one.key for one in section.rows] == ["statistics", "statistics-pytorch"]
    for one in section.rows:
        assert (one.reason is None) == ("statistics" in BY_NAME)
        assert section.met(one) in (None, True)
        assert not one.failed


def test_large_numbers_are_judged_by_their_size() -> None:
    query = torch.zeros(1, 1, 5000, 2)  # the first key receives ln 5000 or so
    right = {name: value[None] for name, value in truth(query[0], query[0]).items()}
    assert right["received"].max() > 9
    given = types.SimpleNamespace(**{name: value * (1 + 5e-5) for name, value in right.items()})
    found = deviations(given, query, query)
    assert found["distance"] == pytest.approx(5e-5, rel=1e-6)
    assert found["sink"] == pytest.approx(5e-5, rel=1e-6)


def test_how_far_outputs_are_apart() -> None:
    one = torch.tensor([1.0, 2.0])
    assert apart(one, one.clone()) == 0
    assert apart(one + torch.tensor([0.0, 0.5]), one) == 0.5
    for other in (one.double(), one[:1], torch.tensor([1.0, torch.nan])):
        assert apart(other, one) == math.inf


# ---- memory


def pages(mebibytes: int) -> mmap.mmap:
    """So much memory straight from the system: what the C library reuses depends on all that ran before."""
    found = mmap.mmap(-1, mebibytes * 2**20)
    for _ in range(mebibytes):
        found.write(b"x" * 2**20)
    return found


def test_memory_is_what_a_run_takes_and_not_what_was_there_before() -> None:
    def passes() -> mmap.mmap:
        pages(60).close()
        return pages(30)

    def keeps() -> list[mmap.mmap]:
        return [pages(60), pages(30)]

    pages(200).close()  # a higher peak, before
    for run, expected in ((passes, 60), (keeps, 90)):
        found = memory.measured(run, "cpu")
        assert [next(found), next(found)] == pytest.approx([expected * 2**20] * 2, abs=4 * 2**20)


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    cold, warm = memory.growth("maps", Shape(1, 1024, 32, 8), seed=0, device="cpu")
    size = Shape(1, 1024, 32, 8).matrix
    assert size < warm < 6 * size
    assert warm < cold + 2**20


@pytest.mark.parametrize(
    ("script", "said"), [("echo first >&2; echo 'KeyError: x' >&2; exit 1", "KeyError: x"), ("kill -9 $$", "signal 9")]
)
def test_a_process_that_does_not_live_to_tell_is_told(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = tmp_path / "python"
    dies.write_text(f"#!/bin/sh\n{script}\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    with pytest.raises(NotThereError, match=f"^failed: {said}$"):
        memory.growth("maps", SMALL, seed=0, device="cpu")


def test_memory_must_be_that_of_plain_and_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = {PLAIN: (300e6, 200e6), "statistics": (389e6, 281e6), "maps": (1e9, 1e9)}
    monkeypatch.setattr(measuring, "growth", lambda key, shape, **other: grown[key])
    wanted = {key: replace(variants()[key], open=lambda bed: slow(1)(bed)) for key in grown}
    cold, warm = measuring.remembered(Bed(TABLE[1]), wanted)
    assert [cold.met(one) for one in cold.rows] == [None, True, None]
    assert [warm.met(one) for one in warm.rows] == [None, False, None]
    assert row(warm, "statistics").must == pytest.approx(280e6)
    assert row(cold, "maps").numbers == {"growth": 1e9, "over": 700e6}
