"""Models to look into: two small ones that come with the package, exhibits that are trained on demand and whose truth
is known, and any other model by folder or hub name."""

import importlib
from typing import TYPE_CHECKING, Any

from hf_attnviz.language import Text
from hf_attnviz.zoo.loading import Loaded, load, load_model, names
from hf_attnviz.zoo.training import train

if TYPE_CHECKING:
    from hf_attnviz.zoo.exhibits import Case, Exhibit, exhibit, exhibit_names

__all__ = ["Case", "Exhibit", "Loaded", "exhibit", "exhibit_names", "load", "load_model", "names", "train"]


def __getattr__(name: str) -> Any:  # exhibits are made of torch, which takes its time to load
    if name in __all__:
        return getattr(importlib.import_module("hf_attnviz.zoo.exhibits"), name)
    known = ", ".join(__all__)
    raise AttributeError(
        Text(f"hf_attnviz.zoo has no {name!r}; it has: {known}", f"hf_attnviz.zoo 没有 {name!r}；它有：{known}")
    )
