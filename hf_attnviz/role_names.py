"""What the roles of heads are called and mean, in both languages."""

from collections.abc import Mapping
from typing import Final

from hf_attnviz.language import Text

OF_ROLES: Final[Mapping[str, tuple[Text, Text]]] = {
    "previous_token": (
        Text("previous token", "前一词元"),
        Text("Weight on the token before.", "落在前一个词元上的权重。"),
    ),
    "next_token": (Text("next token", "后一词元"), Text("Weight on the token after.", "落在后一个词元上的权重。")),
    "positional": (
        Text("positional", "位置型"),
        Text(
            "Share of rows whose largest weight is on the same neighbour.", "最大权重落在同一侧相邻词元上的行的占比。"
        ),
    ),
    "delimiter": (Text("delimiter", "分隔符"), Text("Weight on delimiters.", "落在分隔符上的权重。")),
    "first_token_sink": (
        Text("first token (sink)", "首词元（汇点）"),
        Text("Weight on the first token, the first row left out.", "落在首词元上的权重，不计首行。"),
    ),
    "duplicate_token": (
        Text("duplicate token", "重复词元"),
        Text("Weight on earlier copies of the same token.", "落在同一词元先前出现处的权重。"),
    ),
    "induction": (
        Text("induction (all copies)", "归纳（全部先例）"),
        Text("Weight on what came after earlier copies of the token.", "落在同一词元先前出现处之后一个词元上的权重。"),
    ),
    "induction_stripe": (
        Text("induction (stripe)", "归纳（条纹）"),
        Text("The same for the nearest copy, or the one a period before.", "同上，只计最近的或相隔一个周期的那一处。"),
    ),
    "induction_mul": (
        Text("induction (of the map)", "归纳（占全图之比）"),
        Text("The weight on these cells over that of the whole map.", "这些格子的权重占全图权重之比。"),
    ),
    "broad": (
        Text("broad", "分散型"),
        Text("Entropy over the logarithm of the allowed keys: 1 is uniform.", "熵 ÷ 可看的键数的对数：1 即均匀。"),
    ),
}
