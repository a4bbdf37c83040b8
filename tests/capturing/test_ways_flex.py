"""flex_attention on a CPU: its mask is a BlockMask that no eager function reads, and it hands back no weights.

Compiled once for real; the other tests run it uncompiled, for torch's compiler fails on a CPU when lengths change.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import hf_attnviz as av
from tests.capturing.ways import assert_decoder_is_one_pass, assert_packed, decoder, packed, read
from tests.models import ids, padded, tiny

# torch's own: transformers asks for a compiled mask, the compiler imports what is old, uncompiled is slow.
pytestmark = [
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:flex_attention called without"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]
DECODERS = ["llama", "mistral", "gemma3"]
WIDE = {"hidden_size": 64}


@pytest.fixture
def uncompiled() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):
        yield


def make(name: str, backend: str) -> Any:
    return decoder(name, backend, **WIDE) if name in DECODERS else tiny(name, backend, **WIDE)


def captured(model: Any, inputs: dict[str, Any]) -> av.Recording:
    with torch.no_grad():
        plain = model(**inputs)
        with av.capture(model) as recording:
            seen = model(**inputs)
        after = model(**inputs)
    assert torch.equal(plain[0], seen[0]) and torch.equal(plain[0], after[0])
    assert {(call.implementation, call.way) for call in recording.calls} == {("flex_attention", "kernel on identity")}
    return recording


def assert_eager(recording: av.Recording, reference: Any, inputs: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        expected = reference(**inputs, output_attentions=True).attentions
    for item, trace in enumerate(recording.traces):
        real = inputs["attention_mask"][item].bool()
        for found, wanted in zip(trace.stack(), expected, strict=True):
            torch.testing.assert_close(found.weights, wanted[item][:, real][:, :, real], atol=2e-5, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_compiled_as_it_is_in_earnest() -> None:
    inputs = padded([7, 4], "right")
    recording = captured(make("llama", "flex_attention"), inputs)
    assert_eager(recording, make("llama", "eager"), inputs)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", [*DECODERS, "bert"])
def test_maps_are_those_of_the_eager_twin(name: str, side: str) -> None:
    inputs = padded([7, 4], side)
    assert_eager(captured(make(name, "flex_attention"), inputs), make(name, "eager"), inputs)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", DECODERS)
def test_generation(name: str) -> None:
    model, reference, inputs = make(name, "flex_attention"), make(name, "eager"), padded([6, 4], "left")
    plain = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    with av.capture(model) as recording:
        seen = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert torch.equal(plain, seen)
    for sequence, trace in zip(seen.tolist(), recording.traces, strict=True):
        assert_decoder_is_one_pass(trace, reference, read(sequence, inputs["attention_mask"][trace.item]))


@pytest.mark.usefixtures("uncompiled")
def test_packed_documents_do_not_see_each_other() -> None:
    tokens, positions = packed([4, 6, 3])
    inputs = {"input_ids": tokens, "position_ids": positions, "use_cache": False}
    recording = captured(make("llama", "flex_attention"), inputs)
    assert_packed(recording.trace, make("llama", "eager"), tokens, [4, 6, 3])


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("kind", ["numbers", "truth"])
def test_a_mask_of_four_axes(kind: str) -> None:
    """Flex adds such a mask to the scores, also one of truth values, which then leans by one and hides nothing."""
    seen = torch.ones(7, 7, dtype=torch.bool).tril()[None, None]
    lowest = torch.finfo(torch.float32).min
    mask = seen if kind == "truth" else torch.where(seen, torch.zeros(()), lowest)
    model, tokens = make("bert", "flex_attention"), ids(1, 7)
    with torch.no_grad():
        plain = model(tokens, attention_mask=mask).last_hidden_state
        with av.capture(model, keep=["maps", "vectors"]) as recording:
            assert torch.equal(model(tokens, attention_mask=mask).last_hidden_state, plain)
    for call in recording.calls:
        by_hand = (call.query @ call.key.mT + mask).softmax(-1)
        torch.testing.assert_close(call.weights, by_hand, atol=2e-5, rtol=0)


@pytest.mark.usefixtures("uncompiled")
def test_the_doctor_finds_it_exact() -> None:
    diagnosis = av.doctor(make("mistral", "flex_attention"), padded([7, 4], "left"))
    assert diagnosis.ok, diagnosis
    assert {finding.grade for finding in diagnosis.findings} == {"exact"}
