"""Rows for types that read more than one kind of input (images, video or sound with text). Shaped like ``odd.py``."""

from collections.abc import Callable
from typing import Any, Final

CONFIGS: Final[dict[str, dict[str, Any]]] = {}
CLASSES: Final[dict[str, str]] = {}
MAKERS: Final[dict[str, Callable[[], Any]]] = {}
FEEDS: Final[dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]]] = {}
