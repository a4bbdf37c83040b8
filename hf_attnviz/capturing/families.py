"""What differs between model families, as rows of data: a name that a family uses, and what it means.

A new odd family is a new row here, proved by ``attnviz doctor``.
"""

import re
from typing import Final

# A part of a module's name -> the stack it stands in. The first that matches, read from the root, wins.
STACK_OF_SEGMENT: Final[dict[str, str]] = {
    "vision_model": "vision",
    "vision_tower": "vision",
    "vision_encoder": "vision",
    "visual": "vision",
    "image_encoder": "vision",
    "audio_model": "audio",
    "audio_tower": "audio",
    "audio_encoder": "audio",
    "text_model": "text",
    "text_encoder": "text",
    "language_model": "decoder",
    "text_decoder": "decoder",
}

# What the model reads first -> the stack of a model that has one tower and no causal mask.
STACK_OF_INPUT: Final[dict[str, str]] = {
    "pixel_values": "vision",
    "pixel_values_videos": "vision",
    "input_features": "audio",
    "input_values": "audio",
}

# Stacks that read something other than tokens.
TOWERS: Final = frozenset({"vision", "audio"})

# Arguments of an attention module that carry another sequence to look at.
CROSS_INPUTS: Final = (
    "key_value_states",
    "encoder_hidden_states",
    "cross_attention_states",
    "context",
    "memory",
)

# Parts of a module's name, or of its class', that mean cross-attention.
CROSS_NAMES: Final = ("crossattention", "cross_attn", "cross_attention", "encoder_attn", "encdecattention")

# Settings of generate() under which tokens are drafted and rejected; such runs are refused in words.
DRAFTING: Final = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")

# A class whose name ends like this attends; when it runs and no attention is seen in it, that is told.
ATTENTION_CLASS: Final = re.compile(r"Attention(s|\d|Block|Layer|Module)?$")

# Parameters that put positions of their own before a tower's patches -> what such a position is called.
TOKENS_BEFORE: Final[dict[str, str]] = {
    "cls_token": "CLS",
    "class_token": "CLS",
    "class_embedding": "CLS",
    "distillation_token": "DIST",
    "register_tokens": "REG",
}

# The same, behind the patches.
TOKENS_AFTER: Final[dict[str, str]] = {"detection_tokens": "DET"}

# Types that read their patches in an order of their own, drawn anew each time: no patch of theirs has a sure name.
SHUFFLED: Final = frozenset({"vit_mae"})

# Types whose encoder reads the last map of a convolutional backbone, row by row -> pixels of one of its cells.
FEATURE_MAP: Final[dict[str, int]] = {"detr": 32, "conditional_detr": 32, "table-transformer": 32}

# Types that attend to tokens and patches in one sequence -> which of the two stand first.
TOKENS_AND_PATCHES: Final[dict[str, str]] = {"layoutlmv3": "tokens", "git": "patches"}

# Types of spectrogram transformers whose patches go row by row through frequencies, and in a row through time.
SPECTROGRAM_PATCHES: Final = frozenset({"audio-spectrogram-transformer"})

# Towers that read the patches of ``grid_thw`` block by block: all patches that will be merged to one stand together.
BLOCKWISE: Final = frozenset({"qwen2_vl", "qwen3_vl"})

# Settings that name the token which stands for one patch, or a few merged, in a decoder's input.
PATCH_TOKENS: Final = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")

# Settings that name the token which stands for sound; what its frames were pooled to, the inputs do not tell.
SOUND_TOKENS: Final = ("audio_token_id", "audio_token_index")

# Settings that say how many patches, along each side of the picture, become one position of the decoder.
MERGES: Final = ("spatial_merge_size", "scale_factor")

# Types that pack a picture and the same picture in tiles, unpadded, a token at the end of each row.
TILED: Final = frozenset({"llava_next"})

# Types that compare every picture (or sound) of a forward with every text of it.
COMPARING: Final = frozenset(
    {"align", "altclip", "chinese_clip", "clap", "clip", "groupvit", "metaclip_2", "siglip", "siglip2", "x_clip"}
)

# Methods that run a part of a model by themselves; what they read is read by their own arguments.
ASIDES: Final = (
    "get_image_features",
    "get_video_features",
    "get_text_features",
    "get_audio_features",
    "get_image_embeddings",
)

# Parts of class names that mean: the patches are summed up in latents of the model's own, in no order of the picture.
SUMMING_UP: Final = ("resampler", "qformer", "perceiver", "abstractor", "querytransformer", "ariaprojector")

# Inputs that carry pictures or sound (their sizes are kept), and inputs that say how these lie (kept as they are).
MEDIA: Final = ("pixel_values", "pixel_values_videos", "input_features", "input_values")
MEDIA_SIZES: Final = ("image_grid_thw", "video_grid_thw", "image_sizes", "spatial_shapes")
