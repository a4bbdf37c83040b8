"""What differs between model families, as rows of data: a name that a family uses, and what it means.

A new odd family is a new row here, proved by ``attnviz doctor``.
"""

import functools
import re
from dataclasses import dataclass
from typing import Final

from hf_attnviz.language import Text

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
    "speech_encoder": "audio",
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

# The package that a model comes from -> the stack of a model that says nothing else.
STACK_OF_PACKAGE: Final[dict[str, str]] = {"timm": "vision"}

# Classes that fold windows, frames or pieces into the batch, those of one input together, as was checked. Others are
# refused with several inputs: DepthPro lays the pieces of all inputs side by side.
FOLDED: Final = re.compile(
    r"(Clap\w*|EfficientLoFTR|Blip2QFormerMultiHead|LwDetrViT|MobileViT|Sam2MultiScale|(MaskFormer|Donut)?Swin|Swinv2|"
    r"Swin2SR|RfDetrDinov2|Timesformer|SuperGlue|LightGlue)(Self|Cross)?Attention"
)

# Stacks that read something other than tokens.
TOWERS: Final = frozenset({"vision", "audio"})

# Arguments of an attention module that carry another sequence to look at.
CROSS_INPUTS: Final = (
    "key_value_states",
    "encoder_hidden_states",
    "cross_attention_states",
    "encoder_outputs",
    "context",
    "memory",
    "key",
    "keys",
)

# Packages whose modules are known by the names above; in modules of others, a second sequence is another one, unless
# its name says that it is no sequence to look at.
KNOWN_PACKAGES: Final = frozenset({"transformers", "diffusers", "timm", "torch", "sentence_transformers", "peft"})
NO_SEQUENCE: Final = re.compile(r"pos|mask|bias|rot|emb|cos|sin|time|freq|scale|shift|gate|cond|residual|skip")

# Parts of a module's name, or of its class', that mean cross-attention.
CROSS_NAMES: Final = ("crossattention", "cross_attn", "cross_attention", "encoder_attn", "encdecattention")

# A class whose name ends like this attends; when it runs and no attention is seen in it, that is told.
ATTENTION_CLASS: Final = re.compile(r"Attention(s|\d|Block|Layer|Module)?$")

# Parts of a pipeline that paint, in the order in which they are tried, and parts that read the text for them.
PAINTERS: Final = ("unet", "transformer")
READERS: Final = ("text_encoder", "text_encoder_2", "text_encoder_3")

# Lists of blocks that come one after another, whatever the order in which a model names them.
ORDER: Final = ("down_blocks", "mid_block", "up_blocks")

# A processor of attention whose class is named like this cuts the batch into slices that nobody can put together.
SLICED: Final = "SlicedAttn"

# A class whose name holds this attends by hand, also where shapes alone could mean a gate or soft embeddings.
ATTENDS: Final = re.compile(r"att(entio)?n|attend", re.IGNORECASE)

# What an attention module calls the number of its heads.
HEADS: Final = ("num_attention_heads", "num_heads", "n_heads", "n_head", "nhead", "heads")

# A class that wraps a model and only passes calls on to it -> the attribute that holds the model.
WRAPPERS: Final[dict[str, str]] = {
    "PeftModel": "base_model",
    "PeftMixedModel": "base_model",
    "BaseTuner": "model",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


@dataclass(frozen=True)
class Probe:
    """How a layer is read that attends in a shape of its own (see ``probe.py``).

    Attributes:
        values: the names of the layers inside that make its values ``[batch, position, head · size]``.
        heads: the name of the number of heads.
        batch_first: False where the values come as ``[position, batch, …]``.
        output: the layer inside that reads what the values were mixed to; None where that is what the module gives.
    """

    values: tuple[str, ...]
    heads: str
    batch_first: bool = True
    output: str | None = None


# A class whose weights stand in windows, chunks or hash buckets -> how to read them at the positions of the sequence.
PROBES: Final[dict[str, Probe]] = {
    "LongformerSelfAttention": Probe(("value", "value_global"), "num_heads", batch_first=False),
    "LEDEncoderSelfAttention": Probe(("value", "value_global"), "num_heads", batch_first=False),
    "LSHSelfAttention": Probe(("value",), "num_attention_heads"),
    "LocalSelfAttention": Probe(("value",), "num_attention_heads"),
    "LongT5LocalAttention": Probe(("v",), "n_heads", output="o"),
    "BigBirdBlockSparseAttention": Probe(("value",), "num_attention_heads"),
    "BigBirdPegasusBlockSparseAttention": Probe(("value",), "num_attention_heads"),
    "InformerProbSparseAttention": Probe(("v_proj",), "num_heads", output="out_proj"),
}

_LINEAR: Final = Text("linear attention", "线性注意力")

# A class that lets positions look at one another without a softmax over keys -> what it is. It has no attention map.
OTHER_MIXERS: Final[dict[str, Text]] = {
    r".*Mamba\d?(Mixer|Layer)|(FalconH1|Bamba)Mixer": Text("a state-space model", "状态空间模型"),
    r".*(GatedDeltaNet|DeltaAttention)": Text("linear attention by the delta rule", "增量法则线性注意力"),
    r".*(Lightning|Linear)Attention": _LINEAR,
    r"MobileViTV2LinearSelfAttention|SwiftFormerEfficientAdditiveAttention": _LINEAR,
    r"Rwkv.*Attention": Text("a linear recurrence (RWKV)", "线性递归（RWKV）"),
    r"RecurrentGemmaRecurrentBlock": Text("a gated linear recurrence", "门控线性递归"),
    r"mLSTM.*|xLSTM.*Layer": Text("a matrix memory (xLSTM)", "矩阵记忆（xLSTM）"),
    r"Multi[Ss]caleDeformableAttention|.*MultiscaleDeformableAttention": Text(
        "deformable attention, which samples a few points between the pixels", "可变形注意力，在像素之间采样少数点"
    ),
    r"AutoformerAttention": Text("auto-correlation, which looks at delays", "自相关，关注的是时延"),
    r"FNet.*FourierTransform": Text("a Fourier transform", "傅里叶变换"),
    r"YosoSelfAttention": Text("an estimate by hashing, no softmax", "基于哈希的估计，没有 softmax"),
    r"MraSelfAttention": Text("an approximation whose kernel needs CUDA", "需要 CUDA 内核的近似"),
    r".*ShortConv(olution)?": Text("a short convolution", "短卷积"),
    r"PatchTSMixer.*Attention": Text("a gate on features", "特征门控"),
}

_STREAMS: Final = Text("streams of the residual, mixed in place", "残差流在原处的混合")

# A class that multiplies a softmax of its own with something that is no set of values at other positions -> over which
# axis that softmax goes (None: any), and what it is.
NO_MAPS: Final[dict[str, tuple[int | None, Text]]] = {
    r"(DeepseekV4|Glm5NextText|HYV4)DecoderLayer": (None, _STREAMS),
    r"ConvBertSelfAttention": (1, Text("a convolution whose kernel each position makes", "每个位置自生成卷积核的卷积")),
    r"SwiftFormerEfficientAdditiveAttention": (None, _LINEAR),
}


def no_map(module: object, axis: int | None) -> Text | None:
    """What a softmax over ``axis`` is in a module where it is no attention; None where it may be."""
    name = type(module).__name__
    rows = (row for pattern, row in NO_MAPS.items() if re.fullmatch(pattern, name))
    return next((text for only, text in rows if only is None or only == axis), None)


def other_mixer(module: object) -> Text | None:
    """What a module is that lets positions look at one another without a softmax over keys; None for all others."""
    return _mixer(type(module).__name__)


@functools.cache
def _mixer(name: str) -> Text | None:
    return next((text for pattern, text in OTHER_MIXERS.items() if re.fullmatch(pattern, name)), None)


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
