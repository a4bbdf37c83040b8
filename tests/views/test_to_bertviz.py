import json
import re
import warnings

import pytest
import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.labels import Labels
from hf_attnviz.trace import Trace
from hf_attnviz.views import to_bertviz
from tests.views.builders import a_map, self_trace, translation

bertviz = pytest.importorskip("bertviz")


def drawn(arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # BertViz leaves its files open
        assert "bertviz-" in bertviz.model_view(**arguments, html_action="return").data
        return bertviz.head_view(**arguments, html_action="return").data


def test_one_stack():
    arguments = to_bertviz(self_trace(["a", "Ġb"]))
    assert arguments["attention"][0].shape == (1, 3, 2, 2)
    assert arguments["tokens"] == ["a", "Ġb"]
    drawn(arguments)


def test_the_original_page_holds_our_numbers():
    trace = self_trace(["a", "b", "c"])
    page = drawn(trace.to_bertviz())
    found = json.loads(re.search(r"PYTHON_PARAMS|params = (\{.*\});", page)[1])
    assert found["attention"][0]["left_text"] == ["a", "b", "c"]
    assert torch.equal(torch.tensor(found["attention"][0]["attn"]), trace.encoder.stacked())


def test_encoder_decoder_and_cross():
    source, target = Labels.plain(["x", "y", "z"]), Labels.plain(["a", "b"])
    maps = (
        a_map(source, source),
        a_map(target, target, stack="decoder"),
        a_map(target, source, stack="decoder", kind="cross"),
    )
    arguments = to_bertviz(Trace(maps))
    assert arguments["encoder_tokens"] == ["x", "y", "z"]
    assert arguments["cross_attention"][0].shape == (1, 3, 2, 3)
    assert "Cross" in drawn(arguments)


def test_cross_alone_and_a_single_decoding_row():
    drawn(to_bertviz(translation(), stack="cross"))
    row = a_map(Labels.plain(["c"]), Labels.plain(["a", "b", "c"]), stack="decoder")
    arguments = to_bertviz(Trace((row,)))
    assert arguments["decoder_tokens"] == ["c"]
    drawn(arguments)


def test_what_bertviz_cannot_draw_is_refused():
    with pytest.raises(ArgumentError, match=r"unequal depth or heads.*'encoder': \(3, 4\)"):
        to_bertviz(translation())
    with pytest.raises(ArgumentError, match="choose with stack"):
        to_bertviz(Trace((*self_trace(["a"], stack="vision").maps, *self_trace(["b"], stack="text").maps)))
    uneven = (*self_trace(["a", "b"], layers=1).maps, *self_trace(["ab"], layers=1, first_layer=1).maps)
    with pytest.raises(ArgumentError, match="differ in heads or lengths"):
        to_bertviz(Trace(uneven))
