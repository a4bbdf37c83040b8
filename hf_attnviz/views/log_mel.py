"""The log-mel spectrogram of a sound, as speech models get it.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022), section 2.2, and the code
released with it. Steps: windows of 25 ms every 10 ms (Hann), the power of each, mel bands of Slaney's scale and area,
the logarithm to base 10, nothing quieter than 8 below the loudest, (x + 4) / 4.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text

Floats = npt.NDArray[np.float64]


def log_mel(samples: Floats, rate: int, *, bands: int = 80, highest: float = 8000.0) -> Floats:
    """``[band, column]`` of samples ``[time]``, a column every 10 ms; the lowest band first.

    Args:
        samples: the sound, one channel.
        rate: samples a second.
        bands: mel bands, from 0 Hz to ``highest`` (or half the rate, where that is less).

    Raises:
        ArgumentError: no sound of one channel, or too short for one window.
    """
    size, hop = round(0.025 * rate), round(0.01 * rate)
    if samples.ndim != 1 or len(samples) <= size:
        raise ArgumentError(
            Text(
                f"expected a sound [time] of one channel, longer than a window of {size} samples; got {samples.shape}",
                f"应为单声道的声音 [time]，且长于 {size} 个样本的一窗；得到 {samples.shape}",
            )
        )
    padded = np.pad(samples, size // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    power = np.abs(np.fft.rfft(windows * hann, axis=-1)) ** 2
    bank = _bank(size // 2 + 1, bands, rate, min(highest, rate / 2))
    found = np.log10(np.maximum(bank @ power[: len(samples) // hop].T, 1e-10))
    return np.asarray((np.maximum(found, found.max() - 8) + 4) / 4)


def _bank(bins: int, bands: int, rate: int, highest: float) -> Floats:
    """``[band, bin]`` of triangles, each of area one."""
    edges = _hertz(np.linspace(0, _mel(highest), bands + 2))
    at = np.linspace(0, rate / 2, bins)
    rising = (at - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - at) / np.diff(edges)[1:, None]
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None) * (2 / (edges[2:] - edges[:-2]))[:, None])


_STEP = np.log(6.4) / 27  # above 1,000 Hz, which is mel 15; below, a mel is 200 / 3 Hz


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else float(15 + np.log(hertz / 1000) / _STEP)


def _hertz(mel: Floats) -> Floats:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(_STEP * (np.maximum(mel, 15) - 15)))


def as_sound(sound: Any) -> Floats:
    """Samples ``[time]`` or features ``[band, column]`` from an array or a tensor, a batch of one in front or not."""
    found = sound.detach().float().cpu().numpy() if hasattr(sound, "detach") else np.asarray(sound)
    found = found.astype(np.float64)
    if found.ndim > 1 and found.shape[0] == 1:
        found = found[0]
    if found.ndim not in (1, 2) or not found.size or not np.isfinite(found).all():
        raise ArgumentError(
            Text(
                f"expected finite samples [time] or log-mel features [band, column], got shape {found.shape}",
                f"应为有限的样本 [time] 或 log-mel 特征 [band, column]，得到的形状为 {found.shape}",
            )
        )
    return np.asarray(found)
