"""Where a method comes from, as a line of small print: papers keep their names, what is said beside them does not."""

import re
from typing import Final

from hf_attnviz.language import Text

_BESIDE: Final = {
    "sections 4.1 (words) and 6 (Jensen–Shannon divergence of heads)": "第 4.1 节（词）、"
    "第 6 节（头的 Jensen–Shannon 散度）",
    "the code released with it": "随论文发布的代码",
    "ties as in Whisper": "并列时按 Whisper 的做法",
    "lookback ratio": "回看比",
    "error rate": "错误率",
    "the graph": "图的画法",
    "appendix": "附录",
    "(rows)": "(行的取法)",
}


def source_line(source: str) -> Text:
    """The line.

    >>> source_line("Chuang et al. 2024 (lookback ratio)").zh
    '出处：Chuang et al. 2024 (回看比)'
    """
    chinese = source
    for english, words in _BESIDE.items():
        chinese = chinese.replace(english, words)
    chinese = re.sub(r"\bsection ([\d.]+)", r"第 \1 节", chinese)
    return Text(f"Source: {source}", f"出处：{chinese}")
