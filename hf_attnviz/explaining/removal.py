"""A prediction without some of its tokens: the probability that is left, by deletion or by replacement.

Deletion runs the shorter text: every input that has an entry for each position loses the same ones, positions are
counted anew, and the place at which the prediction is read moves along. Replacement keeps the length and puts a mask
token in the place of each token that is taken away. Texts of one length run side by side, so no padding is needed; no
text runs twice.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch

from hf_attnviz import progress
from hf_attnviz.capturing.text import tokenizer_of
from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.explaining.given import copies, shortened
from hf_attnviz.explaining.prediction import Prediction
from hf_attnviz.explaining.target import text_config, whole_number
from hf_attnviz.language import Text

WAYS: Final = ("deletion", "replacement")
_ROWS: Final = 64
_NUMBERS: Final = 2**26  # of activations and logits that one batch may take: 256 MB in float32
COUNT: Final = Text(
    "Give target=(position, id), which moves along, or a function that counts from the end",
    "请用会随之移动的 target=(position, id)，或从末尾数起的函数",
)
_RUNNING: Final = Text("running the text without some of its tokens", "正在移除部分词元后重新运行")


class Removal:
    """The probability ``[…]`` of a prediction for what is kept of its candidates; each text runs once.

    Args:
        prediction: what is explained.
        positions: the candidates, positions of the text.
        way: ``"deletion"`` or ``"replacement"``.
        replacement: the token id that stands for a removed token; needed for replacement.
    """

    def __init__(
        self, prediction: Prediction, positions: Sequence[int], way: str, replacement: int | None = None
    ) -> None:
        if way not in WAYS or (way == "replacement" and replacement is None):
            raise ArgumentError(
                Text(
                    f"expected deletion, or replacement with the id of a token, got {way!r}, {replacement}",
                    f"应为 deletion，或给出词元编号的 replacement，得到 {way!r}、{replacement}",
                )
            )
        self.prediction, self.way, self.replacement = prediction, way, replacement
        self.positions = torch.tensor(list(positions), dtype=torch.long)
        self.known: dict[bytes, float] = {self._key(torch.ones(len(self.positions), dtype=torch.bool)): float("nan")}
        self.known[next(iter(self.known))] = prediction.probability

    def __call__(self, keep: torch.Tensor) -> torch.Tensor:
        """The probability with only those candidates kept that are True in ``keep`` `[candidate]`; float64."""
        key = self._key(keep)
        if key not in self.known:
            for batch in self.batches(keep[None]):
                self.run(batch)
        return torch.tensor(self.known[key], dtype=torch.float64)

    def batches(self, keeps: torch.Tensor) -> list[torch.Tensor]:
        """What has not run yet of ``keeps`` `[row, candidate]`, in batches of one length and bounded size."""
        new = {self._key(keep): keep for keep in keeps}
        rows = [keep for key, keep in new.items() if key not in self.known]
        groups: dict[int, list[torch.Tensor]] = {}
        for keep in rows:
            groups.setdefault(int(keep.sum()) if self.way == "deletion" else 0, []).append(keep)
        size = self._rows()
        return [torch.stack(g[n : n + size]) for g in groups.values() for n in range(0, len(g), size)]

    def run(self, keeps: torch.Tensor) -> None:
        """Run one batch from :meth:`batches` and remember what it gives."""
        inputs, read = self.inputs(keeps)
        left = inputs["input_ids"].shape[1]
        found = self._probabilities(inputs, read) if left else [float("nan")] * len(keeps)
        self.known.update(zip(map(self._key, keeps), found, strict=True))

    def _probabilities(self, inputs: dict[str, Any], read: torch.Tensor | None) -> list[float]:
        target = self.prediction.target
        try:
            with torch.no_grad():
                found: list[float] = target.probability(self.prediction.model(**inputs), read).tolist()
        except IndexError as problem:
            if target.function is None:
                raise
            raise ArgumentError(
                Text(
                    f"{target.name} reads a position that a shorter text lacks. {COUNT.en}",
                    f"{target.told.zh}读取的位置在更短的文本中不存在。{COUNT.zh}",
                )
            ) from problem
        return found

    def inputs(self, keeps: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor | None]:
        """The inputs of a batch ``[row, candidate]``, and where its prediction is read, row by row.

        Raises:
            ShapeError: by deletion, rows of different lengths.
        """
        given, rows = self.prediction.inputs, len(keeps)
        kept = torch.ones(rows, len(self.prediction.ids), dtype=torch.bool)
        kept[:, self.positions] = keeps.cpu()
        if self.way == "replacement":
            spread = copies(given, rows)
            gone = ~kept.to(given["input_ids"].device)
            return spread | {"input_ids": spread["input_ids"].masked_fill(gone, self.replacement)}, None
        lengths = kept.sum(-1)
        if bool((lengths != lengths[0]).any()):
            raise ShapeError(
                Text(
                    "texts of different lengths cannot run in one batch without padding",
                    "长度不同的文本没有填充就不能放在一个 batch 中运行",
                )
            )
        shorter = [shortened(given, row.nonzero().flatten()) for row in kept]
        return {name: _joined([one[name] for one in shorter]) for name in given}, self._read(kept)

    def _read(self, kept: torch.Tensor) -> torch.Tensor | None:
        position = self.prediction.target.position
        if position is None or self.prediction.two_sided:
            return None
        return kept[:, :position].sum(-1)

    def _rows(self) -> int:
        """How many texts run side by side."""
        if self.prediction.alone:
            return 1
        text = text_config(getattr(self.prediction.model, "config", None))
        widths = [getattr(text, name, None) for name in ("vocab_size", "hidden_size", "d_model", "n_embd")]
        width = max([w * (1 if n == 0 else 16) for n, w in enumerate(widths) if isinstance(w, int)], default=16_384)
        return max(1, min(_ROWS, _NUMBERS // (width * len(self.prediction.ids))))

    @staticmethod
    def _key(keep: torch.Tensor) -> bytes:
        return bytes(keep.to(torch.uint8).tolist())


def measure(work: Iterable[tuple[Removal, torch.Tensor]]) -> None:
    """Run all these texts, ``[row, candidate]`` for each way; long work announces itself and shows how far it is."""
    batches = [(removal, batch) for removal, keeps in work for batch in removal.batches(keeps)]
    for removal, batch in progress.shown(batches, len(batches), _RUNNING):
        removal.run(batch)


def replacement_of(prediction: Prediction, given: int | str | None = None) -> tuple[int, Text]:
    """The token that stands for a removed one, and in words which it is.

    It is ``given``, else the tokenizer's mask, else its unknown token, else padding, else the end.

    Raises:
        ArgumentError: there is none of them, or what was given is no token.
    """
    tokenizer = tokenizer_of(prediction.processor)
    if given is not None:
        return _given(prediction, tokenizer, given)
    config = getattr(prediction.model, "config", None)
    for holder in (tokenizer, config):
        for role in ("mask", "unk", "pad", "eos"):
            found = getattr(holder, f"{role}_token_id", None)
            if isinstance(found, int) and found >= 0:
                return found, _told(tokenizer, found, role)
    raise ArgumentError(
        Text(
            "this model knows no mask, unknown, padding or end token to put in the place of what is removed; "
            "say which: replacement=…, a token or its id",
            "此模型没有可放在被移除之处的掩码、未知、填充或结束词元；请指明：replacement=…，一个词元或其编号",
        )
    )


def _given(prediction: Prediction, tokenizer: Any, given: int | str) -> tuple[int, Text]:
    if isinstance(given, str):
        found = tokenizer.get_vocab().get(given) if tokenizer is not None else None
        if found is None:
            raise ArgumentError(
                Text(
                    f"replacement={given!r} is no token of this tokenizer; give one token, or its id",
                    f"replacement={given!r} 不是此分词器的词元；请给出一个词元或其编号",
                )
            )
        given = int(found)
    size = getattr(text_config(getattr(prediction.model, "config", None)), "vocab_size", None)
    token = whole_number(given)
    if token is None or not 0 <= token < (size or token + 1):
        en, zh = (f" to {size - 1}", f" 到 {size - 1}") if size else ("", " 起")
        raise ArgumentError(
            Text(
                f"replacement={given}: expected the id of a token, from 0{en}",
                f"replacement={given}：应为词元的编号，0{zh}",
            )
        )
    return token, _told(tokenizer, token, "")


_ROLES: Final = {
    "mask": Text("the mask token", "掩码词元"),
    "unk": Text("the unknown token, for there is no mask token", "未知词元（没有掩码词元）"),
    "pad": Text(
        "the padding token, for there is neither a mask nor an unknown token", "填充词元（没有掩码或未知词元）"
    ),
    "eos": Text(
        "the end token, for there is no mask, unknown or padding token", "结束词元（没有掩码、未知或填充词元）"
    ),
    "": Text("as given", "由用户指定"),
}


def _told(tokenizer: Any, token: int, role: str) -> Text:
    name = str(token) if tokenizer is None else str(tokenizer.convert_ids_to_tokens(token))
    why = _ROLES[role]
    return Text(
        f"Replacement puts {name} in the place of each removed token: {why.en}.",
        f"替换法以 {name} 代替每个被移除的词元：{why.zh}。",
    )


def _joined(values: list[Any]) -> Any:
    """The same input of several texts as one batch."""
    return torch.cat(values) if isinstance(values[0], torch.Tensor) and values[0].dim() else values[0]
