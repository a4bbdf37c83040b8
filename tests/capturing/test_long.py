"""What is kept of a text when nobody says: maps where they fit, else what a page along the text is made of."""

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.capturing.long import MOST_BYTES, keep_for
from tests.models import tiny


def test_a_short_text_keeps_its_maps() -> None:
    loaded = av.load_model("induction")
    trace = av.trace_text(loaded, loaded.examples[0], generate=False, keep=None)
    assert all(m.has_weights for m in trace.maps)


def test_a_long_one_what_the_page_is_made_of() -> None:
    loaded = av.load_model("wordfinder")
    text = " ".join(["sun", "moon", "star"] * 1_000)
    trace = av.trace_text(loaded, text, generate=False, keep=None)
    assert not any(m.has_weights for m in trace.maps)
    assert set(trace.maps[0].reduced) == {"statistics", "rollout", "gram", "topk"}
    torch.testing.assert_close(trace.maps[0].statistics.received.sum(-1), torch.full((4,), 3_001.0), atol=0.05, rtol=0)


@pytest.mark.parametrize(("name", "heads"), [("gpt2", 8), ("bert", 8)])
def test_the_turn_is_where_the_maps_take_so_much(name: str, heads: int) -> None:
    model = tiny(name)
    assert model.config.num_hidden_layers * model.config.num_attention_heads == heads
    fits = int((MOST_BYTES / (4 * heads)) ** 0.5)
    assert keep_for(model, fits) == "maps"
    assert keep_for(model, fits + 1) == ["statistics", "rollout", "gram", "topk"]
    most = MOST_BYTES // (heads * 64)
    assert "topk" in keep_for(model, most) and "topk" not in keep_for(model, most + 1)


def test_a_model_that_says_nothing_of_its_size_keeps_maps() -> None:
    assert keep_for(torch.nn.Linear(2, 2), 1_000) == "maps"
