"""What every number means: pure functions from tensors to tensors, each with its source.

Attention is `[layer, batch, head, query, key]`, layer 0 nearest the input; entropies and divergences are in nats,
weights are shares, distances are tokens. Computed in float32, or in float64 where that came in.
"""

from hf_attnviz.functional.alignment import alignment_error_rate, dtw, joined, linked, monotonicity
from hf_attnviz.functional.alti import alti, alti_rollout
from hf_attnviz.functional.bootstrap import Tally
from hf_attnviz.functional.cka import cka
from hf_attnviz.functional.comparison import compare_maps
from hf_attnviz.functional.divergence import jensen_shannon
from hf_attnviz.functional.entropy import entropy
from hf_attnviz.functional.evolution import evolution
from hf_attnviz.functional.faithfulness import (
    aopc,
    comprehensiveness,
    kendall_tau,
    outcomes,
    sufficiency,
    top_counts,
    top_shares,
)
from hf_attnviz.functional.flow import flow, flows
from hf_attnviz.functional.from_sums import correlation_of_products, correlation_of_sketches
from hf_attnviz.functional.image_distance import image_distance
from hf_attnviz.functional.induction import duplicate_token_score, induction_score
from hf_attnviz.functional.order import classical_mds, linkage_order
from hf_attnviz.functional.pharaoh import from_pharaoh, to_pharaoh
from hf_attnviz.functional.received import uniform_received
from hf_attnviz.functional.relevance import attention_gradient, head_importance, relevance, relevance_encoder_decoder
from hf_attnviz.functional.roles import head_roles, role_verdicts, roles_by_example
from hf_attnviz.functional.rollout import rollout, uniform_rollout
from hf_attnviz.functional.row_numbers import statistics_of_rows, uniform_rows
from hf_attnviz.functional.segment_mass import mass_by_example, segment_mass
from hf_attnviz.functional.similarity import head_similarity
from hf_attnviz.functional.sinks import sink_fraction, sink_mass
from hf_attnviz.functional.speech import median_filter, spoken_frames
from hf_attnviz.functional.statistics import head_statistics, statistics_by_example
from hf_attnviz.functional.uniform import uniform_attention, uniform_like
from hf_attnviz.functional.value_norms import value_norms
from hf_attnviz.functional.words import pool_words, renormalised, row_statistics
from hf_attnviz.words import word_groups

__all__ = [
    "Tally",
    "alignment_error_rate",
    "alti",
    "alti_rollout",
    "aopc",
    "attention_gradient",
    "cka",
    "classical_mds",
    "compare_maps",
    "comprehensiveness",
    "correlation_of_products",
    "correlation_of_sketches",
    "dtw",
    "duplicate_token_score",
    "entropy",
    "evolution",
    "flow",
    "flows",
    "from_pharaoh",
    "head_importance",
    "head_roles",
    "head_similarity",
    "head_statistics",
    "image_distance",
    "induction_score",
    "jensen_shannon",
    "joined",
    "kendall_tau",
    "linkage_order",
    "linked",
    "mass_by_example",
    "median_filter",
    "monotonicity",
    "outcomes",
    "pool_words",
    "relevance",
    "relevance_encoder_decoder",
    "renormalised",
    "role_verdicts",
    "roles_by_example",
    "rollout",
    "row_statistics",
    "segment_mass",
    "sink_fraction",
    "sink_mass",
    "spoken_frames",
    "statistics_by_example",
    "statistics_of_rows",
    "sufficiency",
    "to_pharaoh",
    "top_counts",
    "top_shares",
    "uniform_attention",
    "uniform_like",
    "uniform_received",
    "uniform_rollout",
    "uniform_rows",
    "value_norms",
    "word_groups",
]
