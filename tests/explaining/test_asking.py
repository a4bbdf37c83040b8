"""What may be asked: forms of targets and positions, models that read one text at a time; what is said beforehand."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz import progress
from hf_attnviz.errors import ArgumentError
from tests.models import ids, tiny

GIVEN = {"input_ids": ids(1, 10)}
QUICK = av.Settings(steps=4, samples=4, rows=4)


@pytest.mark.parametrize("target", [np.int64(7), torch.tensor(7), (-1, 7), (np.int64(9), torch.tensor(7))], ids=str)
def test_a_whole_number_is_one_whoever_made_it(target: Any) -> None:
    model = tiny("gpt2")
    expected = av.explain(model, GIVEN, target=7, methods=["saliency"])
    found = av.explain(model, GIVEN, target=target, methods=["saliency"])
    assert torch.equal(found.values, expected.values)
    assert found.parameters["target"] == "logit of token 7 at position 9"


@pytest.mark.parametrize("target", [1.5, True, (1, 2, 3), ("a", 2), (1.5, 2), (True, 2), (2, 97), (1,)], ids=str)
def test_what_is_no_target_is_refused_alike_everywhere(target: Any) -> None:
    for analysis in (av.explain, av.trust, av.hotflip, av.layer_attributions, av.input_reduction):
        with pytest.raises(ArgumentError, match="target="):
            analysis(tiny("gpt2"), GIVEN, target=target)


@pytest.mark.parametrize("analysis", [av.explain, av.trust, av.hotflip, av.input_reduction])
def test_a_model_that_labels_every_token_is_asked_which(analysis: Any) -> None:
    with pytest.raises(ArgumentError, match="labels every token"):
        analysis(tiny("bert_tagger"), GIVEN)


def test_outputs_in_a_tuple_are_rows_like_any_other() -> None:
    model, given = tiny("gpt2"), GIVEN | {"return_dict": False}
    methods = ["saliency", "integrated_gradients"]
    found = av.explain(model, given, target=lambda out: out[0][0, -1, 7], methods=methods, settings=QUICK)
    expected = av.explain(model, GIVEN, target=7, methods=methods, settings=QUICK)
    torch.testing.assert_close(found.values, expected.values)
    trusted = av.trust(model, given, target=lambda out: out[0][0, -1, 7], methods=["attention"], replacement=3)
    assert trusted.curves.values.isfinite().all()


@pytest.mark.parametrize("candidates", [[1.5, 2], ["a"], 3, [99], [-11], [None]], ids=str)
def test_candidates_that_are_no_positions_are_refused(candidates: Any) -> None:
    with pytest.raises(ArgumentError, match="expected a list of the text's positions 0 to 9"):
        av.trust(tiny("gpt2"), GIVEN, candidates=candidates, replacement=3)


def test_a_replacement_is_a_whole_number_and_candidates_may_be_a_tensor() -> None:
    with pytest.raises(ArgumentError, match="expected the id of a token, from 0 to 96"):
        av.trust(tiny("gpt2"), GIVEN, replacement=1.5)  # type: ignore[arg-type]
    options: dict[str, Any] = {"replacement": np.int64(3), "methods": ["attention"]}
    result = av.trust(tiny("gpt2"), GIVEN, candidates=torch.tensor([-2, 1, 2]), **options)
    assert result.candidates == (1, 2, 8)


def test_dropout_somewhere_inside_is_training_too() -> None:
    model = tiny("gpt2")
    model.transformer.h[1].train()
    for analysis in (av.explain, av.trust, av.value_zeroing):
        with pytest.raises(ArgumentError, match="training mode"):
            analysis(model, GIVEN)


def test_a_classifier_without_padding_reads_its_texts_one_by_one() -> None:
    """It finds the end of each text by padding, and refuses a batch without: alone it gives the very same numbers."""
    with_padding, without = tiny("gpt2_classifier"), tiny("gpt2_classifier", pad_token_id=None)
    for analysis in (av.explain, av.hotflip):
        options = {"settings": QUICK} if analysis is av.explain else {}
        found, expected = (analysis(model, GIVEN, **options) for model in (without, with_padding))  # type: ignore[operator]
        assert found.axes == expected.axes
        torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-4)
    with pytest.raises(ArgumentError, match="pad_token_id"):
        av.layer_attributions(without, GIVEN, settings=QUICK)
    methods = ["gradient_x_activation", "activation"]
    one, other = (
        [av.layer_attributions(model, GIVEN, method=name).values for name in methods]
        for model in (without, with_padding)
    )
    torch.testing.assert_close(torch.stack(one), torch.stack(other), atol=1e-5, rtol=1e-4)
    given: dict[str, Any] = {
        "methods": ["attention", "integrated_gradients"],
        "replacement": 3,
        "rule": av.TrustRule(draws=20),
    }
    alone, together = (av.trust(model, GIVEN, **given) for model in (without, with_padding))
    torch.testing.assert_close(alone.curves.values, together.curves.values, atol=1e-5, rtol=1e-4)


def test_a_model_that_cannot_run_at_all_says_so_itself() -> None:
    class Broken(transformers.GPT2LMHeadModel):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("broken")

    model = Broken(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=97)).eval()
    with pytest.raises(ValueError, match="broken"):
        av.explain(model, GIVEN)


class Counting:
    """Every piece of long work that was announced: its name, how many steps it said, and how many it took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.works: list[list[Any]] = []
        real = progress.shown

        def shown(items: Iterable[Any], total: int, what: Any) -> Iterator[Any]:
            work = [what.en, total, 0]
            self.works.append(work)
            for item in real(items, total, what):
                work[2] += 1
                yield item

        monkeypatch.setattr(progress, "shown", shown)

    def of(self, name: str) -> list[Any]:
        (work,) = [work for work in self.works if work[0].startswith(name)]
        return work[1:]


def test_every_pass_of_long_work_is_a_step_that_was_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer, one flip or one text may be long work by itself; the estimate comes of the first step."""
    model, count = tiny("gpt2"), Counting(monkeypatch)
    av.layer_attributions(model, GIVEN, layers=[0], settings=av.Settings(steps=20, rows=5))
    assert count.of("attributing to layers") == [5, 5]
    av.hotflip(model, GIVEN, flips=2, candidates=25)
    assert count.of("replacing tokens") == [6, 6]
    av.trust(model, GIVEN, methods=["attention"], replacement=3, rule=av.TrustRule(draws=20))
    assert count.of("running the text without heads") == [2 + 7, 2 + 7]
    assert count.of("running the text without some")[1] > 1


@pytest.mark.parametrize(
    ("ids_given", "match"),
    [
        (ids(1, 5)[0], r"expected input_ids \[1, position\], a tensor of ids; got \(5,\)"),
        ([[3, 4, 5]], r"expected input_ids \[1, position\], a tensor of ids; got list"),
        (torch.rand(1, 4), "of torch.float32"),
        (ids(2, 4), "one at a time"),
        (torch.zeros(1, 0, dtype=torch.long), "the text is empty"),
    ],
)
def test_what_is_no_text_is_refused_alike_everywhere(ids_given: Any, match: str) -> None:
    for analysis in (av.explain, av.trust, av.hotflip, av.value_zeroing):
        with pytest.raises(ArgumentError, match=match):
            analysis(tiny("gpt2"), {"input_ids": ids_given})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_padding_from_end_to_end_and_compiled_models_are_refused_alike_everywhere() -> None:
    given = GIVEN | {"attention_mask": torch.zeros(1, 10, dtype=torch.long)}
    compiled = torch.compile(tiny("gpt2"), backend="eager")
    for analysis in (av.explain, av.trust, av.hotflip, av.value_zeroing):
        with pytest.raises(ArgumentError, match="padding from end to end"):
            analysis(tiny("gpt2"), given)
        with pytest.raises(av.errors.CaptureError, match="compiled before"):
            analysis(compiled, GIVEN)


def test_labels_are_no_part_of_what_is_read() -> None:
    """A decoder would read the text of the labels; it starts from its start token."""
    model = tiny("bart")
    with_labels = av.explain(model, GIVEN | {"labels": ids(1, 4)}, methods=["saliency"])
    assert torch.equal(with_labels.values, av.explain(model, GIVEN, methods=["saliency"]).values)
    assert with_labels.parameters["target"].endswith("at position 0")


def test_the_sink_is_the_share_of_the_row_on_the_first_and_on_special_tokens() -> None:
    given = {"input_ids": torch.tensor([[1, 7, 8, 2, 9, 10, 11, 12]])}  # 1 begins a text, 2 ends it
    row = av.explain(tiny("gpt2"), given, methods=["attention"]).values[0].double()
    sink = av.trust(tiny("gpt2"), given, methods=["attention"], replacement=3, rule=av.TrustRule(draws=20)).sink
    assert sink is not None
    torch.testing.assert_close(sink.values, torch.stack([row[0], row[0] + row[3]]), atol=1e-6, rtol=1e-5)
