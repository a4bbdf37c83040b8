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
    from hf_attnviz import zoo as zoo
    from hf_attnviz.capturing import AttentionCall as AttentionCall
    from hf_attnviz.capturing import Diagnosis as Diagnosis
    from hf_attnviz.capturing import Maps as Maps
    from hf_attnviz.capturing import Recording as Recording
    from hf_attnviz.capturing import Rows as Rows
    from hf_attnviz.capturing import Run as Run
    from hf_attnviz.capturing import Vectors as Vectors
    from hf_attnviz.capturing import attach as attach
    from hf_attnviz.capturing import capture as capture
    from hf_attnviz.capturing import doctor as doctor
    from hf_attnviz.language import set_language as set_language
    from hf_attnviz.trace import load as load

_HOME = {
    "hf_attnviz.capturing": (
        "AttentionCall",
        "Diagnosis",
        "Maps",
        "Recording",
        "Rows",
        "Run",
        "Vectors",
        "attach",
        "capture",
        "doctor",
    ),
    "hf_attnviz.labels": ("Labels", "Segment"),
    "hf_attnviz.language": ("set_language",),
    "hf_attnviz.result": ("Axis", "Result"),
    "hf_attnviz.trace": ("AttentionMap", "AttentionStack", "Trace", "load"),
    "hf_attnviz.view": ("View",),
}
_MODULES = ("errors", "functional", "zoo")
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
