"""What every number means: pure functions from tensors to tensors, each with its source.

Attention is `[layer, batch, head, query, key]`, layer 0 nearest the input; entropies and divergences are in nats,
weights are shares, distances are tokens. Computed in float32, or in float64 where that came in.
"""

from hf_attnviz.functional.alignment import alignment_error_rate, dtw, monotonicity
from hf_attnviz.functional.alti import alti, alti_rollout
from hf_attnviz.functional.divergence import jensen_shannon
from hf_attnviz.functional.entropy import entropy
from hf_attnviz.functional.evolution import evolution
from hf_attnviz.functional.induction import duplicate_token_score, induction_score
from hf_attnviz.functional.order import classical_mds, linkage_order
from hf_attnviz.functional.rollout import rollout, uniform_attention
from hf_attnviz.functional.similarity import head_similarity
from hf_attnviz.functional.sinks import sink_fraction, sink_mass
from hf_attnviz.functional.statistics import head_statistics
from hf_attnviz.functional.value_norms import value_norms

__all__ = [
    "alignment_error_rate",
    "alti",
    "alti_rollout",
    "classical_mds",
    "dtw",
    "duplicate_token_score",
    "entropy",
    "evolution",
    "head_similarity",
    "head_statistics",
    "induction_score",
    "jensen_shannon",
    "linkage_order",
    "monotonicity",
    "rollout",
    "sink_fraction",
    "sink_mass",
    "uniform_attention",
    "value_norms",
]
