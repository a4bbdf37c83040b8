"""Models to look into: two small ones that come with the package, and any other by folder or hub name."""

from hf_attnviz.zoo.loading import Loaded, load, load_model, names
from hf_attnviz.zoo.training import train

__all__ = ["Loaded", "load", "load_model", "names", "train"]
