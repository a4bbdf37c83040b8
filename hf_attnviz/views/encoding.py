"""Numbers small enough to lie inside a page.

Attention weights: one byte a weight, the rounded square root (``code = round(255 √w)``), so that small weights keep
their digits; a weight read back, ``(code / 255)²``, is within :data:`WEIGHT_ERROR` of the real one. Other numbers
are 16-bit integers with a scale a row, or float32. Coarse maps, and maps in which single weights are undefined, keep
the last code for that: ``round(254 √w)``, :data:`UNDEFINED` for NaN. All are compressed with zlib and written as
base64. Where that is not enough, weights are float16: within :data:`HALF_ERROR`.
"""

import base64
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text

WEIGHT_ERROR: Final = 0.004
WEIGHT_NOTE: Final = Text(
    f"Weights are stored in one byte each (rounded square root), within {WEIGHT_ERROR} of the real number.",
    f"每个权重用一个字节存储（取平方根后舍入）：显示的数值与真实值相差不超过 {WEIGHT_ERROR}。",
)

HALF_ERROR: Final = 2.0**-12  # half of float16's step just below 1
UNDEFINED: Final = 255  # of codes in which single weights may be undefined
SHADES: Final = 254  # and the largest of the others
_MILLION: Final = 1_000_000


def weight_note(size: int, *, exact: bool) -> Text:
    """How exact the weights of a page are; of float16, too, how many bytes of the page they take."""
    if not exact:
        return WEIGHT_NOTE
    return Text(
        f"Weights are stored as float16, within {HALF_ERROR:.5f} of the real number; they take {megabytes(size)} of "
        "this page.",
        f"权重以 float16 存储，与真实值相差不超过 {HALF_ERROR:.5f}；在本页中占 {megabytes(size)}。",
    )


def megabytes(size: float) -> str:
    """
    >>> megabytes(2_449_000)
    '2.4 MB'
    """
    return f"{max(size / _MILLION, 0.1):,.1f} MB"


def weight_codes(weights: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The byte of each attention weight; NaN (a row that sees nothing) becomes 0.

    Raises:
        ArgumentError: a weight outside 0…1.
    """
    return root_codes(_shares(weights).numpy())


def root_codes(weights: npt.NDArray[Any], largest: int = 255) -> npt.NDArray[np.uint8]:
    """The rounded square root of each weight of 0…1, in one byte; ``largest`` stands for a weight of 1."""
    codes: npt.NDArray[np.uint8] = np.rint(np.sqrt(np.clip(weights, 0, 1)) * largest).astype(np.uint8)
    return codes


def masked_codes(weights: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The same up to :data:`SHADES`; :data:`UNDEFINED` where a weight is NaN."""
    undefined = np.isnan(weights)
    return np.where(undefined, np.uint8(UNDEFINED), root_codes(np.where(undefined, 0, weights), SHADES))


def weight_numbers(weights: torch.Tensor, *, exact: bool) -> npt.NDArray[Any]:
    """What a page holds of attention weights: a byte each, or float16."""
    return weight_halves(weights) if exact else weight_codes(weights)


def weight_halves(weights: torch.Tensor) -> npt.NDArray[np.uint16]:
    """The bits of each attention weight as float16; NaN (a row that sees nothing) becomes 0.

    Raises:
        ArgumentError: a weight outside 0…1.
    """
    halves: npt.NDArray[np.uint16] = _shares(weights).half().numpy().view(np.uint16)
    return halves


def _shares(weights: torch.Tensor) -> torch.Tensor:
    values = weights.detach().to("cpu", torch.float32).nan_to_num(nan=0.0)
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    if low < -1e-3 or high > 1.01:
        raise ArgumentError(
            Text(
                f"expected attention weights from 0 to 1, got {low:.3g} to {high:.3g}; "
                "draw such numbers with heatmap(result)",
                f"应为 0 到 1 的注意力权重，得到 {low:.3g} 到 {high:.3g}；这样的数请用 heatmap(result) 绘制",
            )
        )
    return values.clamp(0, 1)


def read_weight_codes(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """What the page shows for these bytes."""
    return (codes.astype(np.float64) / 255) ** 2


def scaled_integers(vectors: torch.Tensor) -> tuple[npt.NDArray[np.int16], list[float]]:
    """``[head, position, size]`` as 16-bit integers, and for each head the number that one unit stands for."""
    values = vectors.detach().to("cpu", torch.float32).nan_to_num()
    units = [max(float(head.abs().max()), 1e-30) / 32767 for head in values]
    codes = values / torch.tensor(units)[:, None, None]
    return codes.round().to(torch.int16).numpy(), units


def packed(numbers: npt.NDArray[Any]) -> str:
    """The bytes of an array (little-endian), compressed, as base64."""
    return packed_bytes(np.ascontiguousarray(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)).tobytes())


def packed_bytes(data: bytes) -> str:
    """Bytes, compressed, as base64."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def packed_text(text: str) -> str:
    """A text (a library of JavaScript), compressed, as base64."""
    return base64.b64encode(zlib.compress(text.encode("utf-8"), 9)).decode("ascii")
