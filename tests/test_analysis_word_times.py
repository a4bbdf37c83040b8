"""When words were spoken: against transformers' own token timestamps, plain loops, and times that were planted."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.labels import label_tokens
from tests.capturing import pipes
from tests.capturing.extra_models import byte_level
from tests.functional import reference_alignment as reference
from tests.models import ids, tiny

HEADS = [[0, 1], [1, 2], [1, 3]]
START = torch.tensor([[1, 5, 6]])
SECONDS, END = 1.3, "<|endoftext|>"


def whisper(backend: str, seed: int = 3) -> Any:
    config = transformers.WhisperConfig(
        vocab_size=300, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, num_mel_bins=16, max_source_positions=100,
        max_target_positions=40, pad_token_id=0, bos_token_id=1, eos_token_id=0, decoder_start_token_id=1,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration._from_config(config, attn_implementation=backend)
    model = pipes.drawn(model, seed)
    settings = {"alignment_heads": HEADS, "return_timestamps": False, "no_timestamps_token_id": 299, "max_length": None}
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model


@pytest.fixture(scope="module")
def processor() -> Any:
    speaker = transformers.WhisperTokenizer(vocab=dict(byte_level().get_vocab()), merges=[])
    return transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2), speaker)


def heard(processor: Any) -> dict[str, Any]:
    told = {"sampling_rate": 16_000, "return_tensors": "pt", "return_attention_mask": True}
    return dict(processor.feature_extractor(pipes.sound(SECONDS, 1), **told))


OPTIONS = {"max_new_tokens": 12, "do_sample": False, "no_repeat_ngram_size": 1, "decoder_input_ids": START}


def transcript(processor: Any, seed: int, *, whole: bool = True) -> av.Trace:
    model = whisper("sdpa", seed)
    with av.capture(model, processor) as recording:
        model.generate(heard(processor)["input_features"], return_dict_in_generate=whole, **OPTIONS)
    return recording.traces[-1]


@pytest.mark.parametrize("seed", [0, 1, 2, 15, 27, 32])  # the last three end by themselves
def test_token_times_are_those_of_transformers(processor: Any, seed: int) -> None:
    """By the row that reads, which is the one transformers takes. Where the end mark did not come in time, its last
    time is a copy: that token was never read."""
    twin = whisper("eager", seed)
    inputs = heard(processor)
    wanted = twin.generate(
        inputs["input_features"], attention_mask=inputs["attention_mask"], return_token_timestamps=True, **OPTIONS
    )["token_timestamps"][0]
    heads = twin.generation_config.alignment_heads
    trace = transcript(processor, seed)
    found = av.word_times(trace, heads=heads, read="reading", words=False, seconds=SECONDS)
    assert len(found.values[0]) == (len(wanted) if trace.cross.maps[0].produced[-1] == END else len(wanted) - 1)
    torch.testing.assert_close(found.values[0].float(), wanted[: len(found.values[0])], atol=1e-6, rtol=0)
    assert torch.equal(found.values[1, :-1], found.values[0, 1:]) and found.values[1, -1].item() == pytest.approx(1.3)


@pytest.mark.parametrize("seed", range(3))
def test_the_rows_that_put_out_by_plain_loops(processor: Any, seed: int) -> None:
    trace = transcript(processor, seed)
    rows = [n for n, text in enumerate(trace.cross.maps[0].produced or ()) if text is not None]
    weights = [trace.cross.head(layer, head)[rows, :65].double().tolist() for layer, head in HEADS]
    found = av.word_times(trace, heads=[(layer, head) for layer, head in HEADS], words=False, seconds=SECONDS)
    wanted = [0.02 * frame for frame in reference.spoken_frames(weights, 7)]
    assert found.values[0].tolist() == pytest.approx(wanted, abs=1e-6)
    assert rows[0] == 2 and len(rows) == 12


def test_a_sound_may_begin_later(processor: Any) -> None:
    """Where a stretch of a longer sound was heard, times are those of the whole."""
    trace = transcript(processor, 0)
    one = trace.cross.maps[0]
    marks = [av.Segment("frame", n, n + 1, seconds=(20 + 0.02 * n, 20.02 + 0.02 * n)) for n in range(100)]
    later = av.Labels.of(one.keys.texts, [None] * 100, [None] * 100, marks)
    moved = av.Trace(tuple(replace(m, keys=later) for m in trace.cross))
    at_home, away = (av.word_times(one, heads=[(1, 2)], seconds=SECONDS).values for one in (trace, moved))
    torch.testing.assert_close(away, at_home + 20, atol=1e-5, rtol=0)


def planted(processor: Any, text: str, at: list[int], *, ended: bool = True) -> tuple[av.Trace, list[int]]:
    """A transcript whose rows look at the frames given, one a token and one for the end."""
    numbers = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    numbers = [n for n in numbers if n != 0]
    assert len(at) == len(numbers) + ended
    weights = torch.full((1, len(at), 100), 1e-3)
    for row, frame in enumerate(at):
        weights[:, row, frame : (at[row + 1] if row + 1 < len(at) else 100)] = 1.0
    weights = weights / weights.sum(-1, keepdim=True)
    labels = label_tokens([0, *numbers, 0], processor.tokenizer)
    marks = [av.Segment("frame", n, n + 1, seconds=(0.02 * n, 0.02 * n + 0.02)) for n in range(100)]
    frames = av.Labels.of([str(n) for n in range(100)], [None] * 100, [None] * 100, marks)
    about = {"kind": "cross", "steps": tuple(range(len(at))), "produced": labels.texts[1 : len(at) + 1]}
    return av.Trace((av.AttentionMap(weights, labels[: len(at)], frames, "decoder", 0, **about),)), numbers


def test_chinese_words_are_characters(processor: Any) -> None:
    """吃 and 鸭 are three bytes and so three tokens each."""
    trace, numbers = planted(processor, "吃鸭", [5, 10, 15, 30, 40, 50, 80])
    assert len(numbers) == 6
    found = av.word_times(trace, heads=[(0, 0)], median_width=1)
    assert found.axis("query").labels == ("吃", "鸭")
    assert found.values.tolist() == [pytest.approx([0.0, 0.6]), pytest.approx([0.6, 1.6])]
    tokens = av.word_times(trace, heads=[(0, 0)], median_width=1, words=False)
    assert tokens.axis("query").labels[0] == "吃⟨1/3⟩" and tokens.values[0, 1].item() == pytest.approx(0.2)


def test_english_words_are_joined_and_a_cut_off_character_stays_with_its_word(processor: Any) -> None:
    trace, _ = planted(processor, "a duck", [0, 10, 20, 30, 40, 50, 60])
    found = av.word_times(trace, heads=[(0, 0)], median_width=1)
    assert found.axis("query").labels == ("a", "duck")
    assert found.values[0].tolist() == pytest.approx([0.0, 0.4])  # the space is a token of its own
    assert found.values[1].tolist() == pytest.approx([0.4, 1.2])
    trace, _ = planted(processor, "吃", [0, 10, 20], ended=False)
    assert av.word_times(trace, heads=[(0, 0)], median_width=1).axis("query").labels == ("吃",)


def test_a_plain_pass_over_sound_and_transcript(processor: Any) -> None:
    model = whisper("sdpa")
    numbers = [n for n in processor.tokenizer("吃 duck", add_special_tokens=False)["input_ids"] if n]
    read = torch.tensor([[0, *numbers, 0]])
    with av.capture(model, processor) as recording, torch.no_grad():
        model(heard(processor)["input_features"], decoder_input_ids=read)
    trace = recording.trace
    found = av.word_times(trace, heads=HEADS, seconds=SECONDS)
    assert found.axis("query").labels == ("吃", "duck")
    weights = [trace.cross.head(layer, head)[: len(numbers) + 1, :65].double().tolist() for layer, head in HEADS]
    frames = reference.spoken_frames(weights, 7)
    word = len(processor.tokenizer("吃", add_special_tokens=False)["input_ids"])
    assert found.values[1].tolist() == pytest.approx([0.02 * frames[word], 0.02 * frames[-1]], abs=1e-6)


def test_what_was_used_is_told(processor: Any) -> None:
    trace = transcript(processor, 0)
    guess, given = av.word_times(trace), av.word_times(trace, heads=HEADS, seconds=SECONDS)
    assert guess.parameters["heads"] == [(1, head) for head in range(4)]
    assert any("a guess" in note.en for note in guess.notes) and any("silence" in note.en for note in guess.notes)
    assert not any("a guess" in note.en or "silence" in note.en for note in given.notes)


def test_the_report_of_a_transcript_shows_when_words_were_spoken(processor: Any) -> None:
    html = av.report(transcript(processor, 27)).html
    assert "When each word was spoken" in html and "Alignment: which" not in html


def test_a_stripped_end_is_told(processor: Any) -> None:
    """Seed 27 ends by itself; without the dictionary, Whisper's generate() hides that, and the row after the end."""
    whole, cut = (
        av.word_times(transcript(processor, 27, whole=one), heads=HEADS, words=False) for one in (True, False)
    )
    assert whole.axis("query").labels == cut.axis("query").labels
    assert not any("return_dict_in_generate" in note.en for note in whole.notes)
    assert any("return_dict_in_generate" in note.en for note in cut.notes)
    assert whole.values[1, -1] < cut.values[1, -1] == pytest.approx(2.0)


def test_errors(processor: Any) -> None:
    trace = transcript(processor, 0)
    with pytest.raises(av.errors.UnknownNameError, match="heads 0 to 3, not 4"):
        av.word_times(trace, heads=[(1, 4)])
    with pytest.raises(av.errors.UnknownNameError, match="it has: 0, 1"):
        av.word_times(trace, heads=[(2, 0)])
    with pytest.raises(av.errors.ArgumentError, match="at least one head"):
        av.word_times(trace, heads=[])
    with pytest.raises(av.errors.ArgumentError, match="odd width"):
        av.word_times(trace, median_width=4)
    with pytest.raises(av.errors.ArgumentError, match="some seconds"):
        av.word_times(trace, seconds=0)
    with pytest.raises(av.errors.ArgumentError, match="words, got sources"):
        av.alignment(trace, words=True)
    with av.capture(tiny("bart")) as recording, torch.no_grad():
        recording.model(input_ids=ids(1, 5), decoder_input_ids=ids(1, 3))
    with pytest.raises(av.errors.ArgumentError, match="use alignment"):
        av.word_times(recording.trace)
