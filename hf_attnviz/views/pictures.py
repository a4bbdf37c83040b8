"""Pictures that a caller hands in, made fit to lie inside a page: pixels alone, bounded in size, as a data URI.

A file's metadata (where a photograph was taken, its thumbnail, its colour profile) stays outside: only pixels travel.
"""

import base64
import io
import os
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text

LONGEST: Final = 1024  # pixels of the longer side inside a page
_LARGE: Final = 150_000  # bytes of a PNG beyond which a JPEG is tried, too
_QUALITY: Final = 90
Box = tuple[float, float, float, float]
BoxOption = Box | Literal["centre"] | None


def as_picture(image: Any) -> Image.Image:
    """A picture in red, green and blue, turned upright, with nothing but its pixels.

    Args:
        image: a PIL image, the path of a file, or an array or tensor ``[row, column]``, ``[row, column, channel]`` or
            ``[channel, row, column]`` (a tensor's channels are looked for in front first, an array's behind), a batch
            of one in front of it or not. Bytes are taken as they are and numbers from 0 to 1 as brightness; numbers
            beyond (pixel values that a processor has normalised) are stretched from the least to the largest.

    Raises:
        ArgumentError: nothing of the kind, no such file, or a file that is no picture.
    """
    if isinstance(image, str | os.PathLike):
        try:
            with Image.open(image) as opened:
                return _plain(ImageOps.exif_transpose(opened))
        except OSError as error:
            raise ArgumentError(
                Text(
                    f"expected the path of a picture, got {os.fspath(image)!r}: {error}",
                    f"应为图片的路径，得到 {os.fspath(image)!r}：{error}",
                )
            ) from error
    if isinstance(image, Image.Image):
        return _plain(ImageOps.exif_transpose(image))
    if isinstance(image, torch.Tensor):
        return Image.fromarray(_pixels(image.detach().to("cpu", torch.float32).numpy(), image.dtype == torch.uint8, 0))
    if isinstance(image, np.ndarray):
        return Image.fromarray(_pixels(image.astype(np.float32), image.dtype == np.uint8, -1))
    raise ArgumentError(
        Text(
            f"expected a PIL image, an array, a tensor or a path, got {type(image).__name__}",
            f"应为 PIL 图像、数组、张量或路径，得到 {type(image).__name__}",
        )
    )


def data_uri(picture: Image.Image, longest: int = LONGEST) -> str:
    """The picture as PNG, or as JPEG where a PNG would be large and the JPEG is smaller; its longer side bounded."""
    small = picture.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    kind, data = "png", _encoded(small, "PNG")
    if len(data) > _LARGE:
        lossy = _encoded(small, "JPEG", quality=_QUALITY, subsampling=0)
        kind, data = min((kind, data), ("jpeg", lossy), key=lambda one: len(one[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def checked_box(box: BoxOption, picture: Image.Image, grid: tuple[int, int]) -> Box:
    """The part of a picture that the model saw, in pixels: left, top, right, bottom.

    Args:
        box: that part; "centre" for the largest part in the middle that has the shape of the grid, as CLIP's processor
            cuts it; None for the whole picture.
        picture: the picture as it was given.
        grid: rows and columns of patches.

    Raises:
        ArgumentError: four numbers that are no box inside the picture.
    """
    width, height = picture.size
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    if box == "centre":
        side = min(width / grid[1], height / grid[0])
        left, top = (width - side * grid[1]) / 2, (height - side * grid[0]) / 2
        return left, top, width - left, height - top
    if not isinstance(box, str) and len(box) == 4:
        left, top, right, bottom = (float(number) for number in box)
        if 0 <= left < right <= width and 0 <= top < bottom <= height:
            return left, top, right, bottom
    raise ArgumentError(
        Text(
            f"expected box=(left, top, right, bottom) in pixels inside the picture of {width} × {height}, or 'centre'; "
            f"got {box!r}",
            f"box 应为图片 {width} × {height} 之内的像素 (left, top, right, bottom)，或 'centre'；得到 {box!r}",
        )
    )


def _plain(image: Image.Image) -> Image.Image:
    """Red, green and blue; what is transparent becomes white, what has more than eight bits is stretched."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_pixels(np.asarray(image, np.float32), False, -1))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return Image.fromarray(np.asarray(image.convert("RGB")))


def _pixels(values: npt.NDArray[np.float32], is_bytes: bool, channels: int) -> npt.NDArray[np.uint8]:
    """``[row, column, 3]`` bytes; ``channels`` is the axis where channels are looked for first."""
    shape = values.shape
    if len(shape) == 4 and shape[0] == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim == 3:
        found = next((axis for axis in (channels, -1 - channels) if values.shape[axis] in (1, 3, 4)), None)
        if found is not None and values.size and np.isfinite(values).all():
            return _as_bytes(np.moveaxis(values, found, -1), is_bytes)
    raise ArgumentError(
        Text(
            "expected finite numbers [row, column], [row, column, channel] or [channel, row, column] with 1, 3 or 4 "
            f"channels, got {tuple(shape)}",
            "应为有限的数 [row, column]、[row, column, channel] 或 [channel, row, column]，通道为 1、3 或 4，"
            f"得到 {tuple(shape)}",
        )
    )


def _as_bytes(values: npt.NDArray[np.float32], is_bytes: bool) -> npt.NDArray[np.uint8]:
    if not is_bytes:
        low, high = float(values.min()), float(values.max())
        inside = low >= 0 and high <= 1
        values = 255 * (values if inside else (values - low) / (high - low if high > low else 1))
    colours = values[..., :3] if values.shape[-1] >= 3 else np.repeat(values, 3, axis=-1)
    return np.ascontiguousarray(np.rint(colours).astype(np.uint8))


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()
