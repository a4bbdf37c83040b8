"""A cache that a user changes between two forwards: what goes on with it is told apart; nothing lives on with us."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache

import hf_attnviz as av
from tests.capturing.ways import assert_decoder_is_one_pass, decoder
from tests.models import ids


def cut(cache: Any) -> None:
    cache.crop(-2)


def turn_round(cache: Any) -> None:
    cache.reorder_cache(torch.tensor([1, 0]))


def copy_rows(cache: Any) -> None:
    cache.batch_repeat_interleave(2)


@pytest.mark.parametrize(("change", "rows", "past"), [(cut, 2, 4), (turn_round, 2, 6), (copy_rows, 4, 6)])
def test_a_cache_that_was_changed_begins_a_run_of_its_own(change: Callable[[Any], None], rows: int, past: int) -> None:
    model, reference = decoder("llama"), decoder("llama", "eager")
    first, second = ids(2, 6), ids(rows, 3, 1)
    cache, same = DynamicCache(config=model.config), DynamicCache(config=model.config)
    with torch.no_grad():
        with av.capture(model) as recording:
            model(first[:, :4], past_key_values=cache)
            model(first[:, 4:], past_key_values=cache)
            change(cache)
            model(second, past_key_values=cache)
        reference(first, past_key_values=same)
        change(same)
        expected = reference(second, past_key_values=same, output_attentions=True).attentions
    assert len(recording.runs) == 2
    for trace, row in zip(recording.traces, first.tolist(), strict=False):
        assert_decoder_is_one_pass(trace, reference, row)
    later = recording.traces[2:]
    assert len(later) == rows
    for row, trace in enumerate(later):  # what it had read before has no names: nobody knows what was done to it
        assert trace.decoder.keys.ids == (None,) * past + tuple(second[row].tolist())
        assert trace.decoder.queries.ids == tuple(second[row].tolist())
        for found, wanted in zip(trace.decoder, expected, strict=True):
            torch.testing.assert_close(found.weights, wanted[row], atol=2e-5, rtol=0)


def test_a_static_cache_that_is_emptied_serves_another_text() -> None:
    model, reference = decoder("llama"), decoder("llama", "eager")
    cache = StaticCache(config=model.config, max_cache_len=12)
    with torch.no_grad(), av.capture(model) as recording:
        for text in ids(2, 8):
            cache.reset()
            for part in (text[:6], text[6:]):
                model(part[None], past_key_values=cache)
    for trace, row in zip(recording.traces, ids(2, 8).tolist(), strict=True):
        assert_decoder_is_one_pass(trace, reference, row)


def test_a_forward_after_generate_is_not_lost() -> None:
    model, reference = decoder("llama"), decoder("llama", "eager")
    with torch.no_grad():
        with av.capture(model) as recording:
            out = model.generate(ids(1, 5), max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
            model(out.sequences[:, -1:], past_key_values=out.past_key_values)
        expected = reference(out.sequences, output_attentions=True).attentions
    generated, after = recording.traces
    assert_decoder_is_one_pass(generated, reference, out.sequences[0, :-1].tolist())
    for found, wanted in zip(after.decoder, expected, strict=True):
        assert found.queries.ids == (int(out.sequences[0, -1]),)
        torch.testing.assert_close(found.weights, wanted[0, :, 7:], atol=2e-5, rtol=0)


def test_what_the_layers_were_given_does_not_live_on() -> None:
    model = decoder("llama")
    given: list[weakref.ref[torch.Tensor]] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append(weakref.ref(kwargs["hidden_states"]))

    handle = model.model.layers[0].self_attn.register_forward_pre_hook(note, with_kwargs=True)
    cache = DynamicCache(config=model.config)
    left = weakref.ref(cache)
    with torch.no_grad(), av.capture(model) as recording:
        model(ids(1, 5), past_key_values=cache)
    handle.remove()
    del cache
    gc.collect()
    assert given
    assert left() is None
    assert [one() for one in given] == [None]
    assert recording.calls
