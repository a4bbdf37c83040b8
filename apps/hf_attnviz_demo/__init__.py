"""The web demo of hf_attnviz."""
