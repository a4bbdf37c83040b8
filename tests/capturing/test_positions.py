"""The labels of pictures and sound, on models that look at the one bright patch or the one loud moment.

Where the bright spot is, is reckoned here from the picture that was made; no code of the package is asked.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import hf_attnviz as av
from hf_attnviz.labels import Labels
from tests.capturing.pointing import look_at_what_changes, redrawn

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
Spot = tuple[int, int]


def picture(size: Spot, spot: Spot | None, side: int = 4) -> torch.Tensor:
    """A dark picture ``[1, 3, rows, columns]`` with a bright square whose upper left corner is at ``spot``."""
    pixels = torch.zeros(1, 3, *size)
    if spot is not None:
        pixels[..., spot[0] : spot[0] + side, spot[1] : spot[1] + side] = 1.0
    return pixels


def image(size: Spot, spot: Spot | None, side: int = 4) -> Image.Image:
    """The same as a file would hold it."""
    pixels = np.zeros((*size, 3), np.uint8)
    if spot is not None:
        pixels[spot[0] : spot[0] + side, spot[1] : spot[1] + side] = 255
    return Image.fromarray(pixels)


def looked_at(m: av.AttentionMap, row: int = -1) -> int:
    """The key that every head of a row looks at most; it takes nearly all of the attention."""
    best = m.weights[:, row].argmax(-1)
    assert (m.weights[:, row].max(-1).values > 0.9).all(), m.weights[:, row].max(-1)
    assert len(set(best.tolist())) == 1
    return int(best[0])


def patch(labels: Labels, place: int) -> tuple[Spot, tuple[int, int], int | None]:
    """Cell, grid and number of the picture of a position that is a patch; its text says the same."""
    mark = labels.marks[place]
    assert mark.kind == "patch" and labels.cells is not None and mark.grid is not None
    cell = labels.cells[place]
    assert cell is not None
    number = "" if mark.part is None else f"#{mark.part} "
    assert labels.texts[place] == f"{number}r{cell[0]} c{cell[1]}"
    return cell, mark.grid, mark.part


def made(kind: str, config: str, **options: Any) -> Any:
    """A model of a kind, from a config of that name."""
    built = getattr(transformers, f"{config}Config")(**options)
    return redrawn(getattr(transformers, kind)._from_config(built, attn_implementation="sdpa"))


Q_K = ("q_proj", "k_proj")
TOWERS: dict[str, tuple[Callable[[], Any], str, tuple[str, str], Spot, list[str], list[str]]] = {
    # model, attention of its first block, projections, size of the picture, tokens before the patches, tokens after
    "vit": (lambda: made("ViTModel", "ViT", image_size=(32, 64), patch_size=8, **TINY),
            "layers.0.attention", Q_K, (32, 64), ["[CLS]"], []),
    "deit": (lambda: made("DeiTModel", "DeiT", image_size=(48, 32), patch_size=16, **TINY),
             "layers.0.attention", Q_K, (48, 32), ["[CLS]", "[DIST]"], []),
    "clip": (lambda: made("CLIPVisionModel", "CLIPVision", image_size=32, patch_size=8, **TINY),
             "encoder.layers.0.self_attn", Q_K, (32, 32), ["[CLS]"], []),
    "siglip": (lambda: made("SiglipVisionModel", "SiglipVision", image_size=32, patch_size=8, **TINY),
               "encoder.layers.0.self_attn", Q_K, (32, 32), [], []),
    "dinov2 with registers": (
        lambda: made("Dinov2WithRegistersModel", "Dinov2WithRegisters", image_size=32, patch_size=8,
                     num_register_tokens=3, **TINY),
        "encoder.layer.0.attention", Q_K, (40, 24), ["[CLS]", "[REG 0]", "[REG 1]", "[REG 2]"], []),
    "dinov3": (
        lambda: made("DINOv3ViTModel", "DINOv3ViT", image_size=32, patch_size=8, num_register_tokens=2,
                     key_bias=True, **TINY),
        "model.layer.0.attention", Q_K, (24, 40), ["[CLS]", "[REG 0]", "[REG 1]"], []),
    "yolos": (
        lambda: made("YolosModel", "Yolos", image_size=[32, 64], patch_size=8, num_detection_tokens=2, **TINY),
        "encoder.layer.0.attention.attention", ("query", "key"), (32, 64), ["[CLS]"], ["[DET 0]", "[DET 1]"]),
    "beit": (lambda: made("BeitModel", "Beit", image_size=32, patch_size=8, **TINY),
             "layers.0.attention", Q_K, (32, 32), ["[CLS]"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_names_the_bright_patch(name: str) -> None:
    make, attention, projections, size, before, after = TOWERS[name]
    model, spot = make(), (size[0] - 6, 10)
    side = 16 if name == "deit" else 8
    wide = {"interpolate_pos_encoding": True} if name == "siglip" and size != (32, 32) else {}
    look_at_what_changes(
        model.get_submodule(attention), 4, lambda lit: model(picture(size, spot if lit else None), **wide), projections
    )
    plain = model(picture(size, spot), **wide)
    with av.capture(model) as recording:
        seen = model(picture(size, spot), **wide)
    assert torch.equal(plain[0], seen[0])
    found = recording.trace.vision.maps[0]
    grid = (size[0] // side, size[1] // side)
    place = looked_at(found)
    assert patch(found.keys, place) == ((spot[0] // side, spot[1] // side), grid, None)
    assert list(found.keys.texts[: len(before)]) == before
    assert list(found.keys.texts[len(found.keys) - len(after) :]) == after
    assert found.keys.special == tuple(
        not len(before) <= n < len(found.keys) - len(after) for n in range(len(found.keys))
    )
    assert found.queries == found.keys
