"""Analyses: each labels the axes of one pure function of :mod:`hf_attnviz.functional` and says what to beware of."""

from hf_attnviz.analysis.evolution import evolution
from hf_attnviz.analysis.gradients import attention_gradient, head_importance, relevance
from hf_attnviz.analysis.head_correlation import head_correlation
from hf_attnviz.analysis.head_statistics import head_statistics
from hf_attnviz.analysis.rollout import rollout

__all__ = [
    "attention_gradient",
    "evolution",
    "head_correlation",
    "head_importance",
    "head_statistics",
    "relevance",
    "rollout",
]
