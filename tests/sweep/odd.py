"""What a type needs beyond the common sizes, as rows of data."""

from collections.abc import Callable
from typing import Any, Final

# type -> names of numbers that are not what their name suggests, and what they must be
CONFIGS: Final[dict[str, dict[str, Any]]] = {}

# type -> the class of its model, where no Auto class has one
CLASSES: Final[dict[str, str]] = {}

# type -> how its configuration is made where it cannot be made from nothing
MAKERS: Final[dict[str, Callable[[], Any]]] = {}

# type -> how its inputs differ from what its forward's names suggest
FEEDS: Final[dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]]] = {}

# type -> why it is not built: what is missing here, or that it is no model
NOT_BUILT: Final[dict[str, str]] = {}
