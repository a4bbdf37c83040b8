"""What the demo answers: from a model's name and a text to pictures, without the web around it."""

import html
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import hf_attnviz as av
from hf_attnviz_demo.words import CHINESE, ENGLISH

KEPT_TRACES = 16
LONGEST_TEXT = 4_000  # characters; a page of weights grows with the square of the tokens


@dataclass(frozen=True)
class Answer:
    """One run, drawn: HTML for each tab, and the stacks to choose from."""

    status: str
    stacks: tuple[str, ...]
    stack: str
    head: str
    correlation: str
    rollout: str
    evolution: str
    statistics: str


class Service:
    """The models the operator allows, loaded when first asked for, and the latest traces."""

    def __init__(self, allow: tuple[str, ...] = ()) -> None:
        self.models = (*av.zoo.names(), *dict.fromkeys(allow))
        self._loaded: dict[str, av.Loaded] = {}
        self._traces: OrderedDict[tuple[str, str, str, int], av.Trace] = OrderedDict()
        self._lock = threading.Lock()

    def examples(self, model: str) -> list[str]:
        """Texts to try with a model; none for a model that is not loaded yet and not embedded."""
        if model not in av.zoo.names() and model not in self._loaded:
            return []
        with self._lock:
            return list(self._model(model).examples)

    def answer(
        self, model: str, text: str, pair: str = "", stack: str = "", method: str = "pearson", new_tokens: int = 16,
        *, language: str = "en",
    ) -> Answer:  # fmt: skip
        """Run the model on the text (or find the run again) and draw it.

        Raises:
            AttnvizError: in words for the person who typed.
        """
        words = CHINESE if language == "zh" else ENGLISH
        with self._lock:
            trace = self._trace(model, text, pair, int(new_tokens))
        stacks = tuple(trace.stacks)
        chosen = stack if stack in stacks else stacks[-1]  # cross-attention where there is one, else the only stack
        with av.language.speaking(language):
            return Answer(
                self._status(trace, words),
                stacks,
                chosen,
                av.head_view(trace, stack=chosen, layer=self._loaded[model].telling_layer).frame(),
                av.correlation_view(av.head_correlation(trace, stack=chosen, method=method)).frame(),
                _unless(
                    words["self_only"],
                    trace.stacks[chosen].maps[0].whole,
                    lambda: av.heatmap(av.rollout(trace, stack=chosen)),
                ),
                _unless(
                    words["no_generation"],
                    trace.stacks[chosen].maps[0].produced is not None,
                    lambda: av.evolution_view(av.evolution(trace, stack=chosen)),
                ),
                av.heatmap(av.head_statistics(trace, stack=chosen)).frame(),
            )

    def _model(self, name: str) -> av.Loaded:
        if name not in self.models:
            raise av.errors.UnknownNameError(
                f"the model {name!r} is not offered here; offered: {', '.join(self.models)}. "
                "Whoever runs this demo can add one with: attnviz demo --allow NAME"
            )
        if name not in self._loaded:
            self._loaded[name] = av.load_model(name)
        return self._loaded[name]

    def _trace(self, model: str, text: str, pair: str, new_tokens: int) -> av.Trace:
        if len(text) + len(pair) > LONGEST_TEXT:
            raise av.errors.ArgumentError(
                f"the text has {len(text) + len(pair):,} characters, the demo takes {LONGEST_TEXT:,}; "
                "for longer ones use the command line: attnviz view"
            )
        key = (model, text, pair, new_tokens)
        if key not in self._traces:
            loaded = self._model(model)
            self._traces[key] = av.trace_text(loaded, text, pair=pair.strip() or None, max_new_tokens=new_tokens)
            while len(self._traces) > KEPT_TRACES:
                self._traces.popitem(last=False)
        self._traces.move_to_end(key)
        return self._traces[key]

    def _status(self, trace: av.Trace, words: dict[str, str]) -> str:
        error = max(m.error for m in trace.maps)
        said = [text for text in list(trace.stacks.values())[-1].maps[0].produced or () if text is not None]
        line = words["proved"].format(maps=len(trace.maps), error=f"{error:.1e}")
        written = f"<p>{html.escape(words['said'])} <b>{html.escape(' '.join(said))}</b></p>" if said else ""
        return f"{written}<p>{html.escape(line)}</p>"


def _unless(why_not: str, possible: bool, draw: Callable[[], av.View]) -> str:
    return draw().frame() if possible else f"<p>{html.escape(why_not)}</p>"
