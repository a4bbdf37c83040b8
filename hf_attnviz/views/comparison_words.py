"""What the statistics of a comparison are called and mean, in both languages."""

from typing import Final

from hf_attnviz.language import Text

OF_COMPARISONS: Final = {
    "js": (
        Text("divergence (nats)", "散度（奈特）"),
        Text(
            "Jensen–Shannon divergence of the two, mean over rows: 0 is equal, 0.69 shares no key.",
            "两者的 Jensen–Shannon 散度，各行平均：0 为相同，0.69 为没有共同的键。",
        ),
    ),
    "pearson": (
        Text("correlation", "相关系数"),
        Text("Pearson's r of the two maps over the allowed pairs.", "两张图在允许的格子上的皮尔逊 r。"),
    ),
    "first_word": (Text("first word", "首词"), Text("Weight on the first word.", "落在第一个词上的权重。")),
    "own_word": (Text("own word", "自身"), Text("Weight on the word itself.", "落在该词自身上的权重。")),
    "received": (
        Text("received", "受到的注意"),
        Text("Weight that the other words give to it, on average.", "其他词平均给予它的权重。"),
    ),
    "first": (Text("first", "第一个"), Text("The first trace.", "第一个 trace。")),
    "second": (Text("second", "第二个"), Text("The second trace.", "第二个 trace。")),
    "change": (Text("change", "变化"), Text("The second minus the first.", "第二个减去第一个。")),
}
