"""Which pictures of one trace there are: the command line, the demo and the tests go through them by name."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hf_attnviz.attention_map import LAYOUT
from hf_attnviz.drawing.alignment import aligns
from hf_attnviz.drawing.evolution import is_generation
from hf_attnviz.drawing.flow import can_flow
from hf_attnviz.drawing.spectrogram import has_speech
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.trace import Trace
from hf_attnviz.view import View
from hf_attnviz.views.overlay import has_patches


@dataclass(frozen=True)
class Picture:
    """A picture of one trace.

    Attributes:
        home: the module that draws it.
        function: the name of its function there, which is its name at the front door, too.
        title: what it shows, in a few words.
        keep: what to capture for it.
        suits: whether a trace has what it draws.
        needs: what that is, in words; None where the function itself says what a trace lacks.
    """

    home: str
    function: str
    title: Text
    keep: tuple[str, ...] = ("maps",)
    suits: Callable[[Trace], bool] = lambda trace: True
    needs: Text | None = None

    @property
    def draw(self) -> Callable[..., View]:
        """The function itself."""
        found: Callable[..., View] = getattr(importlib.import_module(self.home), self.function)
        return found

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Its arguments beside the trace, each with what it is by default."""
        several = list(inspect.signature(self.draw).parameters.values())[1:]
        return {one.name: one.default for one in several}

    def __call__(self, trace: Trace, **options: Any) -> View:
        """The picture; an option of None is left out, and so is a place to begin that this picture has not.

        Raises:
            ArgumentError: the trace has not what this picture draws.
        """
        if self.needs is not None and not self.suits(trace):
            raise ArgumentError(
                Text(
                    f"{self.function} draws {self.needs.en}, and this trace has none; it has: {trace!r}",
                    f"{self.function} 绘制的是{self.needs.zh}，这个 trace 没有；它有：{trace!r}",
                )
            )
        known = self.arguments
        given = {name: value for name, value in options.items() if value is not None}
        return self.draw(trace, **{name: value for name, value in given.items() if name in known})


def _has_vectors(trace: Trace) -> bool:
    return any(m.query_vectors is not None for m in trace.maps)


def _has_weights(trace: Trace) -> bool:
    return all(m.has_weights and m.layout == LAYOUT for m in trace.maps)


def _has_alike_heads(trace: Trace) -> bool:
    """Whether there is one stack whose heads can be compared."""
    several = [one for one in trace.stacks.values() if one.has_weights and len({m.shape[1:] for m in one}) == 1]
    return _has_weights(trace) and len(trace.stacks) == len(several) == 1 and sum(m.heads for m in trace.maps) > 1


def _has_statistics(trace: Trace) -> bool:
    return all("statistics" in m.reduced for m in trace.maps)


_BERTVIZ: Final = "hf_attnviz.views.bertviz"
_KNOWN: Final[Mapping[str, Picture]] = {
    "head": Picture(_BERTVIZ, "head_view", Text("lines, a colour a head", "连线，每头一色"), suits=_has_weights),
    "model": Picture(_BERTVIZ, "model_view", Text("all heads of all layers", "所有层的所有头"), suits=_has_weights),
    "neuron": Picture(
        _BERTVIZ,
        "neuron_view",
        Text("queries times keys, number by number", "查询乘键，逐个数值"),
        ("maps", "vectors"),
        _has_vectors,
        Text("query and key vectors", "查询与键向量"),
    ),
    "grid": Picture(
        "hf_attnviz.drawing.head_grid",
        "head_grid",
        Text("every head small, one large, and a map of their numbers", "每头一小图、选一放大，并有各头数值图"),
        suits=_has_weights,
        needs=Text("the weights themselves", "权重本身"),
    ),
    "map": Picture(
        "hf_attnviz.drawing.head_map",
        "head_map_view",
        Text("heads that look alike, side by side", "相似的头相邻"),
        suits=_has_alike_heads,
        needs=Text("one stack of several heads with their weights", "一个含多个头及其权重的堆栈"),
    ),
    "overlay": Picture(
        "hf_attnviz.views.overlay",
        "overlay",
        Text("over the patches of a picture", "覆盖在图像的图块上"),
        suits=has_patches,
        needs=Text("keys that are patches of a picture", "作为图像图块的键"),
    ),
    "spectrogram": Picture(
        "hf_attnviz.drawing.spectrogram",
        "spectrogram_view",
        Text("along a sound, with word times", "沿声音观察，含词的时间"),
        suits=has_speech,
        needs=Text("cross-attention from a text to frames of sound", "文本到声音各帧的交叉注意力"),
    ),
    "long": Picture(
        "hf_attnviz.drawing.long",
        "long_view",
        Text("along a text of any length", "沿任意长度的文本"),
        ("statistics",),
        _has_statistics,
        Text("statistics", "统计量"),
    ),
    "evolution": Picture(
        "hf_attnviz.drawing.evolution",
        "evolution_view",
        Text("a generation, step by step", "逐步看生成"),
        suits=is_generation,
        needs=Text("a generation", "一次生成"),
    ),
    "flow": Picture(
        "hf_attnviz.drawing.flow",
        "flow_view",
        Text("paths through the layers", "逐层的路径"),
        suits=can_flow,
        needs=Text("self-attention maps with every row", "含全部行的自注意力图"),
    ),
    "alignment": Picture(
        "hf_attnviz.drawing.alignment",
        "alignment_view",
        Text("words of two texts, joined by arrows", "两段文本的词，以箭头相连"),
        suits=aligns,
        needs=Text("cross-attention of a text to a text", "文本对文本的交叉注意力"),
    ),
    "tokens": Picture(
        "hf_attnviz.views.tokens",
        "token_view",
        Text("the text, coloured by what a token looks at", "以一个词元的注意力着色的文本"),
        suits=_has_weights,
        needs=Text("attention weights [head, query, key]", "注意力权重 [头, 查询, 键]"),
    ),
}


def pictures() -> Mapping[str, Picture]:
    """Every picture of one trace, by the name that ``attnviz view --view`` knows it by."""
    return _KNOWN
