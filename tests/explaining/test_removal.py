"""A text without some of its tokens is run as if it had been written so, and no text runs twice."""

from typing import Any

import pytest
import torch
from transformers import BertTokenizer

from hf_attnviz import progress
from hf_attnviz.errors import ArgumentError, ShapeError
from hf_attnviz.explaining.prediction import predicted
from hf_attnviz.explaining.removal import Removal, measure
from tests.models import ids, tiny

LENGTH = 10
SECOND_HALF = torch.arange(LENGTH)[None] // 5
DECODER = torch.tensor([[1, 7, 9, 4, 6, 8, 3, 2, 5, 4]])  # as long as the text: must not be shortened with it
CASES: dict[str, tuple[str, dict[str, torch.Tensor]]] = {
    "classifier": ("bert_classifier", {"token_type_ids": SECOND_HALF, "attention_mask": torch.ones(1, LENGTH).long()}),
    "positions": ("bert_classifier", {"position_ids": torch.arange(LENGTH)[None]}),
    "masked": ("bert_masked", {"token_type_ids": SECOND_HALF}),
    "gpt2": ("gpt2", {"position_ids": torch.arange(LENGTH)[None]}),
    "pooled at the end": ("gpt2_classifier", {"attention_mask": torch.ones(1, LENGTH).long()}),
    "llama": ("llama", {}),
    "t5": ("t5", {"decoder_input_ids": DECODER}),
    "bart": ("bart", {"decoder_input_ids": DECODER, "attention_mask": torch.ones(1, LENGTH).long()}),
}
TARGETS: dict[str, Any] = {"classifier": 1, "masked": (4, 11), "gpt2": (7, 11), "t5": (5, 11)}
CANDIDATES = (0, 2, 3, 5, 6)


def keeps(count: int = 40) -> torch.Tensor:
    return torch.rand(count, len(CANDIDATES), generator=torch.Generator().manual_seed(0)) > 0.5


def written_anew(case: str, keep: torch.Tensor) -> float:
    """The probability by running, alone and by hand, the text without the tokens that are gone."""
    name, extra = CASES[case]
    given = {"input_ids": ids(1, LENGTH), **extra}
    gone = {place for place, kept in zip(CANDIDATES, keep.tolist(), strict=True) if not kept}
    left = [place for place in range(LENGTH) if place not in gone]
    short = {key: value[:, left] for key, value in given.items() if key in ("input_ids", "token_type_ids")}
    if "attention_mask" in given:
        short["attention_mask"] = torch.ones(1, len(left)).long()
    if "decoder_input_ids" in given:
        short["decoder_input_ids"] = DECODER
    with torch.no_grad():
        logits = tiny(name)(**short).logits
    if logits.dim() == 2:
        return logits[0].softmax(-1)[1].item()
    place = TARGETS[case][0] if case in TARGETS else LENGTH - 1
    return logits[0, place if name in ("t5", "bart") else left.index(place)].softmax(-1)[11].item()


@pytest.mark.parametrize("case", CASES)
def test_deletion_is_the_shorter_text(case: str) -> None:
    name, extra = CASES[case]
    target = TARGETS.get(case, 1 if "classifier" in name else 11)
    prediction = predicted(tiny(name), {"input_ids": ids(1, LENGTH), **extra}, target=target)
    removal = Removal(prediction, CANDIDATES, "deletion")
    measure([(removal, keeps())])
    for keep in keeps():
        assert removal(keep).item() == pytest.approx(written_anew(case, keep), abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_replacement_keeps_the_length_and_the_place(case: str) -> None:
    name, extra = CASES[case]
    target = TARGETS.get(case, 1 if "classifier" in name else 11)
    given = {"input_ids": ids(1, LENGTH), **extra}
    model = tiny(name)
    removal = Removal(predicted(model, given, target=target), CANDIDATES, "replacement", 3)
    measure([(removal, keeps())])
    place = target[0] if isinstance(target, tuple) else LENGTH - 1
    for keep in keeps():
        changed = given["input_ids"].clone()
        changed[0, [p for p, kept in zip(CANDIDATES, keep.tolist(), strict=True) if not kept]] = 3
        with torch.no_grad():
            logits = model(**given | {"input_ids": changed}).logits
        expected = (logits[0] if logits.dim() == 2 else logits[0, place]).softmax(-1)[1 if logits.dim() == 2 else 11]
        assert removal(keep).item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_mask_that_is_read_moves_along() -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop"]
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(vocabulary)})
    model = tiny("bert_masked")
    prediction = predicted(model, "a b [MASK] d e", target="c", processor=tokenizer)
    removal = Removal(prediction, (1, 2, 4, 5), "deletion")
    with torch.no_grad():
        shorter = model(**tokenizer("b [MASK] e", return_tensors="pt")).logits[0, 2].softmax(-1)[7]
    assert removal(torch.tensor([False, True, False, True])).item() == pytest.approx(shorter.item(), abs=1e-6)


def test_no_text_runs_twice_and_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gpt2")
    prediction = predicted(model, {"input_ids": ids(1, LENGTH)}, target=11)
    removal = Removal(prediction, CANDIDATES, "deletion")
    seen: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    every = torch.cartesian_prod(*[torch.tensor([False, True])] * len(CANDIDATES))
    measure([(removal, torch.cat([every, every]))])
    measure([(removal, every)])
    removal(every[3])
    hook.remove()
    assert sum(rows for rows, _ in seen) == 2 ** len(CANDIDATES) - 1  # the whole text has run already
    assert max(rows for rows, _ in seen) > 1
    monkeypatch.setattr("hf_attnviz.explaining.removal._NUMBERS", 10_000)
    bounded = Removal(prediction, CANDIDATES, "deletion").batches(every)
    assert max(len(batch) for batch in bounded) < max(rows for rows, _ in seen)


def test_long_work_is_announced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LONG", 1e-9)
    monkeypatch.setattr(progress, "_TRIAL", 0.0)
    removal = Removal(predicted(tiny("gpt2"), {"input_ids": ids(1, LENGTH)}, target=11), CANDIDATES, "deletion")
    measure([(removal, keeps())])
    assert "running the text without some of its tokens" in capsys.readouterr().err


def test_errors() -> None:
    prediction = predicted(tiny("gpt2"), {"input_ids": ids(1, LENGTH)}, target=11)
    with pytest.raises(ArgumentError, match="expected deletion, or replacement"):
        Removal(prediction, CANDIDATES, "replacement")
    with pytest.raises(ArgumentError, match="expected deletion, or replacement"):
        Removal(prediction, CANDIDATES, "burning")
    with pytest.raises(ShapeError, match="different lengths"):
        Removal(prediction, CANDIDATES, "deletion").inputs(torch.eye(5).bool() | (torch.arange(5)[:, None] == 0))
