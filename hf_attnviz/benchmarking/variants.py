"""What is compared: a row of data for each way to run the model and keep something of its attention.

A variant that this release, this machine or this environment does not have stays in the table, with the reason.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from hf_attnviz import capturing
from hf_attnviz.benchmarking import peers
from hf_attnviz.benchmarking.beds import Bed
from hf_attnviz.benchmarking.given import NotThereError, Run
from hf_attnviz.benchmarking.shapes import TABLE, Shape
from hf_attnviz.capturing.reducers import BY_NAME
from hf_attnviz.errors import UnknownNameError, listed
from hf_attnviz.language import Text

PLAIN: Final = "plain"
AGAIN: Final = "plain-again"
ROWS: Final = 64
_NOT_YET: Final = Text("not in this release", "此版本尚无")
LONG: Final = 1.05  # at every length: at most so much above the bound
Must = Callable[[Bed], float | None]


@dataclass(frozen=True)
class Variant:
    """A way to run the model.

    Attributes:
        key: what the command line calls it.
        name: what the table calls it.
        open: makes ready what is not timed, and gives what is: a run that hands out its output and what it kept.
        ours: its output must keep every bit, and it must not fail.
        must: the ratio to plain that it may reach at most, or None.
        decodes: whether it is measured while generating too.
        kept, working: how many maps ``[head, query, key]`` in float32 it holds for each layer, and once: by this it is
            left out where memory would not do.
    """

    key: str
    name: Text
    open: Callable[[Bed], Run]
    ours: bool = False
    must: Must = lambda bed: None
    decodes: bool = False
    kept: float = 0
    working: float = 0

    def holds(self, shape: Shape) -> int:
        """About how many bytes of maps it has in memory at once."""
        return int((self.kept * shape.layers + self.working) * shape.matrix)


def plain(bed: Bed) -> Run:
    """The model as it is."""
    model = bed.model

    def run() -> tuple[torch.Tensor, Any]:
        return bed.output(bed.run(model)), None

    return run


def eager(bed: Bed) -> Run:
    """The model on eager attention, which builds every map and hands out none."""
    model = bed.eager

    def run() -> tuple[torch.Tensor, Any]:
        return bed.output(bed.run(model)), None

    return run


def eager_attentions(bed: Bed) -> Run:
    """What transformers offers: eager attention with ``output_attentions=True``."""
    model = bed.eager

    def run() -> tuple[torch.Tensor, Any]:
        ran = bed.run(model, output_attentions=True)
        return bed.output(ran), ran.attentions

    return run


def captured(bed: Bed, keep: Any, within: Callable[[], AbstractContextManager[None]] = nullcontext) -> Run:
    """Ours: the recording opened, the model run, the recording closed and its calls read."""
    try:
        capturing.capture(bed.model, keep=keep)
    except UnknownNameError as unknown:
        raise NotThereError(_NOT_YET) from unknown

    def run() -> tuple[torch.Tensor, Any]:
        with within(), capturing.capture(bed.model, keep=keep) as recording:
            ran = bed.run()
        return bed.output(ran), recording.calls

    return run


def _keeping(keep: Any) -> Callable[[Bed], Run]:
    return lambda bed: captured(bed, keep)


def _made(*wanted: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Callable[[Bed], Run]:
    """Reducers of the front door by name and arguments, which this release may not have yet."""

    def open_(bed: Bed) -> Run:
        try:
            keep = [getattr(capturing, name)(*given, **options) for name, given, options in wanted]
        except (AttributeError, TypeError) as missing:
            raise NotThereError(_NOT_YET) from missing
        return captured(bed, keep if len(keep) > 1 else keep[0])

    return open_


def _rows(bed: Bed) -> Run:
    """While generating the row that put out each token, else 64 rows, evenly apart."""
    rows, count = min(ROWS, bed.shape.tokens), bed.shape.tokens
    chosen = [-1] if bed.decodes else [n * count // rows for n in range(rows)]
    return captured(bed, capturing.Rows(chosen))


def _native(bed: Bed) -> Run:
    """The statistics by the native pass, and by nothing else."""
    run = captured(bed, "statistics")
    passes = _passes()

    def checked() -> tuple[torch.Tensor, Any]:
        found = run()
        if bed.device == "cpu" and not passes.native(torch.device("cpu")):
            raise NotThereError(
                Text(
                    "not installed: numba; pip install 'hf-attnviz[fast]'",
                    "未安装 numba；pip install 'hf-attnviz[fast]'",
                )
            )
        return found

    return checked


def _pure(bed: Bed) -> Run:
    """The statistics in nothing but PyTorch."""
    captured(bed, "statistics")
    return captured(bed, "statistics", _passes().pure)


def _passes() -> Any:
    with contextlib.suppress(ImportError):
        from hf_attnviz.reducing import passes

        return passes
    raise NotThereError(_NOT_YET)


def _of_table(bed: Bed) -> float | None:
    """What the statistics must hold: the table's own two shapes, and 5 % above the bound at every other length."""
    shape = bed.shape
    if bed.decodes:
        return _decoding(bed)
    if not is_real(bed) or shape.tokens < 1024:
        return None
    return dict(zip(TABLE, (1.10, 1.20), strict=True)).get(shape, LONG * shape.bound)


def _decoding(bed: Bed) -> float | None:
    return 1.08 if bed.decodes and is_real(bed) else None


def _of_rows(bed: Bed) -> float | None:
    return _decoding(bed) if bed.decodes else 1.05 if is_real(bed) else None


def _of_gram(bed: Bed) -> float | None:
    return 1.35 if is_real(bed) and bed.shape == TABLE[1] else None


def is_real(bed: Bed) -> bool:
    """Whether something must hold here: it is said of this width, on a processor."""
    return bed.device == "cpu" and (bed.shape.width, bed.shape.heads) == (TABLE[0].width, TABLE[0].heads)


_OURS: Final = (
    Variant(
        "statistics", Text("statistics", "统计量"), _native, must=_of_table, decodes=True
    ),
    Variant("statistics-pytorch", Text("statistics, pure PyTorch", "统计量（纯 PyTorch）"), _pure, decodes=True),
    Variant(
        "rows", Text("64 rows, or each new token's", "64 行，或每个新词元的行"), _rows, must=_of_rows, decodes=True
    ),
    Variant(
        "gram-topk", Text("Gram and top 8", "Gram 与前 8 个键"),
        _made(("Gram", (), {}), ("TopK", (8,), {})), must=_of_gram,
    ),
    Variant(
        "segments", Text("mass by segment", "各段的质量"),
        _made(("Segments", ({"begin": (0, 64), "middle": (64, 512)},), {})),
    ),
    Variant("maps", Text("all maps", "全部注意力图"), _keeping("maps"), decodes=True, kept=1, working=3),
    Variant(
        "packed", Text("all maps, packed in float16", "全部注意力图（float16 紧缩）"),
        _made(("Maps", (), {"dtype": torch.float16, "packed": True})), kept=0.25, working=3,
    ),
    Variant("vectors", Text("query, key and value vectors", "查询、键、值向量"), _keeping("vectors")),
    Variant(
        "contributions", Text("maps and contributions", "注意力图与贡献"),
        _keeping(["maps", "contributions"]), kept=2, working=3,
    ),
)  # fmt: skip
_THEIRS: Final = (
    Variant("eager", Text("eager", "eager"), eager, working=3),
    Variant(
        "eager-attentions", Text("eager + output_attentions", "eager + output_attentions"),
        eager_attentions, decodes=True, kept=1, working=2,
    ),
    Variant("nnsight", Text("nnsight, on eager", "nnsight（eager）"), peers.nnsight, kept=1, working=2),
    Variant("transformer-lens", Text("TransformerLens", "TransformerLens"), peers.transformer_lens, kept=1, working=3),
    Variant("captum", Text("captum, on eager", "captum（eager）"), peers.captum, kept=2, working=3),
)  # fmt: skip


def variants() -> dict[str, Variant]:
    """All of them by key: plain twice, ours, those of others."""
    twice = (
        Variant(PLAIN, Text("plain sdpa", "原样 sdpa"), plain, decodes=True),
        Variant(AGAIN, Text("plain sdpa, again", "原样 sdpa（再次）"), plain, ours=True, decodes=True),
    )
    ours = (replace(one, ours=True) for one in (*_OURS, *_unlisted()))
    return {one.key: one for one in (*twice, *ours, *_THEIRS)}


def chosen(keys: Sequence[str] | None) -> dict[str, Variant]:
    """Some of them, always with plain twice; None: all.

    Raises:
        UnknownNameError: a key that none has; the message lists them.
    """
    known = variants()
    for key in keys or ():
        if key not in known:
            raise UnknownNameError(
                Text(f"unknown variant {key!r}; known: {listed(known)}", f"未知变体 {key!r}；可用：{listed(known)}")
            )
    return {key: one for key, one in known.items() if keys is None or key in (PLAIN, AGAIN, *keys)}


def _unlisted() -> Iterator[Variant]:
    """What else ``keep`` knows by name."""
    listed_here = {one.key for one in _OURS}
    for name in BY_NAME:
        if name not in listed_here:
            yield Variant(name, Text(f'keep="{name}"', f'keep="{name}"'), _keeping(name))
