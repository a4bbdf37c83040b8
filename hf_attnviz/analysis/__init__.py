"""Analyses: each labels the axes of one pure function of :mod:`hf_attnviz.functional` and says what to beware of."""

from hf_attnviz.analysis.alignment import alignment, links, pharaoh
from hf_attnviz.analysis.alignment_scores import alignment_scores
from hf_attnviz.analysis.alti import alti
from hf_attnviz.analysis.compare import compare
from hf_attnviz.analysis.evolution import argmax_paths, evolution
from hf_attnviz.analysis.flow import flow
from hf_attnviz.analysis.gradients import attention_gradient, head_importance, relevance
from hf_attnviz.analysis.head_correlation import head_correlation
from hf_attnviz.analysis.head_map import head_map
from hf_attnviz.analysis.head_roles import head_roles
from hf_attnviz.analysis.head_statistics import head_statistics
from hf_attnviz.analysis.image_distance import image_distance
from hf_attnviz.analysis.known import analyses
from hf_attnviz.analysis.norms import mixing_ratio, norms
from hf_attnviz.analysis.rollout import rollout
from hf_attnviz.analysis.segment_mass import segment_mass
from hf_attnviz.analysis.sinks import sinks
from hf_attnviz.analysis.word_times import word_times

__all__ = [
    "alignment",
    "alignment_scores",
    "alti",
    "analyses",
    "argmax_paths",
    "attention_gradient",
    "compare",
    "evolution",
    "flow",
    "head_correlation",
    "head_importance",
    "head_map",
    "head_roles",
    "head_statistics",
    "image_distance",
    "links",
    "mixing_ratio",
    "norms",
    "pharaoh",
    "relevance",
    "rollout",
    "segment_mass",
    "sinks",
    "word_times",
]
