"""A sound and what a text looked at in it: spectrogram, words at their times, a row of weights for each token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hf_attnviz.axes import HEAD, LAYER
from hf_attnviz.language import Text
from hf_attnviz.legible import visible
from hf_attnviz.view import View
from hf_attnviz.views import figures
from hf_attnviz.views.encoding import packed, weight_note
from hf_attnviz.views.page import fragment, in_both, own, page
from hf_attnviz.views.sheets import Leaf, encoded
from hf_attnviz.views.words import axis_word

_MOST_COLUMNS: Final = 3000  # of the spectrogram: beyond, neighbours are joined
_READING: Final = (
    Text(
        "From left to right is time, in seconds. Above: the sound, low tones at the bottom, louder is stronger; the "
        "line over it is the weight of the token that is chosen. Below: a row for each token, colour its weight on "
        "each frame of the sound; the bar says which, from zero to the largest shown.",
        "自左至右为时间（秒）。上：声音，低音在下，越响颜色越浓；其上的折线是所选词元的权重。下：每个词元一行，"
        "颜色是它对声音各帧的权重，对应关系见色条，自零至所示的最大值。",
    ),
    Text(
        "A row is the one that put out the token. Point at a frame for second, token and weight; click a row (or move "
        "to it with the arrow keys) to draw its line over the sound.",
        "每行是产出该词元的那一行。指向某帧可看到秒数、词元与权重；单击一行（或用方向键移到该行），其折线即画在声音之上。",
    ),
)
_WORDS: Final = Text("The words stand at the times that word_times finds.", "词标在 word_times 找到的时间处。")
_CAVEAT: Final = Text(
    "Not shown: what a frame carries beyond its own moment (the encoder mixes frames), and whether the output depends "
    "on it. Attention is not an explanation.",
    "未显示：一帧所带的、超出其自身时刻的内容（编码器会混合各帧），以及输出是否依赖于它。注意力本身不是解释。",
)
_LOUDNESS: Final = Text(
    "The spectrogram is drawn in 256 steps from its quietest to its loudest number.",
    "频谱图以 256 级绘制，自最小值至最大值。",
)


@dataclass(frozen=True, eq=False)
class Sound:
    """A spectrogram.

    Attributes:
        values: ``[band, column]``, the lowest band first.
        begins, ends: the seconds at which the first column begins and the last one ends.
    """

    values: npt.NDArray[np.float64]
    begins: float
    ends: float


@dataclass(frozen=True, eq=False)
class Spoken:
    """A text, and what its tokens looked at.

    Attributes:
        leaves: what two menus choose from, ``[query, key]`` each, and ``start``, the first to be shown.
        rows: the row of each token, and ``tokens``, their texts.
        keys: the frames that are shown, and ``begins`` and ``ends``, the seconds of each.
        words: each with the seconds at which it begins and ends.
    """

    leaves: tuple[Leaf, ...]
    start: int
    rows: tuple[int, ...]
    tokens: tuple[str, ...]
    keys: tuple[int, ...]
    begins: tuple[float, ...]
    ends: tuple[float, ...]
    words: tuple[tuple[str, float, float], ...]


def spectrogram_page(
    spoken: Spoken,
    sound: Sound | None,
    *,
    title: Text | str,
    notes: Sequence[Text] = (),
    footer: Sequence[Text] = (),
    exact: bool = False,
) -> View:
    """The page of a sound and a text; without a sound the weights alone."""
    weights = encoded(spoken.leaves, spoken.rows, spoken.keys, [spoken.rows], exact=exact)
    stored = weight_note(len(weights["values"]), exact=exact)
    return page(
        title,
        fragment("spectrogram.html", sound=sound is not None),
        how_to_read=[*_READING, *([_WORDS] if spoken.words else []), *notes, _CAVEAT],
        footer=[stored, *([] if sound is None else [_LOUDNESS]), *footer],
        data={
            "menus": [in_both(axis_word(name)) for name in (LAYER, HEAD)],
            "start": spoken.start,
            "tokens": [visible(text) for text in spoken.tokens],
            "begins": packed(np.array(spoken.begins, np.float32)),
            "ends": packed(np.array(spoken.ends, np.float32)),
            "words": [[visible(text), begins, ends] for text, begins, ends in spoken.words],
            "sound": None if sound is None else _drawn(sound),
            **weights,
        },
        scripts=[own("colours.js"), own("spectrogram.js")],
        style=own("spectrogram.css"),
        wide=True,
        height=min(420 + 16 * len(spoken.tokens), 1100),
        figures=figures.files(partial(_figure, spoken, sound, str(title))),
    )


def _drawn(sound: Sound) -> Mapping[str, Any]:
    values = sound.values
    join = -(-values.shape[1] // _MOST_COLUMNS)
    if join > 1:
        whole = values.shape[1] // join * join
        values = values[:, :whole].reshape(len(values), -1, join).mean(-1)
    low, high = float(values.min()), float(values.max())
    codes = np.rint((values - low) / (high - low if high > low else 1) * 255).astype(np.uint8)
    return {
        "bands": values.shape[0],
        "columns": values.shape[1],
        "begins": sound.begins,
        "ends": sound.ends,
        "codes": packed(codes),
    }


# ---- on paper


def _figure(spoken: Spoken, sound: Sound | None, title: str) -> Any:
    """The sound with its words above, the weights below, one axis of time."""
    leaf = spoken.leaves[spoken.start]
    weights = leaf.weights()[list(spoken.rows)][:, list(spoken.keys)].double().numpy()
    seconds = spoken.ends[-1] - spoken.begins[0]
    below = min(max(1.2, 0.16 * len(spoken.tokens) + 0.5), 9)
    above = 1.5 if sound is not None else 0.0
    figure = figures.new_figure(min(max(5.5, 0.45 * seconds + 2), 12), above + below + 1)
    where = f"{axis_word(LAYER)} {leaf.outer} · {axis_word(HEAD)} {leaf.inner}"
    time = str(Text("seconds", "秒"))
    fonts = figures.fonts_for([title, where, time, *spoken.tokens, *(text for text, _, _ in spoken.words)])
    figures.write(figure.suptitle("", fontsize=figures.fitting(title, figure.get_figwidth(), 10)), title, fonts)
    heights = [above, below] if sound is not None else [below]
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    if sound is not None:
        extent = (sound.begins, sound.ends, 0, len(sound.values))
        axes[0].imshow(sound.values, extent=extent, origin="lower", aspect="auto", cmap="Greys")
        axes[0].set_yticks([])
    _write_words(axes[0], spoken.words, fonts)
    edges = np.array([*spoken.begins, spoken.ends[-1]])
    drawn = axes[-1].pcolormesh(
        edges, np.arange(len(weights) + 1) - 0.5, np.ma.masked_invalid(weights), cmap="GnBu", vmin=0,
        rasterized=True,
    )  # fmt: skip
    axes[-1].set_ylim(len(weights) - 0.5, -0.5)
    axes[-1].set_xlim(edges[0], edges[-1])
    figures.label_ticks(axes[-1].yaxis, spoken.tokens, fonts, size=7)
    axes[-1].tick_params(axis="x", labelsize=7)
    about = f"{time}  ({where})"
    axes[-1].xaxis.label.set_size(figures.fitting(about, figure.get_figwidth(), 9))
    figures.write(axes[-1].xaxis.label, about, fonts)
    figure.colorbar(drawn, ax=list(axes), shrink=0.6, pad=0.01).ax.tick_params(labelsize=7)
    return figure


def _write_words(panel: Any, words: Sequence[tuple[str, float, float]], fonts: Any) -> None:
    """Each word above the picture where it begins, upright so that short ones have room."""
    for text, begins, _ in words:
        panel.axvline(begins, color="#0b62c4", linewidth=0.6, alpha=0.8)
        label = panel.annotate(
            "", (begins, 1), xycoords=("data", "axes fraction"), xytext=(1, 2), textcoords="offset points",
            rotation=60, ha="left", va="bottom", fontsize=7,
        )  # fmt: skip
        figures.write(label, figures.shortened(text), fonts)
