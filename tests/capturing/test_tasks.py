"""Threads, tasks, generators and nested blocks: each recording hears what is its own, and nothing is mixed."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import hf_attnviz as av
from tests.capturing.test_undo import marks
from tests.capturing.wrapped import GREEDY, TOLERANCE, eager_maps
from tests.capturing.wrapped import nothing_is_left as nothing_is_left
from tests.models import ids, tiny


def in_a_loop_of_its_own(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What a task gives; in a thread of its own, for the tests of pages keep a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(main())).result()


def test_two_blocks_on_one_model_in_two_threads_hear_their_own_runs() -> None:
    model, barrier = tiny("gpt2"), threading.Barrier(2)

    def work(length: int) -> list[int]:
        torch.set_num_threads(1)
        with av.capture(model) as recording, torch.no_grad():
            for seed in range(8):
                barrier.wait(30)
                model(ids(1, length, seed))
            barrier.wait(30)
        return [len(trace.decoder.keys) for trace in recording.traces]

    before = marks(model)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, [4, 6])) == [[4] * 8, [6] * 8]
    assert marks(model) == before


def test_worker_threads_inside_a_block_are_heard() -> None:
    model, reference = tiny("gpt2"), tiny("gpt2", "eager")
    lengths = [3, 4, 5, 6, 7, 8, 9, 10]

    def work(length: int) -> None:
        torch.set_num_threads(1)
        with torch.no_grad():
            model(ids(1, length))

    with av.capture(model) as recording, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, lengths))
    assert sorted(run.number for run in recording.runs) == list(range(8))
    assert sorted(len(trace.decoder.keys) for trace in recording.traces) == lengths
    for trace in recording.traces:
        expected = eager_maps(reference, ids(1, len(trace.decoder.keys)))[:, 0]
        torch.testing.assert_close(trace.decoder.stacked(), expected, **TOLERANCE)


def test_an_attached_recording_hears_every_thread_also_those_in_blocks_of_their_own() -> None:
    model = tiny("gpt2")
    attached = av.attach(model, last=9)
    try:

        def work() -> int:
            with torch.no_grad(), av.capture(model) as recording:
                model(ids(1, 5))
            return len(recording.runs)

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(work).result() == 1
            pool.submit(model, ids(1, 6)).result()
    finally:
        attached.detach()
    assert [len(trace.decoder.keys) for trace in attached.traces] == [5, 6]


def test_tasks_that_interleave_on_one_model() -> None:
    model = tiny("gpt2")

    async def ask(length: int, others: asyncio.Barrier) -> list[int]:
        with av.capture(model) as recording:
            for way in ("here", "thread", "executor"):
                await others.wait()  # both blocks are open now
                if way == "here":
                    model(ids(1, length))
                elif way == "thread":
                    await asyncio.to_thread(model, ids(1, length + 10))
            await others.wait()
        return [len(trace.decoder.keys) for trace in recording.traces]

    async def main() -> list[list[int]]:
        others = asyncio.Barrier(2)
        return await asyncio.gather(ask(4, others), ask(6, others))

    before = marks(model)
    assert in_a_loop_of_its_own(main) == [[4, 14], [6, 16]]
    assert marks(model) == before


def test_an_executor_inside_a_task_is_heard() -> None:
    model = tiny("gpt2")

    async def main() -> int:
        with av.capture(model) as recording:
            await asyncio.get_running_loop().run_in_executor(None, model, ids(1, 5))
        return len(recording.trace.decoder.keys)

    assert in_a_loop_of_its_own(main) == 5


def test_a_block_inside_a_generator() -> None:
    model = tiny("gpt2")
    before = marks(model)

    def answers() -> Iterator[av.Trace]:
        with av.capture(model) as recording:
            for length in (3, 4):
                model.generate(ids(1, length), **GREEDY)
                yield recording.traces[-1]

    assert [len(trace.decoder.keys) for trace in answers()] == [5, 6]
    assert marks(model) == before
    left = answers()
    next(left)
    with ThreadPoolExecutor(1) as pool:  # left in another thread than the one that entered
        pool.submit(left.close).result()
    assert marks(model) == before
    with av.capture(model) as recording:
        model(ids(1, 5))
    assert len(recording.runs) == 1


@pytest.mark.parametrize("part_first", [False, True])
def test_a_model_and_a_part_of_it_at_once(part_first: bool) -> None:
    model, reference = tiny("bert"), tiny("bert", "eager")
    before, expected = marks(model), eager_maps(reference, ids(2, 5))
    parts = [model.encoder.layer[1], model] if part_first else [model, model.encoder.layer[1]]
    with torch.no_grad(), av.capture(parts[0]) as outer, av.capture(parts[1]) as inner:
        model(ids(2, 5))
    assert marks(model) == before
    part, whole = (outer, inner) if part_first else (inner, outer)
    assert [call.module for call in part.calls] == ["attention.self"] and len(whole.calls) == 2
    assert torch.equal(part.calls[0].weights, whole.calls[1].weights)
    torch.testing.assert_close(part.calls[0].weights, expected[1], **TOLERANCE)
