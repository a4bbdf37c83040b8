"""Pictures of traces and results: each a self-contained page, with files for papers where the picture has them."""

from hf_attnviz.views.bertviz import head_view, model_view, neuron_view
from hf_attnviz.views.choosing import picture
from hf_attnviz.views.comparison import compare_view
from hf_attnviz.views.evolution import evolution_view
from hf_attnviz.views.head_map import head_map_view
from hf_attnviz.views.heatmap import correlation_view, heatmap
from hf_attnviz.views.matrices import show_heatmaps
from hf_attnviz.views.original import to_bertviz
from hf_attnviz.views.overlay import overlay
from hf_attnviz.views.page import compose, page
from hf_attnviz.views.roles import roles_view
from hf_attnviz.views.tokens import token_view
from hf_attnviz.views.trust import trust_view

__all__ = [
    "compare_view",
    "compose",
    "correlation_view",
    "evolution_view",
    "head_map_view",
    "head_view",
    "heatmap",
    "model_view",
    "neuron_view",
    "overlay",
    "page",
    "picture",
    "roles_view",
    "show_heatmaps",
    "to_bertviz",
    "token_view",
    "trust_view",
]
