"""What turns a trace into a picture in one step: it asks an analysis for the numbers and a view to draw them."""

from hf_attnviz.drawing.alignment import alignment_view
from hf_attnviz.drawing.known import Picture, pictures
from hf_attnviz.drawing.long import long_view

__all__ = ["Picture", "alignment_view", "long_view", "pictures"]
