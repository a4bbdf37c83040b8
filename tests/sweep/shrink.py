"""Any configuration of transformers made tiny: every size by its name, every sub-configuration alike.

All widths become one width and all head sizes one head size, so that whatever has to divide something else still
does. What a family needs beyond that stands in ``odd.py``, as data.
"""

import contextlib
import copy
import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

WIDTH: Final = 64
HEADS: Final = 4
HEAD_SIZE: Final = WIDTH // HEADS
VOCABULARY: Final = 160
FIRST_SPECIAL: Final = 128  # placeholders of images and sounds stand from here on; words are drawn below

# The first row whose pattern matches the whole name of a number says what it becomes.
_SIZES: Final[tuple[tuple[str, int], ...]] = (
    (r"(num_)?(key_value|kv)_heads|.*num_key_value_heads|n_kv_heads|multi_query_group_num|num_kv_heads", 2),
    (r".*heads|n_heads?|.*num_head", HEADS),
    (r"qk_(rope|nope)_head_dim", HEAD_SIZE // 2),
    (r"mamba_d_head|mamba_head_?dim", 2 * WIDTH // HEADS),
    (r"n_groups|mamba_n_?groups", 2),
    (r".*head_dim|d_kv|dim_head|.*head_size|d_head|kv_channels|attention_head_size|index_head_dim", HEAD_SIZE),
    (r"rotary_dim", HEAD_SIZE // 2),
    (r".*_layer_(index|indices|id|period|offset|freq|interval|pattern)|insert_layer_id", -1),
    (r".*layers|n_layer|num_blocks|depth|.*_depth|layers_per_block|encoder_layer|num_hidden_layer", 2),
    (r".*vocab_size.*", VOCABULARY),
    (r"num_queries|num_object_queries", 8),
    (r"upsample_initial_channel|output_channels|vit_dim|adapter_(in|out)_dim|adapter_input_size", WIDTH),
    (r"num_pos_feats", WIDTH // 2),
    (r"(moe_)?(n_|num_)?(shared|local|routed)?_?experts?(_per_tok|_per_token)|moe_top_?k|.*top_k|moe_k", 2),
    (r"num_selected_experts", 2),
    (r".*(num_|n_)(routed_|local_)?experts|moe_num_experts|expert_num", 4),
    (r"n_group|topk_group|num_expert_group", 1),
    (r".*lora_rank|time_step_rank", 16),
    (r".*(intermediate_size|ffn_dim|d_ff|mlp_dim|ffn_hidden_size|d_inner|feedforward_dim)", 96),
    (r".*(dim_feedforward|intermediate_dim|inner_dim)", 96),
    (r"(num_|n_)?(max_)?(position_embeddings|positions)|max_.*positions?.*|n_ctx|max_seq_len|n_positions", 256),
    (r"num_position_embeddings", 64),
    (r".*image_size|crop_size|max_img_size", 32),
    (r"sliding_window(_size)?", 4),
    (r"(.*_)?(hidden_size|d_model|n_embd|embed_dim|embedding_dim|hidden_dim|embedding_size)", WIDTH),
    (r"(.*_)?(projection_dim|proj_dim)|.*_hidden_size.*", WIDTH),
    (r"dim|emb_dim|query_dim|output_dim|out_hidden_size|d_latents|model_in_dim|attention_dim|latent_dim", WIDTH),
    (r"linear_(key|value)_head_dim", HEAD_SIZE),
    (r"(attention_)?window_size|attention_window|index_topk", 4),
    (r"local_attention", 8),  # to both sides
    (r"local_radius", 3),
    (r"first_k_dense_replace|num_dense_layers", 1),
)  # fmt: skip
# What a number is when its default is None, and the model then cannot do without it.
_UNSAID: Final = {
    "head_dim": HEAD_SIZE, "num_key_value_heads": HEADS, "moe_intermediate_size": 96, "n_routed_experts": 4,
    "n_shared_experts": 1, "num_experts_per_tok": 2,
}  # fmt: skip
_KEPT: Final = re.compile(r"chunk_size_feed_forward|pretraining_tp|.*dropout.*|.*_rate")
# Names that a composite configuration uses for the ids of what stands for an image, a sound, a video …
_SPECIAL: Final = re.compile(r".*_token_(id|index)|.*_token_idx|.*_token")
_ORDINARY: Final = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "sep_token_id": 3,
}


def shrink(config: Any, exceptions: Mapping[str, Any] | None = None) -> Any:
    """The configuration itself, made tiny in place; ``exceptions`` (dotted names) have the last word."""
    _shrink(config, _Specials())
    _except(config, exceptions or {})
    _derive(config)
    _except(config, exceptions or {})
    return config


def _except(config: Any, exceptions: Mapping[str, Any]) -> None:
    for name, value in exceptions.items():
        *path, last = name.split(".")
        part = config
        for step in path:
            part = getattr(part, step)
        if isinstance(part, dict):
            part[last] = value
        else:
            setattr(part, last, value)


def _derive(config: Any) -> None:
    """What a configuration works out from its fields when it is made, worked out again from the small ones."""
    parts = [value for value in vars(config).values() if hasattr(value, "to_dict")]
    for part in parts:
        _derive(part)
    if not dataclasses.is_dataclass(config):
        return
    known = {field.name for field in dataclasses.fields(config) if field.init}
    now = vars(config)
    also = type(config).attribute_map  # a field may keep its value under another name
    fields = {name: now.get(also.get(name, name), value) for name, value in now.items() if name in known}
    try:
        fresh = type(config)(**{name: copy.deepcopy(one) for name, one in fields.items() if not name.startswith("_")})
    except Exception:  # a field has no place among its arguments any more: what was worked out before stays
        return
    for name, value in vars(fresh).items():
        if isinstance(value, (int, list, tuple)) and not name.startswith("_") and fields.get(name) != value:
            _set(config, name, value)
    _stages(config)


def _stages(config: Any) -> None:
    """A backbone that has fewer stages than it was to give out gives out its last ones."""
    known, given = getattr(config, "stage_names", None), getattr(config, "_out_features", None)
    if known and given and not set(given) <= set(known):
        few = min(len(given), len(known) - 1)
        config._out_features, config._out_indices = known[-few:], list(range(len(known)))[-few:]


class _Specials:
    """Gives each placeholder token a place of its own; the same name has the same place everywhere."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def place(self, name: str) -> int:
        key = name.replace("_index", "_id").replace("_idx", "_id")
        return self.known.setdefault(key, FIRST_SPECIAL + len(self.known))


def _shrink(config: Any, specials: _Specials) -> None:
    before = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    for name, value in before.items():
        if hasattr(value, "to_dict"):
            _shrink(value, specials)
        elif isinstance(value, bool) or _KEPT.fullmatch(name):
            continue
        elif isinstance(value, int):
            _set(config, name, _number(name, value, specials))
        elif isinstance(value, (list, tuple)) and value:
            _set(config, name, _list(name, value))
        elif isinstance(value, dict):
            _set(config, name, _dict(name, value))
        elif value is None and name in _UNSAID:
            _set(config, name, _UNSAID[name])
    if "mrope_section" in getattr(type(config), "ignore_keys_at_rope_validation", ()):
        half = int(HEAD_SIZE * config.rope_parameters.get("partial_rotary_factor", 1.0)) // 2
        config.rope_parameters["mrope_section"] = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    if before.get("depths") is not None and isinstance(before.get("embed_dim"), int):
        _set(config, "embed_dim", 16)  # doubled at every stage
        if "window_size" in before:
            _set(config, "image_size", 128)  # the image of the last stage has a window still
    if isinstance(before.get("num_hidden_layers"), int) and len(getattr(config, "_out_features", None) or ()) > 2:
        _set(config, "num_hidden_layers", len(config._out_features))  # a backbone that gives out many layers
    _places(config, before)
    kinds = before.get("layer_types")
    if kinds:
        _layers(config, list(dict.fromkeys(kinds)), len(kinds))
    elif before.get("mlp_layer_types"):
        _set(config, "mlp_layer_types", _few(list(before["mlp_layer_types"]), 2))
    if before.get("num_key_value_heads") == before.get("num_attention_heads") and before.get("num_key_value_heads"):
        _set(config, "num_key_value_heads", HEADS)


def _places(config: Any, before: Mapping[str, Any]) -> None:
    """Lists of the numbers of special layers: those behind the last layer become the last."""
    counts = [getattr(config, name, None) for name in ("num_hidden_layers", "depth")]
    last = next((count for count in counts if isinstance(count, int)), 0) - 1
    for name, value in before.items():
        if value and re.fullmatch(r"(intermediate_|deepstack|.*attn_|.*block_).*ind(ic|ex)es", name):
            places = [min(one, last) for one in value]
            _set(config, name, type(value)(places if "intermediate" in name else dict.fromkeys(places)))


def _layers(config: Any, kinds: list[str], before: int) -> None:
    """One layer of each kind, two at least; lists that had an entry a layer keep as many."""
    kinds = kinds * 2 if len(kinds) == 1 else kinds
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == before:
            _set(config, name, _few(value, len(kinds)))
    _set(config, "layer_types", kinds)
    _set(config, "num_hidden_layers", len(kinds))


def _few(values: list[Any], count: int) -> list[Any]:
    """The first of the values of the layers; of kinds one of each by turns."""
    kinds = list(dict.fromkeys(values)) if all(isinstance(one, str) for one in values) else values
    return [kinds[place % len(kinds)] for place in range(count)]


def _set(config: Any, name: str, value: Any) -> None:
    with contextlib.suppress(AttributeError, NotImplementedError):  # worked out from other numbers
        setattr(config, name, value)


def _number(name: str, value: int, specials: _Specials) -> int:
    if name in _ORDINARY:
        return _ORDINARY[name]
    if _SPECIAL.fullmatch(name):
        return specials.place(name) if value >= 0 else value
    if name == "window_size" and value >= 64:
        return 16  # in pixels
    if re.fullmatch(r".*patch_size", name):
        return min(value, 8)
    for pattern, size in _SIZES:
        if re.fullmatch(pattern, name):
            if size == VOCABULARY and value >= 16:
                return size  # not less either: the words are drawn from the whole of it
            return value if size < 0 else min(value, size)
    return value


def _list(name: str, value: Any) -> Any:
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in value):
        return value
    if re.fullmatch(r"depths|.*_depths|num_layers|layers|num_hidden_layers", name):
        return type(value)(min(one, 2) for one in value)
    if re.fullmatch(r".*hidden_sizes?|embed_dims?|.*dims|.*channels|neck_hidden_sizes", name):
        if len(set(value)) == 1 and len(value) > 1:  # one width for all, as a number of such a name
            return type(value)(min(one, WIDTH) for one in value)
        return type(value)(_narrow(one) for one in value)
    if re.fullmatch(r".*heads", name):
        return type(value)(min(HEADS, 1 << (one.bit_length() - 1)) for one in value)
    if re.fullmatch(r"window_size|attention_window", name):
        return type(value)(min(one, 4) for one in value)
    if re.fullmatch(r".*image_size", name):
        return type(value)(min(one, 32) for one in value)
    return value


def _narrow(width: int) -> int:
    """A width of a stage: equal ones stay equal and the double stays the double, whatever list they stand in."""
    return width if width <= 8 else max(8, 1 << (width.bit_length() - 4))


def _dict(name: str, value: dict[str, Any]) -> dict[str, Any]:
    new = dict(value)
    if len(new.get("mrope_section") or ()) == 3:
        new["mrope_section"] = [2, 3, 3]
    for key, inner in new.items():
        if isinstance(inner, dict):
            new[key] = _dict(key, inner)
    return new
