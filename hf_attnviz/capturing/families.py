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

# Parts of a module's name, or of its class', that mean cross-attention.
CROSS_NAMES: Final = ("crossattention", "cross_attn", "cross_attention", "encoder_attn", "encdecattention")

# Settings of generate() under which tokens are drafted and rejected; such runs are refused in words.
DRAFTING: Final = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")

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
