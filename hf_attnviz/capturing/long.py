"""Whether the maps of a text are few enough to be kept, and drawn; what is kept of it where they are not."""

from typing import Any, Final

from hf_attnviz.capturing.reducers import Keep

MOST_BYTES: Final = 2**28  # of all maps in float32; a page that holds more is no pleasure in any browser
SPARING: Final = ("statistics", "rollout", "gram")
_PLACE: Final = 8 * (4 + 4)  # bytes that the strongest eight keys of a row take


def keep_for(model: Any, tokens: int) -> Keep:
    """``"maps"`` where those of so many tokens fit on a page, else what a picture of a long text needs."""
    heads = _heads(model)
    if heads * tokens * tokens * 4 <= MOST_BYTES:
        return "maps"
    return [*SPARING, *(["topk"] if heads * tokens * _PLACE <= MOST_BYTES else [])]


def _heads(model: Any) -> int:
    """How many heads all layers have together, by what the config says."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers, heads = (_number(text, name) for name in ("num_hidden_layers", "num_attention_heads"))
    return layers * heads


def _number(config: Any, name: str) -> int:
    found = getattr(config, name, None)
    return found if isinstance(found, int) else 1
