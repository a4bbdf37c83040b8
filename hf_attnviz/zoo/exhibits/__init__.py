"""Models of known truth, trained on demand in seconds: to learn on, and to test tests of explanations with."""

from hf_attnviz.zoo.exhibits.exhibit import Case, Exhibit
from hf_attnviz.zoo.exhibits.making import exhibit, exhibit_names

__all__ = ["Case", "Exhibit", "exhibit", "exhibit_names"]
