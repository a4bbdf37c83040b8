"""What a transcript looked at in the sound, with its words at their times."""

from collections.abc import Sequence
from typing import Any

import torch

from hf_attnviz import analysis
from hf_attnviz.analysis.pooling import stack_of
from hf_attnviz.analysis.sides import Side, target_side
from hf_attnviz.analysis.word_times import frame_times
from hf_attnviz.attention_map import AttentionMap
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.result import Result
from hf_attnviz.trace import AttentionStack, Trace
from hf_attnviz.view import View
from hf_attnviz.views.log_mel import as_sound, log_mel
from hf_attnviz.views.sheets import Leaf, checked_place, found_leaf, held
from hf_attnviz.views.spectrogram import Sound, Spoken, spectrogram_page

_GIVEN = Text("heads that align", "对齐的头")
_GUESSED = Text("upper half (a guess)", "上半部分（猜测）")
_MEAN = Text("mean of them", "它们的平均")


def spectrogram_view(
    trace: Trace,
    sound: Any = None,
    *,
    sampling_rate: int | None = None,
    heads: Sequence[tuple[int, int]] | None = None,
    stack: str = "cross",
    layer: int | None = None,
    head: int | None = None,
    seconds: float | None = None,
    words: bool = True,
    exact: bool = False,
    title: Text | str | None = None,
) -> View:
    """A spectrogram, below it what each token of the transcript looked at, above it the words at their times.

    Args:
        trace: of a transcript that a speech model (Whisper) generated, or was given; see ``word_times``.
        sound: the whole recording as samples ``[time]``, with its ``sampling_rate``; or the features that the model
            got, ``[band, column]``; None for the weights alone.
        sampling_rate: samples a second.
        heads: (layer, head) of those that align, whose mean is shown first and tells the times; default: that of
            ``word_times``, a guess. Whisper names them: ``model.generation_config.alignment_heads``.
        layer, head: what is shown first in place of that mean; a layer alone is the mean of its heads.
        seconds: how long the sound lasts; the silence that fills it up is not drawn. Default: that of the samples, else
            all frames.
        words: the times of words; False leaves them out.
        exact: half precision in place of a byte a weight.
        title: the page's heading.

    Raises:
        ArgumentError: no cross-attention to frames of sound, samples without their rate, or no sound.
        UnknownNameError: no such layer or head.
    """
    chosen = stack_of(trace, stack)
    one = chosen.maps[0].plain()
    samples = None if sound is None else as_sound(sound)
    heard = _seconds(samples, sampling_rate)
    length = seconds
    if length is None and heard is not None:
        first = (one.keys.seconds[0] or (0.0, 0.0))[0]
        length = max(heard - first, 0.0)
    times = analysis.word_times(trace, heads=heads, seconds=length, stack=stack)
    side = target_side(trace, one, "output")
    side = side.from_text_on() if one.produced is None else side
    begins, ends = frame_times(one.keys, length)
    spoken, note = _spoken(chosen, side, times, (begins, ends), layer, head, words=words, given=heads is not None)
    every = frame_times(one.keys, None)
    whole = every[0][0], every[1][-1]
    drawn = None if samples is None else _sound(samples, sampling_rate, whole, (begins[0], ends[-1]))
    named = Text("What was heard, and where it was looked at", "听到的内容与所看之处")
    about = Text(f"{named.en} · {trace.model}", f"{named.zh} · {trace.model}") if trace.model else named
    return spectrogram_page(
        spoken, drawn, title=title or about, notes=times.notes if words else (), exact=exact,
        footer=[Text(f"Source: {times.source}", f"出处：{times.source}"), *([note] if note is not None else [])],
    )  # fmt: skip


def has_speech(trace: Trace) -> bool:
    """Whether the trace has the cross-attention of a text to frames of sound, with at least one token that is text."""
    found = trace.stacks.get("cross")
    if found is None or not found.has_weights or set(found.keys.kinds) != {"frame"}:
        return False
    one = found.maps[0]
    if one.produced is None and len(one.queries) < 2:
        return False
    return not all(target_side(trace, one, "output").special)


def _spoken(
    stack: AttentionStack,
    side: Side,
    times: Result,
    frames: tuple[list[float], list[float]],
    layer: int | None,
    head: int | None,
    *,
    words: bool,
    given: bool,
) -> tuple[Spoken, Text | None]:
    """Leaves, tokens, frames and words; and what the page leaves out."""
    maps = [m.plain() for m in stack]
    checked_place(maps, layer, head)
    begins, ends = frames
    kept = held(maps, layer, side.places, len(begins))
    aligned = _aligned(maps, times.parameters["heads"], _GIVEN if given else _GUESSED)
    leaves = (aligned, *kept.leaves)
    start = 0 if layer is None and head is None else 1 + found_leaf(kept.leaves, layer, head)
    texts = dict(zip(side.places, side.texts, strict=True))
    first, last = times.values.tolist()
    labels = times.axes[-1].labels
    spoken = Spoken(
        leaves, start, kept.rows, tuple(texts[row] for row in kept.rows), tuple(range(len(begins))), tuple(begins),
        tuple(ends), tuple(zip(labels, first, last, strict=True)) if words else (),
    )  # fmt: skip
    return spoken, kept.note


def _aligned(maps: Sequence[AttentionMap], heads: Sequence[tuple[int, int]], name: Text) -> Leaf:
    """The mean over the heads that align."""
    by_layer = {m.layer: m for m in maps}

    def weights() -> torch.Tensor:
        return torch.stack([by_layer[layer].weights[head].detach().float().cpu() for layer, head in heads]).mean(0)

    return Leaf(name, _MEAN, weights)


def _seconds(samples: Any, rate: int | None) -> float | None:
    """How long samples last; None for features, or no sound."""
    if samples is None or samples.ndim == 2:
        return None
    if not rate or rate < 1:
        raise ArgumentError(
            Text(
                "expected sampling_rate=… with samples [time] of a sound, got none: 16000 for Whisper's",
                "给出声音的样本 [time] 时应有 sampling_rate=…，没有得到：Whisper 用 16000",
            )
        )
    return float(len(samples) / rate)


def _sound(samples: Any, rate: int | None, whole: tuple[float, float], shown: tuple[float, float]) -> Sound:
    """The spectrogram between two seconds: of a recording, or of features that reach over all frames."""
    if samples.ndim == 1 and rate is not None:
        values, begins, step = log_mel(samples, rate), 0.0, round(0.01 * rate) / rate
    else:
        values, begins, step = samples, whole[0], (whole[1] - whole[0]) / samples.shape[1]
    first = max(0, round((shown[0] - begins) / step))
    last = min(values.shape[1], round((shown[1] - begins) / step))
    if last <= first:
        raise ArgumentError(
            Text(
                f"expected a sound that reaches from second {shown[0]:.2f} to {shown[1]:.2f}, got one of "
                f"{values.shape[1] * step:.2f} seconds: give the whole recording",
                f"声音应覆盖第 {shown[0]:.2f} 秒到第 {shown[1]:.2f} 秒，得到的只有 {values.shape[1] * step:.2f} 秒："
                "请给出整段录音",
            )
        )
    return Sound(values[:, first:last], begins + first * step, begins + last * step)
