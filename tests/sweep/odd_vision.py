"""Rows for types that read images or videos alone. Shaped like ``odd.py``."""

from collections.abc import Callable
from typing import Any, Final

from tests.sweep.rows import Feed


CONFIGS: Final[dict[str, dict[str, Any]]] = {}
CLASSES: Final[dict[str, str]] = {}
MAKERS: Final[dict[str, Callable[[], Any]]] = {}
FEEDS: Final[dict[str, Feed]] = {}
NOT_BUILT: Final[dict[str, str]] = {}
