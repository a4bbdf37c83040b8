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
    from hf_attnviz.analysis.alignment import alignment as alignment
    from hf_attnviz.analysis.alignment import links as links
    from hf_attnviz.analysis.alignment import pharaoh as pharaoh
    from hf_attnviz.analysis.alignment_scores import alignment_scores as alignment_scores
    from hf_attnviz.analysis.alti import alti as alti
    from hf_attnviz.analysis.by_position import received as received
    from hf_attnviz.analysis.by_position import row_statistics as row_statistics
    from hf_attnviz.analysis.compare import compare as compare
    from hf_attnviz.analysis.evolution import argmax_paths as argmax_paths
    from hf_attnviz.analysis.evolution import evolution as evolution
    from hf_attnviz.analysis.flow import flow as flow
    from hf_attnviz.analysis.gradients import attention_gradient as attention_gradient
    from hf_attnviz.analysis.gradients import head_importance as head_importance
    from hf_attnviz.analysis.gradients import relevance as relevance
    from hf_attnviz.analysis.head_correlation import head_correlation as head_correlation
    from hf_attnviz.analysis.head_map import head_map as head_map
    from hf_attnviz.analysis.head_roles import head_roles as head_roles
    from hf_attnviz.analysis.head_statistics import head_statistics as head_statistics
    from hf_attnviz.analysis.image_distance import image_distance as image_distance
    from hf_attnviz.analysis.known import analyses as analyses
    from hf_attnviz.analysis.norms import mixing_ratio as mixing_ratio
    from hf_attnviz.analysis.norms import norms as norms
    from hf_attnviz.analysis.rollout import rollout as rollout
    from hf_attnviz.analysis.segment_mass import segment_mass as segment_mass
    from hf_attnviz.analysis.sinks import sinks as sinks
    from hf_attnviz.analysis.word_times import word_times as word_times
    from hf_attnviz.attention_map import AttentionMap as AttentionMap
    from hf_attnviz.benchmarking.run import bench as bench
    from hf_attnviz.benchmarking.table import Bench as Bench
    from hf_attnviz.capturing import AttentionCall as AttentionCall
    from hf_attnviz.capturing import Contributions as Contributions
    from hf_attnviz.capturing import Diagnosis as Diagnosis
    from hf_attnviz.capturing import Evolution as Evolution
    from hf_attnviz.capturing import Finding as Finding
    from hf_attnviz.capturing import Gram as Gram
    from hf_attnviz.capturing import Intervention as Intervention
    from hf_attnviz.capturing import Maps as Maps
    from hf_attnviz.capturing import Recording as Recording
    from hf_attnviz.capturing import Registration as Registration
    from hf_attnviz.capturing import Rollout as Rollout
    from hf_attnviz.capturing import Rows as Rows
    from hf_attnviz.capturing import Run as Run
    from hf_attnviz.capturing import Scores as Scores
    from hf_attnviz.capturing import Segments as Segments
    from hf_attnviz.capturing import Sketch as Sketch
    from hf_attnviz.capturing import Statistics as Statistics
    from hf_attnviz.capturing import TopK as TopK
    from hf_attnviz.capturing import Vectors as Vectors
    from hf_attnviz.capturing import ablate as ablate
    from hf_attnviz.capturing import attach as attach
    from hf_attnviz.capturing import capture as capture
    from hf_attnviz.capturing import doctor as doctor
    from hf_attnviz.capturing import knock_out as knock_out
    from hf_attnviz.capturing import patch as patch
    from hf_attnviz.capturing import register_attention as register_attention
    from hf_attnviz.capturing import trace_input as trace_input
    from hf_attnviz.capturing import trace_text as trace_text
    from hf_attnviz.drawing.alignment import alignment_view as alignment_view
    from hf_attnviz.drawing.compare import compare_view as compare_view
    from hf_attnviz.drawing.evolution import evolution_view as evolution_view
    from hf_attnviz.drawing.flow import flow_view as flow_view
    from hf_attnviz.drawing.head_grid import head_grid as head_grid
    from hf_attnviz.drawing.head_map import head_map_view as head_map_view
    from hf_attnviz.drawing.known import pictures as pictures
    from hf_attnviz.drawing.long import long_view as long_view
    from hf_attnviz.drawing.spectrogram import spectrogram_view as spectrogram_view
    from hf_attnviz.drawing.word_maps import word_maps as word_maps
    from hf_attnviz.explaining.explanation import explain as explain
    from hf_attnviz.explaining.flips import hotflip as hotflip
    from hf_attnviz.explaining.judged import Trust as Trust
    from hf_attnviz.explaining.layers import layer_attributions as layer_attributions
    from hf_attnviz.explaining.reduction import input_reduction as input_reduction
    from hf_attnviz.explaining.subject import Settings as Settings
    from hf_attnviz.explaining.trust import trust as trust
    from hf_attnviz.explaining.value_zeroing import value_zeroing as value_zeroing
    from hf_attnviz.explaining.verdict import TrustRule as TrustRule
    from hf_attnviz.labels import Labels as Labels
    from hf_attnviz.labels import Segment as Segment
    from hf_attnviz.language import set_language as set_language
    from hf_attnviz.legible import visible as visible
    from hf_attnviz.reduced import Reduced as Reduced
    from hf_attnviz.reporting import report as report
    from hf_attnviz.result import Axis as Axis
    from hf_attnviz.result import Result as Result
    from hf_attnviz.tidying import tidied as tidied
    from hf_attnviz.trace import AttentionStack as AttentionStack
    from hf_attnviz.trace import Origin as Origin
    from hf_attnviz.trace import Trace as Trace
    from hf_attnviz.trace_file import load as load
    from hf_attnviz.view import View as View
    from hf_attnviz.views import correlation_view as correlation_view
    from hf_attnviz.views import head_view as head_view
    from hf_attnviz.views import model_view as model_view
    from hf_attnviz.views import neuron_view as neuron_view
    from hf_attnviz.views import picture as picture
    from hf_attnviz.views import roles_view as roles_view
    from hf_attnviz.views import show_heatmaps as show_heatmaps
    from hf_attnviz.views import to_bertviz as to_bertviz
    from hf_attnviz.views import token_view as token_view
    from hf_attnviz.views import trust_view as trust_view
    from hf_attnviz.views.heatmap import heatmap as heatmap
    from hf_attnviz.views.overlay import overlay as overlay
    from hf_attnviz.views.terminal import print_bars as print_bars
    from hf_attnviz.views.terminal import print_heatmap as print_heatmap
    from hf_attnviz.views.terminal import print_tokens as print_tokens
    from hf_attnviz.views.words import axis_word as axis_word
    from hf_attnviz.views.words import method_word as method_word
    from hf_attnviz.views.words import statistic_words as statistic_words
    from hf_attnviz.views.words import unit_word as unit_word
    from hf_attnviz.views.words import verdict_word as verdict_word
    from hf_attnviz.zoo import Loaded as Loaded
    from hf_attnviz.zoo import load_model as load_model

_HOME = {
    "hf_attnviz.analysis": (
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
        "received",
        "relevance",
        "rollout",
        "row_statistics",
        "segment_mass",
        "sinks",
        "word_times",
    ),
    "hf_attnviz.attention_map": ("AttentionMap",),
    "hf_attnviz.benchmarking.run": ("bench",),
    "hf_attnviz.benchmarking.table": ("Bench",),
    "hf_attnviz.capturing": (
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
    ),
    "hf_attnviz.drawing.head_grid": ("head_grid",),
    "hf_attnviz.drawing.compare": ("compare_view",),
    "hf_attnviz.drawing.evolution": ("evolution_view",),
    "hf_attnviz.drawing.flow": ("flow_view",),
    "hf_attnviz.drawing.head_map": ("head_map_view",),
    "hf_attnviz.drawing.alignment": ("alignment_view",),
    "hf_attnviz.drawing.known": ("pictures",),
    "hf_attnviz.drawing.long": ("long_view",),
    "hf_attnviz.drawing.spectrogram": ("spectrogram_view",),
    "hf_attnviz.drawing.word_maps": ("word_maps",),
    "hf_attnviz.explaining.explanation": ("explain",),
    "hf_attnviz.explaining.flips": ("hotflip",),
    "hf_attnviz.explaining.layers": ("layer_attributions",),
    "hf_attnviz.explaining.reduction": ("input_reduction",),
    "hf_attnviz.explaining.subject": ("Settings",),
    "hf_attnviz.explaining.judged": ("Trust",),
    "hf_attnviz.explaining.trust": ("trust",),
    "hf_attnviz.explaining.value_zeroing": ("value_zeroing",),
    "hf_attnviz.explaining.verdict": ("TrustRule",),
    "hf_attnviz.labels": ("Labels", "Segment"),
    "hf_attnviz.language": ("set_language",),
    "hf_attnviz.legible": ("visible",),
    "hf_attnviz.reduced": ("Reduced",),
    "hf_attnviz.reporting": ("report",),
    "hf_attnviz.result": ("Axis", "Result"),
    "hf_attnviz.tidying": ("tidied",),
    "hf_attnviz.trace": ("AttentionStack", "Origin", "Trace"),
    "hf_attnviz.trace_file": ("load",),
    "hf_attnviz.view": ("View",),
    "hf_attnviz.views": (
        "correlation_view",
        "head_view",
        "heatmap",
        "model_view",
        "neuron_view",
        "overlay",
        "picture",
        "roles_view",
        "show_heatmaps",
        "to_bertviz",
        "token_view",
        "trust_view",
    ),
    "hf_attnviz.views.words": ("axis_word", "method_word", "statistic_words", "unit_word", "verdict_word"),
    "hf_attnviz.views.terminal": ("print_bars", "print_heatmap", "print_tokens"),
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
        from hf_attnviz.language import Text

        known = ", ".join(__all__)
        raise AttributeError(
            Text(f"hf_attnviz has no {name!r}; it has: {known}", f"hf_attnviz 没有 {name!r}；它有：{known}")
        )
    return getattr(importlib.import_module(_PLACE[name]), name)


def __dir__() -> list[str]:
    return __all__
