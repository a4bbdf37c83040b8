"""Generation: the joined map of each returned sequence equals one plain eager pass over what it read."""

from typing import Any

import pytest
import torch

import hf_attnviz as av
from tests.capturing.ways import assert_sides_are_one_pass
from tests.models import ids, padded, tiny

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "num_return_sequences": 2, "top_k": 0},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "beam sampling": {"do_sample": True, "num_beams": 3},
    "no cache": {"do_sample": False, "use_cache": False},
    "beams, no cache": {"do_sample": False, "num_beams": 2, "use_cache": False},
}
DECODERS = ["gpt2", "llama"]
ENCODER_DECODERS = ["bart", "t5"]


def run(
    model: Any, inputs: dict[str, torch.Tensor], options: dict[str, Any], **capture: Any
) -> tuple[Any, av.Recording]:
    torch.manual_seed(0)
    plain = model.generate(**inputs, max_new_tokens=6, **options)
    torch.manual_seed(0)
    with av.capture(model, **capture) as recording:
        seen = model.generate(**inputs, max_new_tokens=6, **options)
    assert type(seen) is type(plain)
    assert torch.equal(seen, plain)
    return seen, recording


def without_padding(row: list[int], mask: list[int], prompt: int) -> list[int]:
    """The real prompt tokens and the new ones up to the end token (0 pads, 2 ends)."""
    new = row[prompt:]
    end = new.index(2) + 1 if 2 in new else len(new)
    while end and 2 not in new[:end] and new[end - 1] == 0:
        end -= 1
    return [t for t, real in zip(row[:prompt], mask, strict=True) if real] + new[:end]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DECODERS)
def test_joined_map_of_a_decoder_equals_one_pass(name: str, way: str) -> None:
    model, reference = tiny(name), tiny(name, "eager")
    inputs = padded([7, 4], "left")
    sequences, recording = run(model, inputs, WAYS[way])
    each = len(sequences) // 2
    assert len(recording.runs) == 1
    assert [(t.item, t.candidate) for t in recording.traces] == [divmod(n, each) for n in range(len(sequences))]
    for sequence, trace in zip(sequences.tolist(), recording.traces, strict=True):
        prompt = sum(inputs["attention_mask"][trace.item].tolist())
        tokens = without_padding(sequence, inputs["attention_mask"][trace.item].tolist(), 7)
        with torch.no_grad():
            expected = reference(torch.tensor([tokens[:-1]]), output_attentions=True).attentions
        stack = trace.decoder
        assert stack.queries.ids == tuple(tokens[:-1])
        assert stack.keys.ids == tuple(tokens[:-1])
        for layer, found in enumerate(stack.maps):
            torch.testing.assert_close(found.weights, expected[layer][0], atol=2e-5, rtol=0)
            new = len(tokens) - prompt
            assert found.steps == (0,) * prompt + tuple(range(1, new))
            assert found.produced == (None,) * (prompt - 1) + tuple(map(str, tokens[prompt:]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_joined_maps_of_an_encoder_decoder_equal_one_pass(name: str, way: str) -> None:
    model, reference = tiny(name), tiny(name, "eager")
    inputs = padded([7, 4], "right")
    sequences, recording = run(model, inputs, WAYS[way])
    for sequence, trace in zip(sequences.tolist(), recording.traces, strict=True):
        source = [t for t in inputs["input_ids"][trace.item].tolist() if t]
        tokens = without_padding(sequence, [1], 1)
        with torch.no_grad():
            expected = reference(
                input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([tokens[:-1]]), output_attentions=True
            )
        assert set(trace.stacks) == {"encoder", "decoder", "cross"}
        assert trace.cross.keys.ids == trace.encoder.keys.ids == tuple(source)
        assert trace.cross.queries.ids == trace.decoder.queries.ids == tuple(tokens[:-1])
        assert_sides_are_one_pass(trace, expected)
        assert trace.cross.maps[0].produced == tuple(map(str, tokens[1:]))
        assert trace.cross.maps[0].steps == tuple(range(len(tokens) - 1))


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_the_dictionary_form_comes_back_as_asked(name: str) -> None:
    model = tiny(name)
    options = {"num_beams": 2, "return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 4}
    plain = model.generate(ids(1, 5), do_sample=False, **options)
    with av.capture(model):
        seen = model.generate(ids(1, 5), do_sample=False, **options)
    assert type(seen) is type(plain)
    assert torch.equal(seen.sequences_scores, plain.sequences_scores)


def test_rows_count_from_the_end_of_each_forward() -> None:
    model = tiny("gpt2")
    _, whole = run(model, padded([7, 4], "left"), WAYS["greedy"])
    _, last = run(model, padded([7, 4], "left"), WAYS["greedy"], queries=[-1])
    for a, b in zip(whole.traces, last.traces, strict=True):
        prompt = a.decoder.maps[0].steps.count(0)
        for full, rows in zip(a.decoder, b.decoder, strict=True):
            assert rows.positions == tuple(range(prompt - 1, len(full.keys)))
            torch.testing.assert_close(rows.weights, full.weights[:, prompt - 1 :], rtol=0, atol=1e-6)
            assert rows.produced == tuple(full.produced or ())[prompt - 1 :]


def test_a_loop_by_hand_joins_into_one_run() -> None:
    model, reference = tiny("llama"), tiny("llama", "eager")
    tokens = ids(1, 8)
    with av.capture(model) as recording, torch.no_grad():
        out = model(tokens[:, :5])
        for n in range(5, 8):
            out = model(tokens[:, n : n + 1], past_key_values=out.past_key_values)
        model(tokens)
        expected = reference(tokens, output_attentions=True).attentions
    assert len(recording.runs) == 2
    joined, plain = recording.traces
    for layer in range(2):
        torch.testing.assert_close(joined.decoder.layer(layer).weights, expected[layer][0], atol=2e-5, rtol=0)
    assert joined.decoder.maps[0].steps == (0, 0, 0, 0, 0, 1, 2, 3)
    assert joined.decoder.maps[0].produced == (None,) * 4 + tuple(map(str, tokens[0, 5:].tolist())) + (None,)
    assert plain.decoder.maps[0].produced is None
