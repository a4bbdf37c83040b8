"""What the demo answers: from a model's name and a text to pictures, without the web around it."""

import html
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hf_attnviz as av
from hf_attnviz_demo.words import CHINESE, ENGLISH

KEPT_TRACES = 16
READ_ONLY = 0  # tokens to generate: none, the text is only read
LONGEST_TEXT = 400_000  # characters that are read; where their maps would be too much, statistics are kept
MOST_NUMBERS = 2_000_000  # of one picture
LONGEST_COMPARED = 4_000  # characters where maps are needed, or where the model runs some hundred times


@dataclass(frozen=True)
class Asked:
    """What a visitor wants to see of one run; ``kept`` and ``for_picture`` run it again where the analysis, or the
    picture, needs more than maps."""

    trace: av.Trace
    stack: str
    layer: int | None
    method: str
    analysis: Any
    kept: Callable[[], av.Trace]
    picture: Any
    for_picture: Callable[[], av.Trace]
    words: Mapping[str, str]

    @property
    def first_map(self) -> av.AttentionMap:
        return self.trace.stacks[self.stack].maps[0]

    @property
    def long(self) -> bool:
        """Whether the text was too long for maps."""
        return _long(self.trace)


@dataclass(frozen=True)
class Answer:
    """One run, drawn: HTML for each tab by name, and the stacks to choose from."""

    status: str
    stacks: tuple[str, ...]
    stack: str
    tabs: Mapping[str, str]


def _head(asked: Asked) -> av.View:
    draw = av.long_view if asked.long else av.head_view
    return draw(asked.trace, stack=asked.stack, layer=asked.layer)


def _correlation(asked: Asked) -> av.View:
    return av.picture(av.head_correlation(asked.trace, stack=asked.stack, method=asked.method))


def _rollout(asked: Asked) -> av.View | str:
    if asked.long:
        return asked.words["rollout_long"]
    if not asked.first_map.whole:
        return asked.words["self_only"]
    return av.picture(av.rollout(asked.trace, stack=asked.stack))


def _evolution(asked: Asked) -> av.View | str:
    if asked.first_map.produced is None:
        return asked.words["no_generation"]
    if asked.long:
        return asked.words["too_long"]
    return av.picture(av.evolution(asked.trace, stack=asked.stack))


def _analysis(asked: Asked) -> av.View | str:
    if asked.long and not asked.analysis.sparing:
        return asked.words["too_long"]
    result = asked.analysis(asked.trace if asked.long else asked.kept(), stack=asked.stack)
    many = result.values.numel()
    return asked.words["too_many"].format(many=f"{many:,}") if many > MOST_NUMBERS else av.picture(result)


def _picture(asked: Asked) -> av.View | str:
    if asked.long and "maps" in asked.picture.keep:
        return asked.words["too_long"]
    found: av.View = asked.picture(asked.for_picture(), stack=asked.stack, layer=asked.layer)
    return found


TABS: Mapping[str, Callable[[Asked], av.View | str]] = {  # a tab's name -> its picture, or why there is none
    "head": _head,
    "correlation": _correlation,
    "rollout": _rollout,
    "evolution": _evolution,
    "statistics": lambda asked: av.picture(av.head_statistics(asked.trace, stack=asked.stack)),
    "picture": _picture,
    "analysis": _analysis,
}


class Service:
    """The models the operator allows, loaded when first asked for, and the latest traces."""

    def __init__(self, allow: tuple[str, ...] = ()) -> None:
        self.models = (*av.zoo.names(), *dict.fromkeys(allow))
        self._loaded: dict[str, av.Loaded] = {}
        self._traces: OrderedDict[tuple[str, str, str, int, tuple[str, ...] | None], av.Trace] = OrderedDict()
        self._lock = threading.Lock()

    def examples(self, model: str) -> list[str]:
        """Texts to try with a model; none for a model that is not loaded yet and not embedded."""
        if model not in av.zoo.names() and model not in self._loaded:
            return []
        with self._lock:
            return list(self._model(model).examples)

    def answer(
        self, model: str, text: str, pair: str = "", stack: str = "", method: str = "pearson", new_tokens: int = 16,
        analysis: str = "head_roles", picture: str = "model_view", *, language: str = "en",
    ) -> Answer:  # fmt: skip
        """Run the model on the text (or find the run again) and draw it.

        Raises:
            AttnvizError: in words for the person who typed.
        """
        words = CHINESE if language == "zh" else ENGLISH
        known = av.analyses()
        if analysis not in known:
            names = ", ".join(known)
            raise av.errors.UnknownNameError(
                av.language.Text(
                    f"unknown analysis {analysis!r}; known: {names}", f"未知分析 {analysis!r}；可用：{names}"
                )
            )
        drawn = {one.function: one for one in av.pictures().values()}
        if picture not in drawn:
            names = ", ".join(drawn)
            raise av.errors.UnknownNameError(
                av.language.Text(f"unknown picture {picture!r}; known: {names}", f"未知图 {picture!r}；可用：{names}")
            )

        def kept(keep: tuple[str, ...] | None = known[analysis].keep, plain: bool = known[analysis].plain) -> av.Trace:
            with self._lock:
                return self._trace(model, text, pair, READ_ONLY if plain else int(new_tokens), keep)

        trace = kept(None, plain=False)
        stacks = tuple(trace.stacks)
        chosen = stack if stack in stacks else stacks[-1]  # cross-attention where there is one, else the only stack
        wanted = drawn[picture]
        asked = Asked(
            trace, chosen, self._loaded[model].telling_layer, method, known[analysis], kept, wanted,
            lambda: kept(wanted.keep, plain=False), words,
        )  # fmt: skip
        with av.language.speaking(language):
            tabs = {name: _drawn(draw, asked) for name, draw in TABS.items()}
        return Answer(self._status(trace, words), stacks, chosen, tabs)

    def compare(
        self, model: str, text: str, second: str, word: str = "", stack: str = "", without_special: bool = False,
        *, language: str = "en",
    ) -> str:  # fmt: skip
        """What differs when the model reads two texts: around the first place of a word that both have, or head by
        head.

        Raises:
            AttnvizError: in words for the person who typed.
        """
        for one in (text, second):
            self._check_length(one, LONGEST_COMPARED)
        with self._lock:
            first, other = (self._trace(model, one, "", READ_ONLY) for one in (text, second))
        own = [name for name, found in first.stacks.items() if found.maps[0].kind == "self"]
        chosen = stack if stack in own else own[0]  # nothing is generated, so cross-attention has one row only
        around: dict[str, Any] = (
            {"by": "word", "word": word.strip(), "occurrence": (0, 0), "others": "apart"} if word.strip() else {}
        )
        with av.language.speaking(language):
            result = av.compare(first, other, stack=chosen, without_special=without_special, **around)
            return av.compare_view(result).frame()

    def trust(self, model: str, text: str, target: str = "", *, language: str = "en") -> str:
        """Whether the tokens that attention and other methods point at are those that the prediction depends on.

        Raises:
            AttnvizError: in words for the person who typed.
        """
        self._check_length(text, LONGEST_COMPARED)
        with self._lock, av.language.speaking(language):
            return av.trust(self._model(model), text, target=target.strip() or None).view.frame()

    def _model(self, name: str) -> av.Loaded:
        if name not in self.models:
            raise av.errors.UnknownNameError(
                av.language.Text(
                    f"the model {name!r} is not offered here; offered: {', '.join(self.models)}. "
                    "Whoever runs this demo can add one with: attnviz demo --allow NAME",
                    f"这里不提供模型 {name!r}；可选：{', '.join(self.models)}。演示的运行者可以这样添加：attnviz demo "
                    "--allow NAME",
                )
            )
        if name not in self._loaded:
            self._loaded[name] = av.load_model(name)
        return self._loaded[name]

    def _trace(
        self, model: str, text: str, pair: str, new_tokens: int, keep: tuple[str, ...] | None = ("maps",)
    ) -> av.Trace:
        """The trace of a text; ``keep`` None: maps, or statistics where they would be too much."""
        self._check_length(text + pair, LONGEST_TEXT)
        key = (model, text, pair, new_tokens, keep)
        if key not in self._traces:
            loaded = self._model(model)
            more: dict[str, Any] = {"generate": False} if new_tokens == READ_ONLY else {"max_new_tokens": new_tokens}
            self._traces[key] = av.trace_text(loaded, text, pair=pair.strip() or None, keep=keep and list(keep), **more)
            while len(self._traces) > KEPT_TRACES:
                self._traces.popitem(last=False)
        self._traces.move_to_end(key)
        return self._traces[key]

    def _check_length(self, text: str, most: int) -> None:
        if len(text) > most:
            raise av.errors.ArgumentError(
                av.language.Text(
                    f"the text has {len(text):,} characters, the demo takes {most:,} here; for longer ones use the "
                    "command line: attnviz report --text-file FILE",
                    f"文本有 {len(text):,} 个字符，此处演示最多处理 {most:,} 个；更长的请用命令行：attnviz report "
                    "--text-file FILE",
                )
            )

    def _status(self, trace: av.Trace, words: dict[str, str]) -> str:
        error = max(m.error for m in trace.maps)
        said = [text for text in list(trace.stacks.values())[-1].maps[0].produced or () if text is not None]
        told = words["kept"] if _long(trace) else words["proved"]
        tokens = max(len(m.keys) for m in trace.maps)
        line = told.format(maps=len(trace.maps), error=f"{error:.1e}", tokens=f"{tokens:,}")
        written = f"<p>{html.escape(words['said'])} <b>{html.escape(' '.join(said))}</b></p>" if said else ""
        return f"{written}<p>{html.escape(line)}</p>"


def _long(trace: av.Trace) -> bool:
    return not all(m.has_weights for m in trace.maps)


def _drawn(draw: Callable[[Asked], av.View | str], asked: Asked) -> str:
    """A picture as HTML; or why this one cannot be drawn, while the others can."""
    try:
        found = draw(asked)
    except av.errors.AttnvizError as error:
        found = str(error)
    return f"<p>{html.escape(found)}</p>" if isinstance(found, str) else found.frame()
