"""Every number of a tidied trace against loops that share no code with the package."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_attnviz as av
from hf_attnviz.errors import ArgumentError, NotKeptError, UnknownNameError
from hf_attnviz.labels import Labels
from hf_attnviz.trace import Trace
from tests.views.builders import a_map, without_weights

PIECES = Labels.of(
    ["[CLS]", "un", "believ", "able", "!", "[SEP]"],
    [1, 10, 11, 12, 13, 2],
    [None, 0, 0, 0, 1, None],
    ["special", "text", "text", "text", "text", "special"],
)


def hidden_keys(labels: Labels, hide: tuple[str, ...]) -> set[int]:
    found = {n for n, special in enumerate(labels.special) if special and "special" in hide}
    return found | ({0} if "sink" in hide else set())


def by_loops(weights, labels: Labels, hide: tuple[str, ...], renormalise: bool, words: bool):
    """Rows of self-attention as plain lists, one head."""
    gone = hidden_keys(labels, hide)
    kept = [n for n in range(len(labels)) if n not in gone]
    rows = []
    for row in kept:
        left = [float(weights[row][key]) for key in kept]
        total = math.fsum(left)
        rows.append([value / total if total else math.nan for value in left] if renormalise else left)
    if not words:
        return rows
    order: list[object] = []
    for place in kept:
        name = labels.words[place] if labels.words[place] is not None else ("alone", place)
        if name not in order:
            order.append(name)

    def of(name):
        return [
            n
            for n, place in enumerate(kept)
            if (labels.words[place], ("alone", place))[labels.words[place] is None] == name
        ]

    return [
        [math.fsum(rows[r][k] for r in of(one) for k in of(other)) / len(of(one)) for other in order] for one in order
    ]


@st.composite
def labelled(draw):
    size = draw(st.integers(2, 7))
    words, kinds, word = [], [], 0
    for _ in range(size):
        special = draw(st.integers(0, 3)) == 0
        word += special or draw(st.integers(0, 1))  # a word does not go on after a special token
        kinds.append("special" if special else "text")
        words.append(None if special else word)
    kinds[-1], words[-1] = "text", word  # something is left, whatever is hidden
    return Labels.of([f"t{n}" for n in range(size)], list(range(size)), words, kinds)


HIDE = st.sampled_from([(), ("special",), ("sink",), ("special", "sink")])


@settings(max_examples=60, deadline=None)
@given(labelled(), HIDE, st.booleans(), st.booleans(), st.booleans())
def test_every_number_is_that_of_the_loops(labels, hide, renormalise, words, causal):
    m = a_map(labels, labels, heads=2, causal=causal)
    m = dataclasses.replace(m, kept_weights=m.weights.double())
    got = av.tidied(Trace((m,)), words=words, hide=hide, renormalise=renormalise).encoder.maps[0]
    for head in range(2):
        wanted = by_loops(m.weights[head].tolist(), labels, hide, renormalise, words)
        assert torch.allclose(
            got.weights[head], torch.tensor(wanted, dtype=torch.float64), atol=1e-12, rtol=0, equal_nan=True
        )
    defined = got.weights[~got.weights.isnan().any(-1)]
    if renormalise or not hide:
        assert torch.allclose(defined.sum(-1), torch.ones(len(defined)).double())
    assert got.whole
    assert got.causal or not causal


def test_without_an_option_nothing_changes_and_words_of_one_piece_stay():
    plain = Labels.plain(["a", "b", "c"])
    trace = Trace((a_map(plain, plain, size=4),))
    assert av.tidied(trace) is trace
    worded = av.tidied(trace, words=True).encoder.maps[0]
    assert torch.equal(worded.weights, trace.maps[0].weights)
    assert (worded.queries, worded.keys) == (plain, plain)
    assert worded.query_vectors is None


def test_labels_steps_places_and_vectors_follow_their_rows():
    m = a_map(PIECES, PIECES, heads=4, size=8, key_value_heads=2)
    m = dataclasses.replace(m, steps=(0, 1, 2, 3, 4, 5), produced=("un", "believ", "able", "!", "[SEP]", "x"))
    kept = av.tidied(Trace((m,)), hide="special").encoder.maps[0]
    assert kept.keys.texts == kept.queries.texts == ("un", "believ", "able", "!")
    assert kept.keys.ids == (10, 11, 12, 13)
    assert (kept.steps, kept.positions, kept.produced) == ((1, 2, 3, 4), (0, 1, 2, 3), ("believ", "able", "!", "[SEP]"))
    assert torch.equal(kept.query_vectors, m.query_vectors[:, 1:5])
    assert torch.equal(kept.key_vectors, m.key_vectors[:, 1:5])
    words = av.tidied(Trace((m,)), hide="special", words=True).encoder.maps[0]
    assert words.keys.texts == words.queries.texts == ("unbelievable", "!")
    assert (words.keys.ids, words.keys.words, words.steps) == ((None, 13), (0, 1), (3, 4))
    assert words.produced is None


def test_the_note_says_how_much_was_hidden():
    m = a_map(PIECES, PIECES)
    rows = m.weights[:, 1:5].double()
    share = float(rows[..., [0, 5]].sum(-1).mean())
    trace = av.tidied(Trace((m,)), hide=("special",), renormalise=True)
    assert len(trace.notes) == 1
    assert f"on which {share:.1%} of a row's weight lay on average" in trace.notes[0].en
    assert "sum to one again" in trace.notes[0].en
    assert f"{share:.1%}" in trace.notes[0].zh
    assert "less than one" in av.tidied(Trace((m,)), hide="sink").notes[0].en
    twice = av.tidied(trace, words=True)
    assert len(twice.notes) == 2


def test_cross_attention_of_a_generation_goes_by_what_rows_wrote():
    read = Labels.of(["<s>", "Pek", "ing"], [1, 5, 6], [None, 0, 0], ["special", "text", "text"])
    source = Labels.of(["北", "京", "</s>"], [7, 8, 2], [0, 1, None], ["text", "text", "special"])
    m = a_map(read, source, stack="decoder", kind="cross")
    m = dataclasses.replace(m, produced=("Pek", "ing", "</s>"), steps=(0, 1, 2))
    kept = av.tidied(Trace((m,)), hide="special").cross.maps[0]
    assert kept.row_texts == ("→ Pek", "→ ing")
    assert torch.equal(kept.weights, m.weights[:, :2, :2])
    words = av.tidied(Trace((m,)), hide="special", words=True).cross.maps[0]
    assert words.row_texts == ("→ Peking",)
    assert torch.allclose(words.weights[:, 0], m.weights[:, :2, :2].mean(1))
    everything = av.tidied(Trace((m,)), words=True).cross.maps[0]
    assert everything.row_texts == ("→ Peking", "→ </s>")
    sink = av.tidied(Trace((m,)), hide="sink").cross.maps[0]
    assert (sink.keys.texts, len(sink.queries)) == (("京", "</s>"), 3)


def test_rows_of_some_tokens_only_stand_on_the_right_words():
    m = a_map(PIECES[3:5], PIECES[:5], causal=True)  # the rows of "able" and "!"
    words = av.tidied(Trace((m,)), words=True).encoder.maps[0]
    assert (words.positions, words.queries.words) == ((1, 2), (0, 1))
    assert torch.allclose(words.weights[:, 0, 1], m.weights[:, 0, 1:4].sum(-1))


def test_patches_keep_their_grid_without_the_class_token():
    image = Labels.of(
        ["[CLS]", "r0c0", "r0c1"],
        [None] * 3,
        [None] * 3,
        [
            "special",
            dataclasses.replace(av.Segment("patch", 0, 1, grid=(1, 2))),
            av.Segment("patch", 0, 1, grid=(1, 2)),
        ],
        [None, (0, 0), (0, 1)],
    )
    kept = av.tidied(Trace((a_map(image, image, stack="vision"),)), hide="special", words=True).vision.maps[0]
    assert kept.keys.cells == ((0, 0), (0, 1))
    assert kept.keys.segments == (av.Segment("patch", 0, 2, grid=(1, 2)),)


def test_a_file_keeps_the_notes(tmp_path):
    trace = av.tidied(Trace((a_map(PIECES, PIECES),)), hide="special", words=True)
    back = av.load(trace.save(tmp_path / "t.att"))
    assert back.notes == trace.notes
    assert torch.equal(back.encoder.maps[0].weights, trace.encoder.maps[0].weights)


def test_what_cannot_be_done_says_so():
    trace = Trace((a_map(PIECES, PIECES),))
    with pytest.raises(UnknownNameError, match="special, sink, got 'cls'"):
        av.tidied(trace, hide=["cls"])
    only = Labels.plain(["<s>", "</s>"], "special")
    with pytest.raises(ArgumentError, match="nothing of l0 would be left without special tokens"):
        av.tidied(Trace((a_map(only, only),)), hide="special")
    with pytest.raises(NotKeptError, match="keep="):
        av.tidied(without_weights(trace), words=True)


def test_half_precision_is_summed_in_float32():
    m = a_map(PIECES, PIECES)
    m = dataclasses.replace(m, kept_weights=m.weights.bfloat16())
    assert av.tidied(Trace((m,)), words=True).encoder.maps[0].weights.dtype == torch.float32
