"""Layers that attend in windows, chunks or hash buckets are read at the positions of the whole sequence."""

from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from tests.models import ENDS, SMALL, ids, padded
from tests.sweep.build import built


def longformer(window: int = 4) -> Any:
    torch.manual_seed(0)
    config = transformers.LongformerConfig(**SMALL, **ENDS, attention_window=window, max_position_embeddings=64)
    model = transformers.LongformerModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


def reformer(kind: str) -> Any:
    torch.manual_seed(0)
    config = transformers.ReformerConfig(
        attn_layers=[kind], hidden_size=32, num_attention_heads=4, attention_head_size=8, axial_pos_embds_dim=(16, 16),
        axial_pos_shape=(4, 4), vocab_size=97, feed_forward_size=37, local_attn_chunk_length=4, lsh_attn_chunk_length=4,
        num_buckets=2, num_hashes=2, hash_seed=0, is_decoder=False, max_position_embeddings=16,
    )  # fmt: skip
    return transformers.ReformerModel(config).eval()


def by_hand(model: Any, inputs: dict[str, Any], reach: int) -> torch.Tensor:
    """Longformer's first layer written as one dense softmax: every key at most ``reach`` away, and real."""
    layer = model.encoder.layer[0].attention.self
    with torch.no_grad():
        hidden = model.embeddings(inputs["input_ids"])
        batch, length = inputs["input_ids"].shape
        query, key = (part(hidden).view(batch, length, 4, 8).transpose(1, 2) for part in (layer.query, layer.key))
        scores = query @ key.transpose(2, 3) / 8**0.5
        place = torch.arange(length)
        near = (place[:, None] - place[None]).abs() <= reach
        real = inputs["attention_mask"].bool()
        return scores.masked_fill(~(near & real[:, None, None]), -torch.inf).softmax(-1)


@pytest.mark.parametrize("lengths", [[8, 8], [8, 5], [10, 7]], ids=["whole", "padded", "filled up by the model"])
def test_a_sliding_window_is_read_at_the_positions_of_the_sequence(lengths: list[int]) -> None:
    model, inputs = longformer(), padded(lengths, "right")
    with torch.no_grad():
        plain = model(**inputs)[0]
        with av.capture(model) as recording:
            seen = model(**inputs)[0]
    assert torch.equal(plain, seen)
    found = recording.calls[0]
    assert found.grade == "exact"
    assert found.weights.shape == (2, 4, max(lengths), max(lengths))
    expected = by_hand(model, inputs, reach=2)
    for item, length in enumerate(lengths):
        torch.testing.assert_close(found.weights[item, :, :length], expected[item, :, :length], atol=2e-6, rtol=0)
        trace = recording.traces[item]
        assert trace.encoder.keys.ids == tuple(inputs["input_ids"][item, :length].tolist())
        assert trace.encoder.maps[0].weights.shape == (4, length, length)


def test_global_tokens_are_seen_by_all_and_see_all() -> None:
    model, inputs = longformer(), padded([12], "right")
    first = torch.zeros(1, 12, dtype=torch.long)
    first[0, 0] = 1
    with torch.no_grad(), av.capture(model) as recording:
        model(**inputs, global_attention_mask=first)
    weights = recording.trace.encoder.maps[0].weights
    assert bool((weights[:, :, 0] > 0).all())
    assert bool((weights[:, 0] > 0).all())
    assert not bool(weights[:, 6, 1:4].any())
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 12))


@pytest.mark.parametrize("kind", ["lsh", "local"])
@pytest.mark.filterwarnings("ignore")
def test_buckets_and_chunks_give_the_output_again(kind: str) -> None:
    """What the layer puts out is the weights at the positions of the sequence, times its own values."""
    model, tokens = reformer(kind), ids(2, 16)
    layer = model.encoder.layers[0].attention.self_attention
    taken: list[torch.Tensor] = []
    with torch.no_grad():
        plain = model(tokens)[0]
        with av.capture(model) as recording:
            handles = [
                layer.value.register_forward_hook(lambda *a: taken.append(a[2])),
                layer.register_forward_hook(lambda *a: taken.append(a[2][0])),
            ]
            seen = model(tokens)[0]
            for handle in handles:
                handle.remove()
    assert torch.equal(plain, seen)
    weights = recording.calls[0].weights
    assert weights.shape == (2, 4, 16, 16)
    value = taken[0].view(2, 16, 4, 8).transpose(1, 2)
    output = taken[-1].view(2, 16, 4, 8).transpose(1, 2)
    torch.testing.assert_close(weights @ value, output, atol=1e-5, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 16))


def test_random_buckets_leave_the_random_numbers_alone() -> None:
    model, tokens = reformer("lsh"), ids(1, 16)
    model.encoder.layers[0].attention.self_attention.hash_seed = None
    results = []
    for captured in (False, True):
        torch.manual_seed(3)
        with torch.no_grad():
            if captured:
                with av.capture(model):
                    out = model(tokens)[0]
            else:
                out = model(tokens)[0]
        results.append((out, torch.rand(3)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_a_layer_that_would_drop_weights_is_refused_in_words() -> None:
    model = longformer().train()
    with pytest.raises(av.errors.CaptureError, match=r"dropout.*model\.eval"), av.capture(model):
        model(**padded([8], "right"))


@pytest.mark.filterwarnings("ignore")
def test_a_second_run_writes_into_a_cache_of_its_own() -> None:
    """Informer's decoder fills a cache; each run for us begins with it as it was, and leaves the model's alone."""
    model, inputs = built("informer")
    with torch.no_grad():
        plain = model(**inputs)
        with av.capture(model) as recording:
            seen = model(**inputs)
    assert torch.equal(plain[0], seen[0])
    lengths = [out.past_key_values.get_seq_length() for out in (plain, seen)]
    assert lengths[0] == lengths[1] > 0
    assert {call.grade for call in recording.calls if "run again" in call.implementation} == {"exact"}
