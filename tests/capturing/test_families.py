"""Odd families: what a plain pass of whole sequences hands out is what ran, call for call, or an error in words."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from tests.models import ENDS, SMALL, ids, padded, tiny

SIDES = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 37, "decoder_ffn_dim": 37, "vocab_size": 97,
    "max_position_embeddings": 64, "decoder_start_token_id": 1,
} | ENDS  # fmt: skip
PICTURE = {
    "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip
Made = tuple[Any, dict[str, torch.Tensor]]


def whisper(**options: Any) -> Any:
    return made(
        "Whisper", "ForConditionalGeneration", SIDES | options, num_mel_bins=8, max_source_positions=16,
        max_target_positions=20,
    )  # fmt: skip


def made(family: str, model: str, options: dict[str, Any], **more: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**options | more)
        return getattr(transformers, f"{family}{model}")(config).eval()


def picture_reader() -> Any:
    vision = transformers.ViTConfig(**PICTURE)
    text = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=97, n_positions=64, add_cross_attention=True, is_decoder=True, **ENDS
    )
    joined = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    return transformers.VisionEncoderDecoderModel(joined).eval()


def sides(source: int, target: int) -> dict[str, torch.Tensor]:
    return {"input_ids": ids(2, source), "decoder_input_ids": ids(2, target, 1)}


def pixels(size: int = 16) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


WHOLE: dict[str, Callable[[], Made]] = {
    "bart, no mask, long source": lambda: (tiny("bart"), sides(6, 3)),
    "bart, no mask, long target": lambda: (tiny("bart"), sides(3, 6)),
    "t5, no mask": lambda: (tiny("t5"), sides(6, 3)),
    "whisper": lambda: (whisper(), {"input_features": torch.randn(2, 8, 32), "decoder_input_ids": ids(2, 5)}),
    "picture reader": lambda: (picture_reader(), {"pixel_values": pixels(), "decoder_input_ids": ids(2, 5)}),
    "vilt": lambda: (
        made("Vilt", "Model", SMALL | {"image_size": 16, "patch_size": 4, "max_position_embeddings": 64}),
        padded([7, 7], "right") | {"pixel_values": pixels()},
    ),
    "lxmert": lambda: (
        made(
            "Lxmert", "Model",
            {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 37, "vocab_size": 97, "l_layers": 1,
             "x_layers": 1, "r_layers": 1, "visual_feat_dim": 16, "max_position_embeddings": 64},
        ),
        {"input_ids": ids(2, 7), "visual_feats": torch.randn(2, 5, 16), "visual_pos": torch.rand(2, 5, 4)},
    ),
    "canine": lambda: (
        made(
            "Canine", "Model",
            {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 37,
             "num_hash_buckets": 97, "local_transformer_stride": 4, "max_position_embeddings": 64},
        ),
        {"input_ids": ids(2, 16)},
    ),
    "segformer": lambda: (
        made(
            "Segformer", "Model",
            {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32],
             "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2]},
        ),
        {"pixel_values": pixels(32)},
    ),
    "perceiver": lambda: (
        made(
            "Perceiver", "Model",
            {"num_latents": 5, "d_latents": 32, "d_model": 32, "num_blocks": 1, "num_self_attends_per_block": 2,
             "num_self_attention_heads": 4, "num_cross_attention_heads": 4},
        ),
        {"inputs": torch.randn(2, 7, 32)},
    ),
    "deberta": lambda: (
        made("DebertaV2", "Model", SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
        padded([7, 7], "right"),
    ),
    "mobilevit": lambda: (
        made("MobileViT", "Model", {"image_size": 64, "hidden_sizes": [16] * 3, "neck_hidden_sizes": [8] * 7}),
        {"pixel_values": pixels(64)},
    ),
    "swin": lambda: (
        made(
            "Swin", "Model",
            {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
             "window_size": 4},
        ),
        {"pixel_values": pixels(32)},
    ),
}  # fmt: skip
# Windows and patches folded into the batch: two inputs, and more than two rows.
FOLDED = ("mobilevit", "swin")


@pytest.mark.parametrize("name", WHOLE)
def test_maps_of_whole_sequences_are_the_calls_themselves(name: str) -> None:
    model, inputs = WHOLE[name]()
    with torch.no_grad():
        torch.manual_seed(0)  # ViLT chooses its patches at random
        plain = model(**inputs)
        torch.manual_seed(0)
        with av.capture(model) as recording:
            seen = model(**inputs)
    assert torch.equal(plain[0], seen[0])
    traces = recording.traces
    assert len(traces) == 2
    for item, trace in enumerate(traces if name not in FOLDED else ()):
        assert len(trace.maps) == len(recording.calls)
        for call in recording.calls:
            found = [
                m for m in trace.maps
                if (m.module, m.index, m.kind, m.layer) == (call.module, call.index, call.kind, call.layer)
            ]  # fmt: skip
            assert len(found) == 1
            assert found[0].weights.shape == call.weights[item].shape, call.module
            assert torch.equal(found[0].weights, call.weights[item])


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_folded_into_the_batch_is_the_sequences_own(name: str) -> None:
    """Each input gets the windows that it has when it runs alone."""
    model, inputs = WHOLE[name]()
    with av.capture(model) as recording, torch.no_grad():
        model(**inputs)
    for item, trace in enumerate(recording.traces):
        with av.capture(model) as alone, torch.no_grad():
            model(pixel_values=inputs["pixel_values"][item : item + 1])
        assert any("piece" in m.layout for m in trace.maps)
        for found, call in zip(trace.maps, alone.calls, strict=True):
            assert found.module == call.module
            weights = found.weights if "piece" in found.layout else found.weights[None]
            assert found.layout[-3:] == ("head", "query", "key")
            assert set(found.keys.kinds) <= {"latent", "patch"}
            torch.testing.assert_close(weights, call.weights, atol=1e-6, rtol=1e-5)


def test_the_keys_of_a_picture_are_not_the_words_of_the_decoder() -> None:
    model, inputs = WHOLE["picture reader"]()
    with torch.no_grad(), av.capture(model) as recording:
        model(**inputs)
    assert set(recording.traces[0].encoder.keys.ids) == {None}


HALF_SEEN: dict[str, Callable[[], Made]] = {
    "longt5": lambda: (
        made(
            "LongT5", "ForConditionalGeneration",
            {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "vocab_size": 97,
             "local_radius": 3, "decoder_start_token_id": 1, "pad_token_id": 0},
        ),
        sides(7, 5),
    ),
    "led": lambda: (
        made(
            "LED", "ForConditionalGeneration",
            {key: value for key, value in SIDES.items() if key != "max_position_embeddings"}
            | {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64, "attention_window": 4},
        ),
        sides(8, 5),
    ),
    "pegasus_x": lambda: (
        made("PegasusX", "ForConditionalGeneration", SIDES, num_global_tokens=2, block_size=4), sides(8, 5),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HALF_SEEN)
def test_a_stack_is_not_left_out_in_silence(name: str) -> None:
    """Their encoders attend in blocks, by einsum or in another layout: captured, or refused; never just absent."""
    model, inputs = HALF_SEEN[name]()
    try:
        with torch.no_grad(), av.capture(model) as recording:
            model(**inputs)
        stacks = set(recording.traces[0].stacks)
    except av.errors.CaptureError:
        assert not av.doctor(model, inputs).ok
        return
    assert stacks == {"encoder", "decoder", "cross"}


# ---- what is no attention over keys

HYBRID = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
          "num_key_value_heads": 2, "vocab_size": 97, "layer_types": ["linear_attention", "full_attention"],
          "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
          "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
          "shared_expert_intermediate_size": 16} | ENDS  # fmt: skip


def test_a_layer_without_a_softmax_over_keys_has_no_map_and_is_named() -> None:
    model = made("Qwen3Next", "Model", HYBRID)
    with torch.no_grad(), av.capture(model) as recording:
        model(ids(1, 7))
    assert [found.layer for found in recording.trace.decoder.maps] == [1]
    diagnosis = av.doctor(model, {"input_ids": ids(1, 7)})
    assert diagnosis.ok
    assert [(f.module, f.grade, f.reason) for f in diagnosis.findings if f.kind == "other"] == [
        ("layers.0.linear_attn", "none", "linear attention by the delta rule")
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_any_map_says_what_it_does_instead() -> None:
    model = made("Mamba", "Model", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 97})
    with pytest.raises(av.errors.NothingCapturedError, match="a state-space model"), av.capture(model):
        model(ids(1, 7))
    assert {f.reason for f in av.doctor(model, {"input_ids": ids(1, 7)}).findings} == {"a state-space model"}


class IdleAttention(torch.nn.Module):
    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        return x if other is None else (x @ other.transpose(1, 2)).sigmoid() @ other


def test_an_attention_layer_that_has_nothing_to_do_is_no_fault() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.real, self.idle = torch.nn.MultiheadAttention(8, 2, batch_first=True), IdleAttention()

        def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
            return self.idle(self.real(x, x, x)[0], other)

    x = torch.randn(1, 5, 8)
    with torch.no_grad(), av.capture(Model()) as recording:
        recording.model(x)
    assert len(recording.calls) == 1
    with pytest.raises(av.errors.CaptureError, match="IdleAttention ran"), av.capture(Model()) as recording:
        recording.model(x, x)


# ---- generation


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2}], ids=["greedy", "beams", "two"]
)
def test_a_generate_of_the_models_own_keeps_its_output(options: dict[str, Any]) -> None:
    """Whisper's generate() strips its sequences only when no dictionary was asked for."""
    model = whisper()
    features = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))
    plain = model.generate(features, max_new_tokens=5, do_sample=False, **options)
    with av.capture(model) as recording:
        seen = model.generate(features, max_new_tokens=5, do_sample=False, **options)
    assert type(seen) is type(plain)
    assert torch.equal(seen, plain)
    assert len(recording.traces) == len(plain)
    assert recording.traces[0].encoder.maps[0].weights.shape == (4, 16, 16)


@pytest.mark.parametrize("cache", ["static", "dynamic"])
def test_padding_is_dropped_under_every_cache(cache: str) -> None:
    model, reference, inputs = tiny("llama"), tiny("llama", "eager"), padded([6, 4], "left")
    model.generation_config.eos_token_id = None
    with av.capture(model) as recording:
        out = model.generate(**inputs, max_new_tokens=5, do_sample=False, cache_implementation=cache)
    for item, trace in enumerate(recording.traces):
        tokens = torch.cat([inputs["input_ids"][item][inputs["attention_mask"][item].bool()], out[item, 6:-1]])
        assert trace.decoder.keys.ids == tuple(tokens.tolist())
        with torch.no_grad():
            expected = reference(tokens[None], output_attentions=True).attentions
        torch.testing.assert_close(trace.decoder.maps[1].weights, expected[1][0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("side", [[5, 5], [5, 3]], ids=["whole", "padded"])
def test_generation_from_embeddings_knows_its_steps(side: list[int]) -> None:
    model, inputs = tiny("llama"), padded(side, "left")
    model.generation_config.eos_token_id = None
    embedded = model.get_input_embeddings()(inputs["input_ids"]).detach()
    with av.capture(model) as recording:
        out = model.generate(
            inputs_embeds=embedded, attention_mask=inputs["attention_mask"], max_new_tokens=4, do_sample=False
        )
    for item, trace in enumerate(recording.traces):
        found, prompt = trace.decoder.maps[0], side[item]
        assert found.weights.shape == (4, prompt + 3, prompt + 3)
        torch.testing.assert_close(found.weights.sum(-1), torch.ones(4, prompt + 3))
        assert found.steps == (0,) * prompt + (1, 2, 3)
        assert found.produced == (None,) * (prompt - 1) + tuple(map(str, out[item].tolist()))


def test_a_prompt_read_in_chunks_is_still_a_prompt() -> None:
    model, reference, tokens = tiny("llama"), tiny("llama", "eager"), ids(1, 8)
    model.generation_config.eos_token_id = None
    with av.capture(model) as recording:
        out = model.generate(tokens, max_new_tokens=3, do_sample=False, prefill_chunk_size=3)
    found = recording.trace.decoder.maps[1]
    with torch.no_grad():
        expected = reference(out[:, :-1], output_attentions=True).attentions
    torch.testing.assert_close(found.weights, expected[1][0], atol=2e-5, rtol=0)
    assert found.produced == (None,) * 7 + tuple(map(str, out[0, 8:].tolist()))


# ---- several inputs in one batch, folded or packed by the model itself


def test_pieces_that_stand_side_by_side_are_refused_for_several_inputs() -> None:
    """DepthPro lays the patches of all inputs side by side: which are whose, nobody says."""
    tower = {"model_type": "dinov2"} | PICTURE | {"image_size": 16, "out_features": ["stage1", "stage2"]}
    model = made(
        "DepthPro", "Model",
        {"image_model_config": tower, "patch_model_config": tower, "fov_model_config": tower, "patch_size": 16,
         "scaled_images_ratios": [0.5, 1], "scaled_images_overlap_ratios": [0.0, 0.2],
         "scaled_images_feature_dims": [32, 32], "intermediate_hook_ids": [0], "intermediate_feature_dims": [32],
         "fusion_hidden_size": 32, "use_fov_model": False},
    )  # fmt: skip
    with torch.no_grad(), av.capture(model) as recording:
        model(pixels(64))
    with pytest.raises(av.errors.CaptureError, match="Pass one input at a time"):
        _ = recording.traces
    with torch.no_grad(), av.capture(model) as recording:
        model(pixels(64)[:1])
    assert len(recording.trace.maps) > 0


def test_pictures_packed_into_one_sequence_are_one_trace() -> None:
    config = transformers.PixtralVisionConfig(**PICTURE, head_dim=8)
    model = transformers.PixtralVisionModel(config).eval()
    with torch.no_grad(), av.capture(model) as recording:
        model(pixels())
    found = recording.trace.maps[0]
    assert torch.equal(found.weights, recording.calls[0].weights[0])
    assert found.weights.shape == (4, 32, 32)
    assert not bool(found.weights[:, :16, 16:].any())  # no picture sees another


def test_heads_are_counted_by_what_the_module_says() -> None:
    """SegGPT reads the picture and its prompt as two rows of a batch, heads folded into it."""
    model = made("SegGpt", "Model", PICTURE | {"image_size": [32, 16], "merge_index": 0})
    with torch.no_grad(), av.capture(model) as recording:
        model(pixels()[:1], pixels()[:1], pixels()[:1])
    assert [tuple(call.weights.shape[:2]) for call in recording.calls] == [(2, 4), (1, 4)]
    with torch.no_grad(), av.capture(model) as recording:
        model(pixels(), pixels(), pixels())
    with pytest.raises(av.errors.CaptureError, match="Pass one input at a time"):  # pictures first, then all prompts
        _ = recording.traces
