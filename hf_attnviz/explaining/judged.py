"""What a test of an explanation gives back: a verdict for each ranking, its numbers, a sentence, a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from hf_attnviz.explaining.sentences import asked, facts
from hf_attnviz.explaining.target import Target
from hf_attnviz.explaining.verdict import TrustRule
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.view import View
from hf_attnviz.views.trust import trust_view
from hf_attnviz.views.words import statistic_words, verdict_word


@dataclass(frozen=True, eq=False, repr=False)
class Trust:
    """Whether rankings of the evidence for one prediction deserve trust. Made by :func:`hf_attnviz.trust`.

    Attributes:
        target: what is explained.
        probability: its probability for the whole text (a function's value).
        tokens: the tokens of the text.
        candidates: the positions that were ranked.
        verdicts: for each ranking ``"trust"``, ``"do not"`` or ``"undecided"``.
        reasons: why nothing could be decided, for the rankings for which that is so.
        sentences: each verdict as a person would say it.
        scores: the rankings ``[method, key]``; NaN where a token was not ranked.
        curves: ``[statistic, removal, method, share]``: comprehensiveness and sufficiency (the fall of the prediction
            without the top, and with nothing but it) by deletion and by replacement, for each share of the tokens.
        random: the same of each random ranking.
        aopc: the mean of the curves over the shares ``[statistic, removal, method]``.
        percentile: the share of random rankings that each ranking beats ``[statistic, removal, method]``.
        beats: which of its four tests each ranking passes ``[statistic, removal, method]``.
        agreement: Kendall's τ-b between the rankings ``[method, other_method]``.
        sink: what of raw attention's row lies on the first token and on special tokens ``[statistic]``.
        heads: what the prediction loses without the heads shown ``[statistic]``.
        stability: Kendall's τ-b between each ranking and itself beside padding and in a batch ``[statistic, method]``.
        shift: by how much these move the prediction ``[statistic]``.
        rule: what was measured.
        notes: what was left out, and why.
        model: the model's class.
    """

    target: Target
    probability: float
    tokens: Labels
    candidates: tuple[int, ...]
    verdicts: Mapping[str, str]
    reasons: Mapping[str, Text]
    sentences: Mapping[str, Text]
    scores: Result
    curves: Result
    random: Result
    aopc: Result
    percentile: Result
    beats: Result
    agreement: Result
    sink: Result | None
    heads: Result | None
    stability: Result | None
    shift: Result | None
    rule: TrustRule
    notes: tuple[Text, ...] = ()
    model: str = field(default="")

    def __post_init__(self) -> None:
        for name in ("verdicts", "reasons", "sentences"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def asked(self) -> Text:
        """What was explained, and what the model said."""
        return asked(self.target, self.probability, self.model)

    @property
    def facts(self) -> Sequence[Text]:
        """What stands beside the verdicts (sink, heads, stability), a sentence each."""
        return facts(self.sink, self.heads, self.stability, self.shift)

    @cached_property
    def view(self) -> View:
        """The picture; saves as html, svg, png and pdf."""
        return trust_view(self)

    def __repr__(self) -> str:
        said = ", ".join(f"{statistic_words(name)[0].en}: {verdict_word(v).en}" for name, v in self.verdicts.items())
        return f"Trust({self.target.subject.en}, {self.probability:.3g}; {said})"

    def _repr_html_(self) -> str:
        return self.view.frame()
