"""Masks that users bring: 4-D ones of truth values and of numbers, and documents packed into one row."""

from typing import Any

import pytest
import torch

import hf_attnviz as av
from tests.capturing.ways import assert_packed, captured, decoder, packed
from tests.models import ids, tiny

NEAR = {"atol": 2e-5, "rtol": 0}
BACKENDS = ["sdpa", "eager"]
LOWEST = torch.finfo(torch.float32).min


def tree(length: int) -> torch.Tensor:
    """Every position sees itself and its ancestors in a binary tree; no window and no padding gives such a mask."""
    mask = torch.eye(length, dtype=torch.bool)
    for row in range(1, length):
        mask[row] |= mask[(row - 1) // 2]
    return mask


def numbers(mask: torch.Tensor, lowest: float) -> torch.Tensor:
    return torch.where(mask, torch.zeros(()), lowest)


@pytest.mark.parametrize("kind", ["truth", "lowest", "infinity"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "mistral"])
def test_a_mask_of_four_axes(name: str, kind: str) -> None:
    mask = torch.stack([tree(7), torch.ones(7, 7, dtype=torch.bool).tril()])[:, None]
    given = {"truth": mask, "lowest": numbers(mask, LOWEST), "infinity": numbers(mask, -torch.inf)}[kind]
    make: Any = tiny if name == "bert" else decoder
    tokens = ids(2, 7)
    recording = captured(make(name), {"input_ids": tokens, "attention_mask": given})
    with torch.no_grad():
        inputs = {"input_ids": tokens, "attention_mask": numbers(mask, LOWEST)}
        expected = make(name, "eager")(**inputs, output_attentions=True).attentions
    for item, trace in enumerate(recording.traces):
        for found, wanted in zip(trace.stack(), expected, strict=True):
            torch.testing.assert_close(found.weights, wanted[item], **NEAR)
            assert not found.weights[:, ~mask[item, 0]].any()
            assert found.keys.ids == tuple(tokens[item].tolist())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_of_numbers_that_only_leans(backend: str) -> None:
    """Numbers between nothing and the lowest, as ALiBi has them, are added to the scores: by hand."""
    model, tokens = tiny("bert", backend), ids(1, 6)
    lean = -0.5 * (torch.arange(6)[:, None] - torch.arange(6)).abs().float()[None, None]
    recording = captured(model, {"input_ids": tokens, "attention_mask": lean}, keep=["maps", "vectors"])
    for call in recording.calls:
        by_hand = (call.query @ call.key.mT + lean).softmax(-1)
        torch.testing.assert_close(call.weights, by_hand, **NEAR)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_see_nothing_are_counted_and_left_out(backend: str) -> None:
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    mask[2] = False
    given = numbers(mask, LOWEST)[None, None]
    recording = captured(decoder("llama", backend), {"input_ids": ids(1, 6), "attention_mask": given})
    assert {call.masked_rows for call in recording.calls} == {1}
    rest = [0, 1, 3, 4, 5]
    for found in recording.trace.decoder:
        assert torch.allclose(found.weights[:, rest].sum(-1), torch.ones(()), atol=1e-5)
        assert not found.weights[:, rest][:, :, 2:].triu(2).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_of_four_axes_over_a_cache(backend: str) -> None:
    """Several continuations of one prompt, side by side, none of which sees another: tree decoding."""
    model, reference = decoder("llama", backend), decoder("llama", "eager")
    prompt, branches = ids(1, 4), ids(1, 3, 5)
    mask = torch.cat([torch.ones(3, 4), torch.eye(3)], dim=1).bool()[None, None]
    with torch.no_grad(), av.capture(model) as recording:
        past = model(prompt).past_key_values
        model(
            branches,
            past_key_values=past,
            attention_mask=mask if backend == "sdpa" else numbers(mask, LOWEST),
            position_ids=torch.full((1, 3), 4),
        )
    assert len(recording.runs) == 1
    found = recording.trace.decoder.maps
    for branch in range(3):
        alone = torch.cat([prompt, branches[:, branch : branch + 1]], dim=1)
        with torch.no_grad():
            expected = reference(alone, output_attentions=True).attentions
        for one, wanted in zip(found, expected, strict=True):
            columns = [0, 1, 2, 3, 4 + branch]
            torch.testing.assert_close(one.weights[:, 4 + branch][:, columns], wanted[0, :, 4], **NEAR)
            assert float(one.weights[:, 4 + branch].sum(-1).max()) < 1.00001


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
def test_packed_documents_do_not_see_each_other(name: str, backend: str) -> None:
    tokens, positions = packed([4, 6, 3])
    inputs = {"input_ids": tokens, "position_ids": positions, "use_cache": False}
    recording = captured(decoder(name, backend), inputs)
    assert_packed(recording.trace, decoder(name, "eager"), tokens, [4, 6, 3])


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_documents_by_a_mask_of_four_axes(backend: str) -> None:
    tokens, positions = packed([4, 6, 3])
    mask = torch.block_diag(*(torch.ones(n, n).tril() for n in (4, 6, 3))).bool()
    given = mask[None, None] if backend == "sdpa" else numbers(mask, LOWEST)[None, None]
    inputs = {"input_ids": tokens, "position_ids": positions, "attention_mask": given}
    recording = captured(decoder("llama", backend), inputs)
    assert_packed(recording.trace, decoder("llama", "eager"), tokens, [4, 6, 3])
