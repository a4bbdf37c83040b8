"""See what attention does inside any Hugging Face model.

``with av.capture(model, tokenizer) as recording: model(**inputs)`` catches the attention of whatever backend the model
runs, without changing one bit of its output; analyses turn ``recording.trace`` into numbers, views into pictures.

Importing this package does nothing else: its parts load when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_attnviz import errors as errors
    from hf_attnviz import functional as functional
    from hf_attnviz import language as language
    from hf_attnviz import zoo as zoo
    from hf_attnviz.analysis.alti import alti as alti
    from hf_attnviz.analysis.evolution import evolution as evolution
    from hf_attnviz.analysis.head_correlation import head_correlation as head_correlation
    from hf_attnviz.analysis.head_statistics import head_statistics as head_statistics
    from hf_attnviz.analysis.norms import mixing_ratio as mixing_ratio
    from hf_attnviz.analysis.norms import norms as norms
    from hf_attnviz.analysis.rollout import rollout as rollout
    from hf_attnviz.capturing import AttentionCall as AttentionCall
    from hf_attnviz.capturing import Contributions as Contributions
    from hf_attnviz.capturing import Diagnosis as Diagnosis
    from hf_attnviz.capturing import Finding as Finding
    from hf_attnviz.capturing import Intervention as Intervention
    from hf_attnviz.capturing import Maps as Maps
    from hf_attnviz.capturing import Recording as Recording
    from hf_attnviz.capturing import Registration as Registration
    from hf_attnviz.capturing import Rows as Rows
    from hf_attnviz.capturing import Run as Run
    from hf_attnviz.capturing import Vectors as Vectors
    from hf_attnviz.capturing import ablate as ablate
    from hf_attnviz.capturing import attach as attach
    from hf_attnviz.capturing import capture as capture
    from hf_attnviz.capturing import doctor as doctor
    from hf_attnviz.capturing import knock_out as knock_out
    from hf_attnviz.capturing import patch as patch
    from hf_attnviz.capturing import register_attention as register_attention
    from hf_attnviz.capturing import trace_text as trace_text
    from hf_attnviz.labels import Labels as Labels
    from hf_attnviz.labels import Segment as Segment
    from hf_attnviz.language import set_language as set_language
    from hf_attnviz.legible import visible as visible
    from hf_attnviz.reporting import report as report
    from hf_attnviz.result import Axis as Axis
    from hf_attnviz.result import Result as Result
    from hf_attnviz.trace import AttentionMap as AttentionMap
    from hf_attnviz.trace import AttentionStack as AttentionStack
    from hf_attnviz.trace import Origin as Origin
    from hf_attnviz.trace import Trace as Trace
    from hf_attnviz.trace_file import load as load
    from hf_attnviz.view import View as View
    from hf_attnviz.views import correlation_view as correlation_view
    from hf_attnviz.views import evolution_view as evolution_view
    from hf_attnviz.views import head_view as head_view
    from hf_attnviz.views import model_view as model_view
    from hf_attnviz.views import neuron_view as neuron_view
    from hf_attnviz.views import to_bertviz as to_bertviz
    from hf_attnviz.views.heatmap import heatmap as heatmap
    from hf_attnviz.zoo import Loaded as Loaded
    from hf_attnviz.zoo import load_model as load_model

_HOME = {
    "hf_attnviz.analysis": (
        "alti",
        "evolution",
        "head_correlation",
        "head_statistics",
        "mixing_ratio",
        "norms",
        "rollout",
    ),
    "hf_attnviz.capturing": (
        "AttentionCall",
        "Contributions",
        "Diagnosis",
        "Finding",
        "Intervention",
        "Maps",
        "Recording",
        "Registration",
        "Rows",
        "Run",
        "Vectors",
        "ablate",
        "attach",
        "capture",
        "doctor",
        "knock_out",
        "patch",
        "register_attention",
        "trace_text",
    ),
    "hf_attnviz.labels": ("Labels", "Segment"),
    "hf_attnviz.language": ("set_language",),
    "hf_attnviz.legible": ("visible",),
    "hf_attnviz.reporting": ("report",),
    "hf_attnviz.result": ("Axis", "Result"),
    "hf_attnviz.trace": ("AttentionMap", "AttentionStack", "Origin", "Trace"),
    "hf_attnviz.trace_file": ("load",),
    "hf_attnviz.view": ("View",),
    "hf_attnviz.views": (
        "correlation_view",
        "evolution_view",
        "head_view",
        "heatmap",
        "model_view",
        "neuron_view",
        "to_bertviz",
    ),
    "hf_attnviz.zoo": ("Loaded", "load_model"),
}
_MODULES = ("errors", "functional", "language", "zoo")
_PLACE = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = [*sorted(_PLACE), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"hf_attnviz.{name}")
    if name not in _PLACE:
        raise AttributeError(f"hf_attnviz has no {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(_PLACE[name]), name)


def __dir__() -> list[str]:
    return __all__
