"""A tiny random model of any type that transformers knows, with weights under which attention is far from uniform."""

import importlib
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto import modeling_auto

from tests.sweep import odd, odd_multimodal
from tests.sweep.feed import complete, feed
from tests.sweep.shrink import shrink

CONFIGS = odd.CONFIGS | odd_multimodal.CONFIGS
CLASSES = odd.CLASSES | odd_multimodal.CLASSES
MAKERS = odd.MAKERS | odd_multimodal.MAKERS
FEEDS = odd.FEEDS | odd_multimodal.FEEDS
NOT_BUILT = odd.NOT_BUILT | odd_multimodal.NOT_BUILT


class NotBuiltError(Exception):
    """This type cannot be built here; the message says why."""


def model_class(key: str) -> type[PreTrainedModel]:
    """The class of models of a type: what AutoModel gives, else another Auto class, else the one of that config."""
    config_class = CONFIG_MAPPING[key]
    module = importlib.import_module(config_class.__module__.replace("configuration_", "modeling_"))
    if key in CLASSES:
        return getattr(module, CLASSES[key])
    names = [name for name in dir(modeling_auto) if name.startswith("MODEL_") and name.endswith("MAPPING")]
    for name in sorted(names, key=lambda name: name != "MODEL_MAPPING"):
        mapping = getattr(modeling_auto, name)
        if config_class in mapping:
            found = mapping[config_class]
            return found[0] if isinstance(found, tuple) else found
    own = [
        one for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, PreTrainedModel) and one.config_class is config_class
        and not one.__name__.endswith("PreTrainedModel")
    ]  # fmt: skip
    if not own:
        raise NotBuiltError(f"no model class for {config_class.__name__}")
    return own[0]


def row(config: Any, key: str) -> dict[str, Any]:
    """What a configuration needs beyond the common sizes: what each of its parts needs, and what its own row says."""
    needed: dict[str, Any] = {}
    for name, part in vars(config).items():
        if hasattr(part, "to_dict"):
            needed |= {f"{name}.{inner}": value for inner, value in row(part, part.model_type).items()}
    return needed | CONFIGS.get(key, {})


def build(key: str, seed: int = 0) -> Any:
    """A tiny model of a type."""
    torch.manual_seed(seed)
    maker = MAKERS.get(key)
    config = maker() if maker is not None else CONFIG_MAPPING[key]()
    shrink(config, row(config, key))
    made = model_class(key)
    with torch.device("cpu"):
        model = made._from_config(config) if hasattr(made, "_from_config") else made(config)
    redraw(model, seed)
    return model.eval()


def built(key: str, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """A tiny model of a type, and the keyword arguments of one forward pass."""
    if key in NOT_BUILT:
        raise NotBuiltError(NOT_BUILT[key])
    model = build(key, seed)
    inputs = feed(model)
    return model, complete(model, FEEDS[key](model, inputs) if key in FEEDS else inputs)


def redraw(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights with which scores spread by more than one: a matrix keeps the size of what it maps, times 2.5."""
    generator = torch.Generator().manual_seed(seed)
    convolutions = [one for one in model.modules() if isinstance(one, torch.nn.modules.conv._ConvNd)]
    convolved = {id(parameter) for one in convolutions for parameter in one.parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point() or not parameter.numel() or name.endswith(("alpha", "beta")):
                continue  # of nothing, or what a model divides by
            if parameter.dim() > 1:
                embeds = "embed" in ".".join(name.split(".")[-2:]) and parameter.dim() < 4
                experts = parameter.dim() == 3 and id(parameter) not in convolved and parameter.shape[-2] > 1
                fan = parameter.shape[-2] if experts else parameter[0].numel()
                # a convolution has no norm behind it that would take back what it gains
                gain = 1.0 if embeds or (parameter.dim() > 2 and not experts) else 0.1 if "bbox_embed" in name else 2.5
                spread = gain if embeds else gain * fan**-0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
            elif not bool(parameter.isfinite().all()):
                parameter.zero_()
