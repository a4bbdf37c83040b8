"""The table of methods: each gives one score for each position of an input, and all of them explain the same scalar."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from torch import Tensor

from hf_attnviz import functional
from hf_attnviz.analysis.gradients import gradients_of, relevance
from hf_attnviz.explaining import by_captum
from hf_attnviz.explaining.given import with_gradients
from hf_attnviz.explaining.rows import attention_row, rollout_row
from hf_attnviz.explaining.scores import Scores
from hf_attnviz.explaining.subject import Settings, Subject
from hf_attnviz.explaining.target import Target, TargetLike
from hf_attnviz.language import Text
from hf_attnviz.views.words import statistic_words


@dataclass(frozen=True)
class Method:
    """One way to explain a scalar.

    Attributes:
        name: what it is called in ``methods=``.
        source: the paper.
        function: from a subject to scores ``[key]``.
        signed: whether a negative score speaks against the target; else scores only say how much.
        extra: the optional package that it needs, or nothing.
    """

    name: str
    source: str
    function: Callable[[Subject], Scores]
    signed: bool = False
    extra: str = ""

    @property
    def text(self) -> Text:
        """Its name for people."""
        return statistic_words(self.name)[0]

    @property
    def meaning(self) -> Text:
        """What its scores say."""
        return statistic_words(self.name)[1]

    @with_gradients
    def scores(
        self,
        model: Any,
        inputs: str | Mapping[str, Any],
        target: TargetLike | Target = None,
        *,
        processor: Any = None,
        stack: str | None = None,
        settings: Settings | None = None,
    ) -> Tensor:
        """The scores ``[key]`` of an input's positions, padding left out.

        Args:
            model, inputs, target, processor, stack, settings: as in :func:`hf_attnviz.explain`.

        Raises:
            NotKeptError, ShapeError: the method does not fit this model or this target; the message says why.
            MissingPackageError: it needs a package that is not installed.
        """
        subject = Subject(model, inputs, target=target, processor=processor, stack=stack, settings=settings)
        return self.function(subject).values


def _attention(subject: Subject) -> Scores:
    """The last layer's weights, mean over heads, mean over the rows at which the scalar is read."""
    return Scores(attention_row(subject.stack, subject.rows.tolist())[subject.columns], _of_rows(subject))


def _rollout(subject: Subject) -> Scores:
    """The same rows of rollout; of an encoder-decoder the last cross-attention, followed through the encoder."""
    found = rollout_row(subject.trace, subject.stack, subject.rows.tolist())
    return Scores(found[subject.columns], _of_rows(subject))


def _attention_gradient(subject: Subject) -> Scores:
    """The last layer's weights times their gradients, added up over heads and rows."""
    gradient = gradients_of(subject.stack)[-1]
    products = functional.attention_gradient(subject.stack.maps[-1].plain().weights[None, None], gradient[None, None])
    return Scores(products.sum((0, 1, 2, 3))[subject.columns])


def _relevance(subject: Subject) -> Scores:
    values = relevance(subject.trace, stack=subject.stack.name).values
    return Scores(values[subject.rows].mean(0)[subject.columns], _of_rows(subject))


def _of_rows(subject: Subject) -> dict[str, Any]:
    return {"rows": tuple(subject.rows.tolist())}


_TABLE: Final = (
    Method("attention", "Bahdanau et al. 2015", _attention),
    Method("rollout", "Abnar & Zuidema 2020", _rollout),
    Method("attention_gradient", "Chefer, Gur & Wolf 2021", _attention_gradient, signed=True),
    Method("relevance", "Chefer, Gur & Wolf 2021", _relevance),
    Method("saliency", "Simonyan et al. 2014", by_captum.saliency, extra="captum"),
    Method("smoothgrad", "Smilkov et al. 2017", by_captum.smoothgrad, extra="captum"),
    Method("input_x_gradient", "Shrikumar et al. 2016", by_captum.input_x_gradient, signed=True, extra="captum"),
    Method(
        "integrated_gradients", "Sundararajan et al. 2017", by_captum.integrated_gradients, signed=True, extra="captum"
    ),
)
METHODS: Final[Mapping[str, Method]] = MappingProxyType({method.name: method for method in _TABLE})
