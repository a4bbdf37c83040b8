"""Maps kept packed, or in another type: the same maps, rounded, in less memory."""

from pathlib import Path
from typing import Any

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.packed import PackedRows
from tests.models import ids, tiny

PACKED = av.Maps(packed=True)
ROUNDED = 2**-12  # half a step of float16 below one


def given(name: str, rows: int = 2, tokens: int = 9) -> dict[str, Any]:
    mask = torch.ones(rows, tokens, dtype=torch.long)
    mask[-1, :3] = 0
    found = {"input_ids": ids(rows, tokens), "attention_mask": mask}
    return found | ({"decoder_input_ids": ids(rows, 5)} if name in ("t5", "bart") else {})


def traces(model: Any, keep: Any, **inputs: Any) -> list[av.Trace]:
    with torch.no_grad(), av.capture(model, keep=keep) as recording:
        model(**inputs)
    return recording.traces


def alike(packed: list[av.Trace], plain: list[av.Trace]) -> None:
    assert len(packed) == len(plain)
    for one, other in zip(packed, plain, strict=True):
        assert len(one.maps) == len(other.maps)
        for a, b in zip(one.maps, other.maps, strict=True):
            assert isinstance(a.kept_weights, PackedRows) and isinstance(b.kept_weights, torch.Tensor)
            assert (a.positions, a.keys.ids, a.queries.ids) == (b.positions, b.keys.ids, b.queries.ids)
            assert a.weights.dtype == b.weights.dtype and a.weights.shape == b.weights.shape
            torch.testing.assert_close(a.weights, b.weights, rtol=0, atol=ROUNDED)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["gpt2", "bert", "llama", "t5", "bart", "distilbert"])
def test_packed_maps_are_the_maps_rounded(name: str, backend: str) -> None:
    """Padding to the left of the last row, both ways: over the kernel's tiles, and over weights in memory."""
    model, inputs = tiny(name, backend), given(name)
    alike(traces(model, PACKED, **inputs), traces(model, "maps", **inputs))


@pytest.mark.parametrize("more", [{}, {"num_beams": 3, "num_return_sequences": 2}, {"use_cache": False}], ids=str)
def test_packed_maps_of_a_generation(more: dict[str, Any]) -> None:
    model, found = tiny("gpt2"), []
    for keep in (PACKED, "maps"):
        with torch.no_grad(), av.capture(model, keep=keep) as recording:
            model.generate(ids(2, 7), max_new_tokens=6, min_new_tokens=6, do_sample=False, **more)
        found.append(recording.traces)
    alike(*found)


def test_rows_of_padding_alone_take_nothing() -> None:
    model, mask = tiny("gpt2", n_positions=300), torch.ones(2, 300, dtype=torch.long)
    mask[1, :290] = 0
    with torch.no_grad(), av.capture(model, keep=PACKED) as recording:
        model(ids(2, 300), attention_mask=mask)
    call = recording.calls[0]
    assert call.weights.shape == (2, 4, 300, 300)
    assert [tuple(block.shape) for block in call.rows.packed[1].blocks] == [(4, 256, 0), (4, 44, 10)]
    assert recording.traces[1].maps[0].shape == (4, 10, 10)


def test_a_causal_map_takes_a_quarter_and_says_the_same() -> None:
    """T² / 2 + 64 T numbers of two bytes against T² of four; entropies within 3e-4."""
    model, tokens = tiny("gpt2", n_positions=1024), ids(1, 1024)
    (packed,), (plain,) = traces(model, PACKED, input_ids=tokens), traces(model, "maps", input_ids=tokens)
    for one, other in zip(packed.maps, plain.maps, strict=True):
        assert isinstance(one.kept_weights, PackedRows)
        assert one.kept_weights.nbytes / other.weights.nbytes == pytest.approx(0.28125)
        both = (torch.special.entr(m.weights.double()).sum(-1) for m in (one, other))
        off = float((next(both) - next(both)).abs().max())
        assert 0 < off < 3e-4


@pytest.mark.parametrize("keep", [av.Maps(dtype=torch.float16), av.Maps(dtype=torch.bfloat16), PACKED], ids=str)
def test_a_file_holds_them_as_they_are(keep: av.Maps, tmp_path: Path) -> None:
    (trace,) = traces(tiny("gpt2"), keep, input_ids=ids(1, 9))
    read = av.load(trace.save(tmp_path / "t.safetensors"))
    for one, other in zip(trace.maps, read.maps, strict=True):
        assert type(one.kept_weights) is type(other.kept_weights)
        assert one.weights.dtype == other.weights.dtype == (keep.dtype or torch.float32)
        assert torch.equal(one.weights, other.weights)


def test_half_precision_is_joined_and_analysed_like_any_other() -> None:
    model, keep = tiny("gpt2"), av.Maps(dtype=torch.float16)
    with torch.no_grad(), av.capture(model, keep=keep) as recording:
        model.generate(ids(1, 5), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    trace = recording.trace
    assert trace.maps[0].weights.dtype == torch.float16 and trace.maps[0].shape == (4, 8, 8)
    assert bool(torch.tensor(av.head_statistics(trace).to_numpy()).isfinite().any())


def test_packed_maps_are_analysed_like_any_other() -> None:
    model = tiny("gpt2")
    (packed,), (plain,) = (traces(model, keep, input_ids=ids(1, 9)) for keep in (PACKED, "maps"))
    assert packed.decoder.stacked().shape == plain.decoder.stacked().shape
    one, other = (torch.tensor(av.rollout(trace).to_numpy()) for trace in (packed, plain))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_gradients_stay_as_they_are() -> None:
    model, found = tiny("gpt2"), []
    for keep in (PACKED, "maps"):
        with av.capture(model, keep=keep, gradients=True) as recording:
            model(ids(1, 6)).logits.sum().backward()
        found.append(recording.trace.maps[0])
    packed, plain = found
    assert isinstance(packed.kept_weights, PackedRows) and torch.equal(packed.gradient, plain.gradient)


@pytest.mark.parametrize("dtype", [torch.int8, "float16", 16])
def test_a_type_that_holds_no_weights_is_told(dtype: Any) -> None:
    with pytest.raises(av.errors.ArgumentError, match=r"floating-point type such as torch\.float16"):
        av.Maps(dtype=dtype)
