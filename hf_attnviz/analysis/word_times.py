"""When each word of a transcript was spoken, by a speech model's cross-attention, labelled."""

from collections.abc import Sequence

import torch

from hf_attnviz import functional
from hf_attnviz.analysis.pooling import stack_of
from hf_attnviz.analysis.sides import Side, target_side
from hf_attnviz.axes import QUERY, STATISTIC
from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.labels import Labels
from hf_attnviz.language import Text
from hf_attnviz.result import Axis, Result
from hf_attnviz.trace import AttentionStack, Trace

SECONDS_PER_FRAME = 0.02  # of Whisper's encoder: 100 columns a second, every second one kept


def word_times(
    trace: Trace,
    *,
    heads: Sequence[tuple[int, int]] | None = None,
    read: str = "output",
    words: bool = True,
    median_width: int = 7,
    seconds: float | None = None,
    stack: str = "cross",
) -> Result:
    """When each word begins and ends, in seconds of the sound: ``[statistic, query]``, statistics "start" and "end".

    As the code released with Whisper does it: :func:`hf_attnviz.functional.spoken_frames` on the heads that align; a
    word ends where the next token begins. The times of frames are those of the labels, where a feature extractor was
    given to the capture, else 0.02 s a frame from 0.

    Args:
        trace: of a transcript that was generated, or of a plain pass over sound and transcript. Whisper's generate()
            strips the end mark off, and with it the row that takes up the sound after the last word, unless it is
            called with ``return_dict_in_generate=True``: do so.
        heads: (layer, head) of those that align, ``model.generation_config.alignment_heads`` where the model says so;
            default: all heads of the upper half of the layers, as Whisper's code does for a model that does not say.
        read: "output", the row that put out a token, as in Whisper's own code; "reading", the row that read it, as
            in transformers' ``return_token_timestamps``, whose times come a token later.
        words: join tokens to words (each Han character its own), else times of tokens. Marks are no words.
        median_width: of the running median, in frames; Whisper's ``median_filter_width``.
        seconds: how long the sound lasts; what fills it up to 30 s is left out. Weights are not scaled up again (as
            transformers does, and unlike Whisper's code).

    Raises:
        NotKeptError: a trace of a plain pass that lacks rows.
        UnknownNameError: a head that is not there.
        ArgumentError: no frame is left, no token is text, or a weight is NaN.
    """
    chosen = stack_of(trace, stack)
    one = chosen.maps[0].plain()
    if one.kind != "cross" or not set(one.keys.kinds) <= {"frame", "latent"}:
        raise ArgumentError(
            Text(
                f"expected cross-attention from text to frames of sound, got stack {stack!r} whose keys are "
                f"{listed(sorted(set(one.keys.kinds)))}; for two texts use alignment(trace)",
                f"应为从文本到声音帧的交叉注意力，得到的是堆栈 {stack!r}，其键为 "
                f"{listed(sorted(set(one.keys.kinds)), '无')}；"
                "两段文本请用 alignment(trace)",
            )
        )
    side = target_side(trace, one, read)
    if one.produced is None:
        side = side.from_text_on()  # of a generation these rows were the prompt's
    if all(side.special):
        raise ArgumentError(
            Text(
                "expected at least one token that is text, got special tokens only",
                "应至少有一个词元是文本，得到的全是特殊词元",
            )
        )
    begins, ends = frame_times(one.keys, seconds)
    picked = _picked(chosen, heads)
    weights = torch.stack([chosen.head(layer, head)[list(side.places), : len(begins)] for layer, head in picked])
    frames = functional.spoken_frames(weights, median_width=median_width).tolist()
    starts = [begins[frame] for frame in frames]
    stops = [*starts[1:], ends[-1]]
    texts, first, last = _spans(side, words)
    return Result(
        torch.tensor([[starts[n] for n in first], [stops[n] for n in last]], dtype=torch.float64),
        (Axis(STATISTIC, ("start", "end")), Axis(QUERY, texts)),
        "word times",
        {
            "stack": stack, "heads": picked, "read": read, "words": words, "median_width": median_width,
            "seconds": seconds,
        },
        "Radford et al. 2022 (the code released with it)",
        "seconds",
        (
            _RULE,
            _GUESS if heads is None else _GIVEN,
            *([] if seconds is not None else [_SILENCE]),
            *([] if target_side(trace, one, "output").special[-1] else [_NO_END]),
        ),
    )  # fmt: skip


_RULE = Text(
    "A word begins at the first frame of its stretch of the monotonic path and ends where the next token begins, so "
    "pauses belong to the word before them. The path always finds a time, even where attention follows no sound.",
    "词从它在单调路径上的第一帧开始，到下一个词元开始处结束，因此停顿算在前一个词里。"
    "即使注意力并未跟随声音，路径也总会给出时间。",
)
_GIVEN = Text("Only the heads given were used.", "只用了所给的头。")
_GUESS = Text(
    "No heads were given: all of the upper half of the layers were used, which is a guess; give those that align.",
    "未指定头：使用了上半部分各层的全部头，这只是猜测；请给出会对齐的头。",
)
_NO_END = Text(
    "The row that put out the end is not in this trace, so the last word takes up all the sound that is left, and "
    "words before it may shift: call Whisper's generate() with return_dict_in_generate=True, which keeps it.",
    "此 trace 中没有产出结束标记的那一行，因此最后一个词占去其余全部声音，前面的词也可能移位："
    "请以 return_dict_in_generate=True 调用 Whisper 的 generate()，它会保留该行。",
)
_SILENCE = Text(
    "All frames were used, the silence that fills the sound up too; give seconds=… to leave it out.",
    "使用了全部帧，包括补足长度的静音；可用 seconds=… 略去。",
)


def _spans(side: Side, words: bool) -> tuple[tuple[str, ...], list[int], list[int]]:
    """The texts of words, or of tokens, and the first and last token of each among those of the side."""
    told = side.text_only()
    kept = [n for n, special in enumerate(side.special) if not special]
    numbers, texts = (told.word_numbers, told.word_texts) if words else (list(range(len(kept))), told.texts)
    first = [kept[numbers.index(word)] for word in range(len(texts))]
    last = [kept[len(kept) - 1 - numbers[::-1].index(word)] for word in range(len(texts))]
    return texts, first, last


def _picked(stack: AttentionStack, heads: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    if heads is None:
        upper = stack.layers[len(stack.layers) // 2 :]
        return [(layer, head) for layer in upper for head in range(stack.layer(layer).heads)]
    picked = [(int(layer), int(head)) for layer, head in heads]
    if not picked:
        raise ArgumentError(
            Text(
                "expected at least one head (layer, head), got none; leave heads out for a guess",
                "应至少给出一个头 (layer, head)，得到零个；不给 heads 则自动猜测",
            )
        )
    for layer, head in picked:
        if not 0 <= head < stack.layer(layer).heads:
            raise UnknownNameError(
                Text(
                    f"layer {layer} has heads 0 to {stack.layer(layer).heads - 1}, not {head}",
                    f"第 {layer} 层的头为 0 到 {stack.layer(layer).heads - 1}，没有 {head}",
                )
            )
    return picked


def frame_times(keys: Labels, seconds: float | None) -> tuple[list[float], list[float]]:
    """When each frame of the sound begins and ends, in seconds; those after so many ``seconds`` of sound are left out.

    Raises ArgumentError where none is left.
    """
    known = keys.seconds
    times = [
        (n * SECONDS_PER_FRAME, (n + 1) * SECONDS_PER_FRAME) if known[n] is None else (known[n] or (0.0, 0.0))
        for n in range(len(keys))
    ]
    origin = times[0][0]
    kept = [time for time in times if seconds is None or time[0] - origin < seconds - 1e-6]
    if not kept:
        raise ArgumentError(
            Text(
                f"expected some seconds of sound, got {seconds}; give its length",
                f"声音的秒数应大于零，得到 {seconds}；请给出它的长度",
            )
        )
    return [begin for begin, _ in kept], [end for _, end in kept]
