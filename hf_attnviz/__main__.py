"""``python -m hf_attnviz`` is ``attnviz``."""

from hf_attnviz.cli import main

main()
