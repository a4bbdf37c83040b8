"""Models to look into: two small ones that come with the package, exhibits that are trained on demand and whose truth
is known, and any other model by folder or hub name."""

from hf_attnviz.zoo.exhibits import Case, Exhibit, exhibit, exhibit_names
from hf_attnviz.zoo.loading import Loaded, load, load_model, names
from hf_attnviz.zoo.training import train

__all__ = ["Case", "Exhibit", "Loaded", "exhibit", "exhibit_names", "load", "load_model", "names", "train"]
