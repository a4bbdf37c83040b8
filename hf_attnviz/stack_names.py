"""What the stacks of a trace are called for people."""

from typing import Final

from hf_attnviz.language import Text

_STACK_NAMES: Final = {
    "encoder": Text("Encoder", "编码器"),
    "decoder": Text("Decoder", "解码器"),
    "cross": Text("Cross: decoder to encoder", "交叉：解码器到编码器"),
    "vision": Text("Vision", "视觉"),
    "text": Text("Text", "文本"),
    "audio": Text("Audio", "音频"),
}


def stack_name(name: str) -> Text:
    """A stack's name for people."""
    tower, _, number = name.rpartition("_")  # vision_0: the first of several pictures
    if tower in _STACK_NAMES and number.isdigit():
        return Text(f"{_STACK_NAMES[tower].en} {number}", f"{_STACK_NAMES[tower].zh} {number}")
    return _STACK_NAMES.get(name, Text(name, name))
