"""Compilers hide what runs: what is recorded runs uncompiled, or is refused in words; afterwards all is as it was."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import hf_attnviz as av
from tests.capturing.wrapped import GREEDY, TOLERANCE, eager_maps, same
from tests.capturing.wrapped import nothing_is_left as nothing_is_left
from tests.models import ids, tiny


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["whole", "whole, before", "in place", "forward", "function", "part", "child"])
def test_compiled_inside_the_block(how: str) -> None:
    """It runs uncompiled: the bits are those of the model as it was when the block was opened."""
    torch._dynamo.reset()
    model, reference, tokens = tiny("gpt2"), tiny("gpt2", "eager"), ids(2, 5)
    with torch.no_grad():
        plain = model(tokens).logits
        before = torch.compile(model, backend=_other_bits)
        compiled_bits = before(tokens).logits
        assert not torch.equal(plain, compiled_bits)  # so that the test can tell which of the two ran
        with av.capture(model) as recording:
            run: Any = model
            if how == "whole":
                run = torch.compile(model, backend=_other_bits)
            elif how == "whole, before":
                run = before
            elif how == "in place":
                model.compile(backend=_other_bits)
            elif how == "forward":
                model.forward = torch.compile(model.forward, backend=_other_bits)
            elif how == "function":
                run = torch.compile(lambda tokens: model(tokens), backend=_other_bits)
            elif how == "part":
                model.transformer.h[1].compile(backend=_other_bits)
            else:
                model.transformer.h[0] = torch.compile(model.transformer.h[0], backend=_other_bits)
            for _ in range(2):
                assert torch.equal(run(tokens).logits, plain)
        assert not torch.equal(run(tokens).logits, plain)  # compiled again, once nobody looks
    assert [len(r.calls) for r in recording.runs] == [2, 2]
    torch.testing.assert_close(recording.traces[3].decoder.stacked(), eager_maps(reference, tokens)[:, 1], **TOLERANCE)
    torch._dynamo.reset()


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_generate_that_compiles_by_itself(fullgraph: bool) -> None:
    """As it does with a static cache on a GPU; the tokens are the same, the scores those of the uncompiled model."""
    torch._dynamo.reset()
    model = tiny("llama")
    config = transformers.CompileConfig(backend=_other_bits, fullgraph=fullgraph)
    config._compile_all_devices = True
    asked = {"return_dict_in_generate": True, "output_scores": True, "cache_implementation": "static"} | GREEDY
    plain = model.generate(ids(2, 5), **asked)
    compiled = model.generate(ids(2, 5), compile_config=config, **asked)
    assert not torch.equal(plain.scores[2], compiled.scores[2])
    with av.capture(model) as recording:
        for _ in range(2):
            seen = model.generate(ids(2, 5), compile_config=config, **asked)
            same(list(plain.scores), list(seen.scores))
            assert torch.equal(seen.sequences, compiled.sequences)
    again = model.generate(ids(2, 5), compile_config=config, **asked)
    same(list(compiled.scores), list(again.scores))
    assert [len(run.calls) for run in recording.runs] == [6, 6]
    expected = eager_maps(tiny("llama", "eager"), seen.sequences[1:, :-1])[:, 0]
    torch.testing.assert_close(recording.traces[3].decoder.stacked(), expected, **TOLERANCE)
    torch._dynamo.reset()


def _other_bits(graph: Any, _: Any, **__: Any) -> Callable[..., Any]:
    """A compiler whose code rounds in another way, as the real one's does, without the minute that it takes."""

    def run(*args: Any) -> Any:
        return tuple(t * (1 + 1e-6) if _is_float(t) else t for t in graph.forward(*args))

    return run


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def test_two_threads_leave_the_compiler_as_it_was() -> None:
    models = [tiny("gpt2", num_hidden_layers=1), tiny("bert")]
    barrier = threading.Barrier(2)

    def work(model: Any) -> int:
        torch.set_num_threads(1)
        with av.capture(model) as recording, torch.no_grad():
            next(iter(model.children())).compile(backend="eager")
            for seed in range(5):
                barrier.wait(30)
                model(ids(1, 5, seed))
        return len(recording.runs)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, models)) == [5, 5]
    torch._dynamo.reset()


def test_a_full_graph_is_refused_by_the_compiler_in_our_words() -> None:
    model = tiny("gpt2")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad(), pytest.raises(RuntimeError, match="hf_attnviz records this model"), av.capture(model):
        compiled(ids(1, 4))
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_attention_function_is_not_silently_empty() -> None:
    @torch.jit.script
    def attend(x: torch.Tensor) -> torch.Tensor:
        return (x @ x.transpose(-1, -2)).softmax(-1) @ x

    class Scripted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = attend(x)
            return out

    model, x = Scripted(), torch.randn(2, 5, 8)
    plain = model(x)
    with pytest.raises(av.errors.NothingCapturedError, match="scripted"), av.capture(model):
        assert torch.equal(model(x), plain)
