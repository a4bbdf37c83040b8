"""Every task that transformers has: the result is that of the plain run, and traces say what they belong to."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.pipelines import SUPPORTED_TASKS

import hf_attnviz as av
from tests.capturing import pipes
from tests.capturing.pipes import PIPES
from tests.capturing.pointing import look_at_what_changes, redrawn
from tests.capturing.test_positions import looked_at


def test_no_task_is_left_out() -> None:
    assert set(PIPES) == set(SUPPORTED_TASKS)


def leaves(found: Any) -> Iterator[Any]:
    """What a result is made of, whatever it is nested in."""
    if isinstance(found, Mapping):
        for name in found:
            yield name
            yield from leaves(found[name])
    elif isinstance(found, list | tuple):
        yield len(found)
        for one in found:
            yield from leaves(one)
    elif isinstance(found, torch.Tensor | np.ndarray | Image.Image):
        one = np.asarray(found)
        yield one.dtype, one.shape, one.tobytes()
    else:
        yield found


def same(one: Any, other: Any) -> bool:
    return list(leaves(one)) == list(leaves(other))


@pytest.mark.parametrize("task", PIPES)
def test_a_pipeline_gives_what_it_always_gives(task: str, tmp_path: Path) -> None:
    target, asked, options = PIPES[task](tmp_path)

    def ask() -> Any:
        torch.manual_seed(0)
        return target(*asked, **options)

    plain = ask()
    assert same(plain, ask())  # else the comparison below would say nothing
    before = {name: dict(thing.__dict__) for name, thing in (("pipe", target), ("model", target.model))}
    with av.capture(target) as recording:
        assert same(ask(), plain)
    traces = recording.traces
    assert traces and all(trace.maps for trace in traces)
    assert all(trace.origin is not None and trace.origin.input == 0 for trace in traces)
    for trace in traces:
        for m in trace.maps:
            assert len(m.keys) == m.weights.shape[-1] and len(m.queries) == m.weights.shape[-2]
    attached = av.attach(target, last=len(recording.runs))
    try:
        assert same(ask(), plain)
        again = attached.traces
    finally:
        attached.detach()
    assert [t.origin for t in again] == [t.origin for t in traces]
    for one, other in zip(again, traces, strict=True):
        for a, b in zip(one.maps, other.maps, strict=True):
            assert torch.equal(a.weights, b.weights) and a.keys == b.keys and a.queries == b.queries
    assert "preprocess" not in target.__dict__ and "forward" not in target.__dict__
    assert set(before["model"]) == set(target.model.__dict__)


# ---- which input, chunk or candidate, and what stands on the axes


def traced(task: str, folder: Path, *asked: Any, **options: Any) -> list[av.Trace]:
    """The traces of a task asked in the usual way, or in another."""
    target, usual, settings = PIPES[task](folder)
    with av.capture(target) as recording:
        target(*(asked or usual), **settings | options)
    return recording.traces


def sentence(labels: Any, part: int | None) -> str:
    """The words of one text of a pair."""
    chosen = [n for n, one in enumerate(labels.parts) if one == part and labels.kinds[n] == "text"]
    words = dict.fromkeys(labels.words[n] for n in chosen)
    return " ".join("".join(labels.texts[n] for n in chosen if labels.words[n] == word) for word in words)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_candidate_label_is_told_with_its_hypothesis(tmp_path: Path, batch_size: int) -> None:
    texts = ["a small dog", "the cat sat on the mat"]
    found = traced("zero-shot-classification", tmp_path, texts, batch_size=batch_size)
    expected = [(n, label) for n in range(2) for label in ("cat", "dog", "words")]
    assert [(t.origin.input, t.origin.candidate) for t in found] == expected
    assert [t.origin.chunk for t in found] == [0, 1, 2] * 2
    for trace, (n, label) in zip(found, expected, strict=True):
        keys = trace.encoder.keys
        assert sentence(keys, 0) == texts[n]
        assert label in sentence(keys, 1)
        assert [part for part, special in zip(keys.parts, keys.special, strict=True) if special] == [None] * 3


def test_a_second_call_counts_its_inputs_anew(tmp_path: Path) -> None:
    target, _, _ = PIPES["token-classification"](tmp_path)
    attached = av.attach(target, last=9)
    try:
        target(["the cat", "a dog sat"], batch_size=2)
        target("words")
        target.model(**target.tokenizer("the mat", return_tensors="pt"))  # not through the pipeline
        origins = [t.origin for t in attached.traces]
    finally:
        attached.detach()
    assert [o and o.input for o in origins] == [0, 1, 0, None]


def test_a_list_read_lazily_by_a_generator_is_counted_too(tmp_path: Path) -> None:
    target, _, _ = PIPES["text-classification"](tmp_path)
    with av.capture(target) as recording:
        list(target(text for text in ("the cat", "a dog", "words")))
    assert [t.origin.input for t in recording.traces] == [0, 1, 2]


def test_the_two_texts_of_a_pair(tmp_path: Path) -> None:
    (trace,) = traced("text-classification", tmp_path)
    assert sentence(trace.encoder.keys, 0) == "the cat" and sentence(trace.encoder.keys, 1) == "a small dog"


def test_spans_of_a_document_are_its_chunks(tmp_path: Path) -> None:
    """Twelve tokens hold the question, three special tokens and seven words: ten words need two spans or more."""
    found = traced("document-question-answering", tmp_path)
    assert len(found) > 1
    assert [(t.origin.input, t.origin.chunk) for t in found] == [(0, n) for n in range(len(found))]
    assert all(sentence(t.encoder.keys, 0) == "the dog" for t in found)
    assert sentence(found[0].encoder.keys, 1).startswith("the cat sat")
    assert sentence(found[-1].encoder.keys, 1).endswith("slept")


def test_the_question_and_its_table(tmp_path: Path) -> None:
    (trace,) = traced("table-question-answering", tmp_path)
    assert sentence(trace.encoder.keys, 0) == "how old cat"
    assert sentence(trace.encoder.keys, 1) == "name age cat 3 dog old"


def test_candidates_in_one_forward_share_their_picture(tmp_path: Path) -> None:
    found = traced("zero-shot-image-classification", tmp_path)
    assert [t.origin.candidate for t in found] == ["cat", "small dog", "mat"]
    for trace in found:
        assert "".join(trace.text.keys).endswith(trace.origin.candidate.replace(" ", ""))
        assert trace.vision.keys.segments[1].grid == (4, 4)


def test_each_candidate_object_is_looked_for_in_the_picture(tmp_path: Path) -> None:
    found = traced("zero-shot-object-detection", tmp_path)
    assert [(t.origin.chunk, t.origin.candidate) for t in found] == [(0, "cat"), (1, "small dog")]
    assert all(t.vision.keys.segments[1].grid == (4, 4) for t in found)


def test_masks_tell_the_picture_from_the_batches_of_points(tmp_path: Path) -> None:
    """The picture is read once; its four points come in batches of three and one."""
    found = traced("mask-generation", tmp_path)
    assert [(t.origin.input, t.origin.chunk) for t in found] == [(0, 0), (0, 0), (0, 1)]
    whole = next(m for m in found[0].maps if m.layer == 1)
    assert whole.keys.segments[0].grid == (4, 4) and set(whole.keys.kinds) == {"patch"}
    points = [t.maps[0] for t in found[1:]]
    assert [m.weights.shape[0] for m in points if "piece" in m.layout] == [3]
    assert points[1].layout == ("head", "query", "key")


def test_pictures_in_a_batch_are_different_inputs(tmp_path: Path) -> None:
    found = traced("image-classification", tmp_path, [pipes.photo(), pipes.photo(48, 32)], batch_size=2)
    assert [t.origin.input for t in found] == [0, 1]
    assert all(t.vision.keys.segments[1].grid == (4, 4) for t in found)


def test_a_cell_of_a_feature_map(tmp_path: Path) -> None:
    """40 × 56 becomes 64 × 89: two rows and three columns of cells of 32 pixels."""
    (trace,) = traced("object-detection", tmp_path)
    assert trace.encoder.keys.segments[0].grid == (2, 3)
    assert trace.cross.keys == trace.encoder.keys


def test_frames_of_a_video(tmp_path: Path) -> None:
    (trace,) = traced("video-classification", tmp_path)
    assert [(s.kind, s.grid, s.part) for s in trace.vision.keys.segments] == [("patch", (4, 4), n) for n in range(2)]


def test_a_vlm_reads_words_and_patches(tmp_path: Path) -> None:
    (trace,) = traced("image-text-to-text", tmp_path)
    patches = [s for s in trace.decoder.keys.segments if s.kind == "patch"]
    assert [(s.grid, s.stop - s.start) for s in patches] == [((4, 4), 16)]
    assert sentence(trace.decoder.keys, None).startswith("the cat")


def test_a_language_model_that_hears() -> None:
    """Where frames are pooled by a length that the inputs do not tell, placeholders stay latents."""
    (trace,) = traced("any-to-any", Path())
    assert trace.audio.keys.seconds[1] == pytest.approx((0.02, 0.04))
    assert "latent" in trace.decoder.keys.kinds and "frame" not in trace.decoder.keys.kinds


# ---- sound in chunks


def noise(seconds: float, moment: float) -> np.ndarray:
    found = np.zeros(int(16_000 * seconds), np.float32)
    start = int(16_000 * moment)
    found[start : start + 192] = pipes.sound(0.012)  # longer than a frame, so that no stride steps over it
    return found


@pytest.mark.parametrize("batch_size", [1, 2])
def test_chunks_of_a_sound_name_the_second_of_the_whole(tmp_path: Path, batch_size: int) -> None:
    """Chunks of 1 s that overlap by 0.2 s at each end begin every 0.6 s; the noise at 1.453 s is in two of them."""
    target, _, options = PIPES["automatic-speech-recognition"](tmp_path)
    target.feature_extractor.do_normalize = False
    model, moment = redrawn(target.model), 1.453
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "pos_conv" in name and "original1" not in name:
                parameter.zero_()
    alone = torch.tensor(noise(1.0, 0.5))[None]
    look_at_what_changes(model.wav2vec2.encoder.layers[0].attention, 4, lambda lit: model(alone * lit))
    with av.capture(target) as recording:
        target(noise(2.5, moment), batch_size=batch_size, **options)
    found = recording.traces
    assert [(t.origin.input, t.origin.chunk) for t in found] == [(0, n) for n in range(len(found))]
    assert [t.origin.seconds for t in found] == pytest.approx([0.6 * n for n in range(len(found))])
    heard = []
    for trace in found:
        m = trace.audio.maps[0]
        begins, ends = m.keys.seconds[0][0], m.keys.seconds[-1][1]
        if begins <= moment < ends:
            heard.append(trace.origin.chunk)
            second = m.keys.seconds[looked_at(m)]
            assert second[0] - 0.012 <= moment <= second[1]
    assert heard == [1, 2]


def whisper_pipe() -> Any:
    tokenizer = pipes.byte_level()
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=37, decoder_ffn_dim=37, num_mel_bins=8, vocab_size=len(tokenizer), max_source_positions=1500,
        max_target_positions=32, decoder_start_token_id=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = redrawn(transformers.WhisperForConditionalGeneration._from_config(config))
    vocabulary = dict(tokenizer.get_vocab())
    speaker = transformers.WhisperTokenizer(vocab=vocabulary, merges=[])
    reader = transformers.WhisperFeatureExtractor(feature_size=8)
    return transformers.pipeline(
        "automatic-speech-recognition", model=model, tokenizer=speaker, feature_extractor=reader, device="cpu"
    )


def test_whispers_cross_attention_names_the_second_of_the_whole() -> None:
    """Chunks of 30 s that overlap by 5 s at each end begin every 20 s; noise at 47.3 s is in the second and third."""
    target, moment = whisper_pipe(), 47.3
    encoder, decoder = target.model.model.encoder.layers[0], target.model.model.decoder.layers[0]
    alone = target.feature_extractor(noise(30, 10.0), sampling_rate=16_000, return_tensors="pt")["input_features"]
    silent = target.feature_extractor(0 * noise(30, 10.0), sampling_rate=16_000, return_tensors="pt")["input_features"]
    start = torch.tensor([[1, 5]])

    def run(lit: bool) -> Any:
        return target.model(input_features=alone if lit else silent, decoder_input_ids=start)

    with torch.no_grad():
        for part in (encoder.self_attn.v_proj, decoder.encoder_attn.v_proj):
            part.weight.zero_()  # nothing moves from frame to frame
    look_at_what_changes(decoder.encoder_attn, 4, run)
    settings = {"chunk_length_s": 30, "stride_length_s": 5, "generate_kwargs": {"max_new_tokens": 2}}
    plain = target(noise(60, moment), **settings)
    with av.capture(target) as recording:
        assert target(noise(60, moment), **settings) == plain
    found = recording.traces
    assert [(t.origin.chunk, t.origin.seconds) for t in found] == [(0, 0.0), (1, 20.0), (2, 40.0)]
    for trace in found[1:]:
        m = trace.cross.maps[0]
        begins, ends = m.keys.seconds[looked_at(m)]
        assert begins - 0.03 <= moment <= ends + 0.03
        assert m.keys.seconds[0][0] == trace.origin.seconds


def test_two_pictures_and_three_labels_in_one_batch(tmp_path: Path) -> None:
    """Texts and pictures of a forward are different in number: each picture with each label is a trace of its own."""
    target, _, options = PIPES["zero-shot-image-classification"](tmp_path)
    pictures = [pipes.photo(), pipes.photo(seed=1)]
    plain = target(pictures, batch_size=2, **options)
    with av.capture(target) as recording:
        assert target(pictures, batch_size=2, **options) == plain
    origins = [(t.origin.input, t.origin.candidate) for t in recording.traces]
    assert origins == [(n, label) for n in range(2) for label in ("cat", "small dog", "mat")]
