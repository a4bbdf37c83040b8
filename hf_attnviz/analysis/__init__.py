"""Analyses: each labels the axes of one pure function of :mod:`hf_attnviz.functional` and says what to beware of."""

from hf_attnviz.analysis.alti import alti
from hf_attnviz.analysis.evolution import evolution
from hf_attnviz.analysis.head_correlation import head_correlation
from hf_attnviz.analysis.head_statistics import head_statistics
from hf_attnviz.analysis.norms import mixing_ratio, norms
from hf_attnviz.analysis.rollout import rollout

__all__ = ["alti", "evolution", "head_correlation", "head_statistics", "mixing_ratio", "norms", "rollout"]
