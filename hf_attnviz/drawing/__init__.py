"""What turns a trace into a picture in one step: it asks an analysis for the numbers and a view to draw them."""

from hf_attnviz.drawing.alignment import alignment_view
from hf_attnviz.drawing.compare import compare_view
from hf_attnviz.drawing.evolution import evolution_view
from hf_attnviz.drawing.flow import flow_view
from hf_attnviz.drawing.head_grid import head_grid
from hf_attnviz.drawing.head_map import head_map_view
from hf_attnviz.drawing.known import Picture, pictures
from hf_attnviz.drawing.long import long_view
from hf_attnviz.drawing.spectrogram import spectrogram_view
from hf_attnviz.drawing.word_maps import word_maps

__all__ = [
    "Picture",
    "alignment_view",
    "compare_view",
    "evolution_view",
    "flow_view",
    "head_grid",
    "head_map_view",
    "long_view",
    "pictures",
    "spectrogram_view",
    "word_maps",
]
