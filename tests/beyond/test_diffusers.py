"""diffusers: tiny pipelines from configurations; what the painter attends to is captured through the same door."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

import hf_attnviz as av
from tests.capturing.extra_models import clip_like

diffusers = pytest.importorskip("diffusers")
# One of its own deprecations, of a default that it reads from a scheduler without a file.
pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")


TOKENS, LATENT, STEPS = 12, 8, 3
PROMPT = "the cat sat on the mat"


def redrawn(model: Any, seed: int = 0) -> Any:
    """Weights from a fixed seed, large enough for attention that is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                size = parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.5 * size)
    return model.eval()


def unet(**options: Any) -> Any:
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
    }
    return redrawn(
        diffusers.UNet2DConditionModel(
            sample_size=LATENT, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **blocks | options
        )
    )


def tokenizer() -> Any:
    made = clip_like()
    made.model_max_length, made.pad_token = TOKENS, made.eos_token
    return made


def text_encoder(model_class: Any, words: int) -> Any:
    size = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.CLIPTextConfig(
        vocab_size=words, max_position_embeddings=TOKENS, projection_dim=16, **size, **ends
    )
    return redrawn(model_class(config))


def vae() -> Any:
    return redrawn(
        diffusers.AutoencoderKL(
            block_out_channels=(8,),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
        )
    )


def text_to_image() -> Any:
    words = tokenizer()
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_encoder(transformers.CLIPTextModel, len(words)),
        tokenizer=words,
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(num_train_timesteps=10, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def text_to_image_with_two_readers() -> Any:
    """As SDXL has them: their next to last hidden states side by side, and zeros for the empty prompt."""
    words = tokenizer()
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=text_encoder(transformers.CLIPTextModel, len(words)),
        text_encoder_2=text_encoder(transformers.CLIPTextModelWithProjection, len(words)),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=64,
        ),
        scheduler=diffusers.DDIMScheduler(num_train_timesteps=10, clip_sample=False),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def paint(pipe: Any, **options: Any) -> torch.Tensor:
    size = {"height": LATENT, "width": LATENT, "num_inference_steps": STEPS, "output_type": "pt"}
    images: torch.Tensor = pipe(PROMPT, generator=torch.Generator().manual_seed(0), **size, **options).images
    return images


def test_text_to_image() -> None:
    """Cross-attention from each patch of the image to each token of the prompt, at every denoising step."""
    pipe = text_to_image()
    plain = paint(pipe)
    with av.capture(pipe) as recording:
        assert torch.equal(paint(pipe), plain)
    assert recording.model is pipe.unet
    assert len(recording.runs) == STEPS
    assert len(recording.traces) == STEPS * 2  # guidance: the empty prompt and the prompt
    empty, prompt = recording.traces[-2:]
    assert prompt.cross.layers == prompt.encoder.layers == (0, 1, 2, 3)
    assert [tuple(m.weights.shape) for m in prompt.cross] == [(4, n, TOKENS) for n in (64, 16, 64, 64)]
    assert [m.module.split(".")[0] for m in prompt.cross] == ["down_blocks", "mid_block", "up_blocks", "up_blocks"]
    texts = prompt.cross.keys.texts
    assert [text for text in texts if "<|" not in text] == PROMPT.split()
    assert not [text for text in empty.cross.keys.texts if "<|" not in text]
    assert not [hook for part in (pipe.unet, pipe.text_encoder) for m in part.modules() for hook in m._forward_hooks]


def test_hidden_states_that_nobody_read_have_no_words() -> None:
    pipe = text_to_image_with_two_readers()
    plain = paint(pipe)
    with av.capture(pipe) as recording:
        assert torch.equal(paint(pipe), plain)
    empty, prompt = recording.traces[-2:]
    assert [text for text in prompt.cross.keys.texts if "<|" not in text] == PROMPT.split()
    assert empty.cross.keys.texts == tuple(map(str, range(TOKENS)))


def attention_by_hand(module: Any, hidden: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    """The weights of diffusers' ``Attention`` from its own projections."""
    query, key = module.to_q(hidden), module.to_k(hidden if context is None else context)
    q, k = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (query, key))
    return (q @ k.transpose(-1, -2) * module.scale).softmax(-1)


@pytest.mark.parametrize("processor", ["AttnProcessor2_0", "AttnProcessor"])
def test_the_maps_are_those_of_the_unet(processor: str) -> None:
    model = unet()
    model.set_attn_processor(getattr(diffusers.models.attention_processor, processor)())
    truth: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if type(module).__name__ == "Attention":
            module.register_forward_pre_hook(
                lambda module, args, kwargs, name=name: truth.__setitem__(
                    name, attention_by_hand(module, args[0], kwargs.get("encoder_hidden_states"))
                ),
                with_kwargs=True,
            )
    inputs = {
        "sample": torch.randn(2, 4, LATENT, LATENT),
        "timestep": torch.tensor(3),
        "encoder_hidden_states": torch.randn(2, 5, 16),
    }
    with torch.no_grad():
        plain = model(**inputs).sample
        with av.capture(model) as recording:
            assert torch.equal(model(**inputs).sample, plain)
    assert len(recording.calls) == len(truth) == 8
    for call in recording.calls:
        torch.testing.assert_close(call.weights, truth[call.module], atol=1e-5, rtol=0)
    assert av.doctor(model, inputs).ok


Inputs = Mapping[str, Any]
LATENTS = {"hidden_states": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))}
TEXT = {"encoder_hidden_states": torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))}
SMALL = {"num_attention_heads": 2, "sample_size": 8, "patch_size": 2, "in_channels": 4, "num_layers": 2}
STEP, POOLED = {"timestep": torch.tensor([3, 3])}, {"pooled_projections": torch.ones(2, 10)}

TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], Inputs, list[tuple[str, int, int, int]]]] = {
    "PixArt": (
        lambda: diffusers.PixArtTransformer2DModel(
            **SMALL, attention_head_dim=8, cross_attention_dim=16, caption_channels=12, out_channels=8
        ),
        LATENTS
        | TEXT
        | STEP
        | {
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
            "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        },
        [("self", 0, 16, 16), ("cross", 0, 16, 5), ("self", 1, 16, 16), ("cross", 1, 16, 5)],
    ),
    "DiT": (
        lambda: diffusers.DiTTransformer2DModel(
            **SMALL, attention_head_dim=8, out_channels=8, num_embeds_ada_norm=10, norm_num_groups=4
        ),
        LATENTS | STEP | {"class_labels": torch.tensor([1, 2])},
        [("self", 0, 16, 16), ("self", 1, 16, 16)],
    ),
    "SD3": (  # image and text attend as one sequence
        lambda: diffusers.SD3Transformer2DModel(
            **SMALL,
            attention_head_dim=8,
            joint_attention_dim=12,
            caption_projection_dim=16,
            pooled_projection_dim=10,
            out_channels=4,
            pos_embed_max_size=8,
        ),
        LATENTS | TEXT | STEP | POOLED,
        [("self", 0, 21, 21), ("self", 1, 21, 21)],
    ),
    "Flux": (  # two lists of blocks, one after the other
        lambda: diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=10,
            axes_dims_rope=(4, 4, 8),
        ),
        TEXT
        | POOLED
        | {
            "hidden_states": torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0)),
            "timestep": torch.tensor([3.0, 3.0]),
            "img_ids": torch.cartesian_prod(torch.arange(1), torch.arange(4), torch.arange(4)).float(),
            "txt_ids": torch.zeros(5, 3),
        },
        [("self", 0, 21, 21), ("self", 1, 21, 21)],
    ),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_that_paint(name: str) -> None:
    make, inputs, expected = TRANSFORMERS[name]
    model = redrawn(make())
    found = av.doctor(model, inputs)
    assert found.ok, found
    with torch.no_grad(), av.capture(model) as recording:
        model(**inputs)
    assert [(c.kind, c.layer, *c.weights.shape[2:]) for c in recording.calls] == expected
    assert len(recording.traces) == 2
    for call in recording.calls:
        assert float(call.weights.std(-1).mean()) > 1e-3  # far from uniform, so that a mistaken map would be noticed
    if name == "PixArt":
        assert not recording.calls[1].weights[0, ..., 3:].any()
        assert recording.calls[1].weights[1, ..., 3:].any()


def test_the_weights_of_a_joint_attention_are_those_that_ran() -> None:
    """Against the very arguments of the kernel, seen by a spy in its place."""
    make, inputs, _ = TRANSFORMERS["SD3"]
    model, seen, kernel = redrawn(make()), [], F.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append((query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1))
        return kernel(query, key, *args, **kwargs)

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", spy)
        model(**inputs)
    with torch.no_grad(), av.capture(model) as recording:
        model(**inputs)
    for call, truth in zip(recording.calls, seen, strict=True):
        torch.testing.assert_close(call.weights, truth, atol=1e-5, rtol=0)


def test_attention_in_slices_of_the_batch_is_refused_in_words() -> None:
    pipe = text_to_image()
    pipe.enable_attention_slicing(1)
    plain = paint(pipe)
    with pytest.raises(av.errors.CaptureError, match=r"slices.*disable_attention_slicing"), av.capture(pipe):
        assert torch.equal(paint(pipe), plain)
    pipe.disable_attention_slicing()
    with av.capture(pipe) as recording:
        paint(pipe)
    assert len(recording.traces) == STEPS * 2


def test_other_parts_of_a_pipeline_can_be_captured() -> None:
    pipe = text_to_image()
    with av.capture(pipe.text_encoder, pipe.tokenizer) as recording:
        paint(pipe)
    assert [m.weights.shape for m in recording.traces[0].maps] == [(2, TOKENS, TOKENS)] * 2
    with torch.no_grad(), av.capture(pipe.vae) as recording:
        pipe.vae(torch.randn(1, 3, 8, 8))
    assert set(recording.trace.stacks) == {"encoder", "decoder"}


def test_a_pipeline_that_does_not_paint_names_its_parts() -> None:
    class Other:
        def __init__(self) -> None:
            self.reader, self.speaker = nn.Linear(2, 2), nn.Linear(2, 2)

    with pytest.raises(av.errors.ArgumentError, match=r"Other, which has the parts reader, speaker.*pipe\.reader"):
        av.capture(Other())
