"""Capture: watch attention while a model runs, without changing one bit of its output.

Hooks on the model say where we are; two observers see the attention itself (:mod:`~hf_attnviz.capturing.interface` for
models that ask transformers for their attention function, :mod:`~hf_attnviz.capturing.function` for all others); every
map is proved against the kernel's own output (:mod:`~hf_attnviz.capturing.proof`) before it is handed out.
"""

from hf_attnviz.capturing.doctor import Diagnosis, Finding, doctor
from hf_attnviz.capturing.feeding import trace_input
from hf_attnviz.capturing.intervening import Intervention, ablate, patch
from hf_attnviz.capturing.knocking_out import knock_out
from hf_attnviz.capturing.opening import attach, capture
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.reducers import Contributions
from hf_attnviz.capturing.registry import Registration, register_attention
from hf_attnviz.capturing.runs import AttentionCall, Run
from hf_attnviz.capturing.text import trace_text
from hf_attnviz.reducing.evolution import Evolution
from hf_attnviz.reducing.gram import Gram
from hf_attnviz.reducing.rollout import Rollout
from hf_attnviz.reducing.rows import Maps, Rows
from hf_attnviz.reducing.scores import Scores
from hf_attnviz.reducing.segments import Segments
from hf_attnviz.reducing.sketch import Sketch
from hf_attnviz.reducing.statistics import Statistics
from hf_attnviz.reducing.topk import TopK
from hf_attnviz.reducing.vectors import Vectors

__all__ = [
    "AttentionCall",
    "Contributions",
    "Diagnosis",
    "Evolution",
    "Finding",
    "Gram",
    "Intervention",
    "Maps",
    "Recording",
    "Registration",
    "Rollout",
    "Rows",
    "Run",
    "Scores",
    "Segments",
    "Sketch",
    "Statistics",
    "TopK",
    "Vectors",
    "ablate",
    "attach",
    "capture",
    "doctor",
    "knock_out",
    "patch",
    "register_attention",
    "trace_input",
    "trace_text",
]
