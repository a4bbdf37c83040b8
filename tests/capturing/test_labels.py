"""Labels: what a person reads, whichever disguise the tokenizer's pieces wear."""

import re
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_attnviz as av
from hf_attnviz.labels import Labels, Segment, label_tokens
from tests.capturing.extra_models import byte_fallback, byte_level, clip_like, unigram, word_piece

BYTES = byte_level()
LATER_PART = re.compile(r"^[^⟨]*⟨(?!1/)\d+/\d+⟩")
ESCAPES = re.compile(r"(\\x..|\\u.{4}|\\U.{8})+")
FAMILY = "👨\u200d👩\u200d👧"


def labelled(tokenizer: Any, text: str, **options: Any) -> Labels:
    return label_tokens(tokenizer(text, **options)["input_ids"], tokenizer)


def joined(labels: Labels) -> str:
    """The text that the labels show: a character split over pieces once, visible white space as it was."""
    parts = [re.sub(r"⟨1/\d+⟩", "", LATER_PART.sub("", text)) for text in labels.texts]
    text = "".join(p.encode().decode("unicode_escape") if ESCAPES.fullmatch(p) else p for p in parts)
    return text.replace("␣", " ").replace("↵", "\n").replace("⇥", "\t")


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="⟨⟩␣↵⇥"), max_size=25))
def test_any_text_through_byte_level_pieces_is_read_again(text: str) -> None:
    shown = joined(labelled(BYTES, text))
    without = re.compile(r"\s")
    assert without.sub("", shown) == without.sub("", text)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 299), max_size=20))
def test_any_ids_get_one_readable_label_each(ids: list[int]) -> None:
    labels = label_tokens(ids, BYTES)
    assert labels.ids == tuple(ids)
    assert all(labels.texts)
    assert not any("�" in text for text in labels.texts)
    assert [s.start for s in labels.segments] + [len(ids)] == [0, *(s.stop for s in labels.segments)] or not ids
    assert all((word is None) == special for word, special in zip(labels.words, labels.special, strict=True))


def test_chinese_and_emoji_fall_into_bytes() -> None:
    assert labelled(BYTES, "吃").texts == ("吃⟨1/3⟩", "吃⟨2/3⟩", "吃⟨3/3⟩")
    assert labelled(BYTES, "👍").texts == tuple(f"👍⟨{n}/4⟩" for n in (1, 2, 3, 4))
    labels = labelled(BYTES, "吃饭")
    assert labels.words == (0, 0, 0, 1, 1, 1)


def test_byte_level_spaces_are_read_not_shown() -> None:
    labels = labelled(BYTES, "the cat sat")
    assert joined(labels) == "thecatsat"
    assert not any("Ġ" in text for text in labels.texts)
    assert len(set(labels.words)) == 3


def test_a_lone_stray_byte_is_named() -> None:
    stray = BYTES.convert_tokens_to_ids("å")  # GPT-2's letter for the byte 0xE5
    assert label_tokens([stray], BYTES).texts == ("\\xe5",)


def test_white_space_alone_is_made_visible() -> None:
    space, newline = BYTES.convert_tokens_to_ids("Ġ"), BYTES.convert_tokens_to_ids("Ċ")
    assert label_tokens([space, newline], BYTES).texts == ("␣", "↵")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u3000", "␣"),
        ("\xa0", "␣"),
        ("\u200b", "\\u200b"),
        ("\ufeff", "\\ufeff"),
        ("\0", "\\x00"),
        (")\r\n\t", ")↵↵⇥"),
    ],
)
def test_no_label_looks_empty(text: str, shown: str) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([tokenizers.AddedToken(text, normalized=False)])
    assert labelled(tokenizer, text).texts == (shown,)
    assert labelled(BYTES, "\u3000").texts == ("␣⟨1/3⟩", "␣⟨2/3⟩", "␣⟨3/3⟩")


@pytest.mark.parametrize(
    "character", [FAMILY, "👍🏽", "❤\ufe0f", "🇨🇳", "1\ufe0f\u20e3", "🏴\U000e0067\U000e007f", "e\u0301", "か\u3099"]
)
def test_what_a_reader_takes_for_one_character_is_one(character: str) -> None:
    size = len(character.encode())
    labels = labelled(BYTES, character)
    assert labels.texts == tuple(f"{character}⟨{n}/{size}⟩" for n in range(1, size + 1))
    assert set(labels.words) == {0}
    if not character[0].isalnum():
        assert labelled(BYTES, f"{character}cat").words[size] == 1
        assert labelled(BYTES, character * 2).words == (0,) * size + (1,) * size


def test_a_heap_of_accents_stays_small() -> None:
    labels = labelled(BYTES, "e" + "\u0301" * 3000)
    assert max(map(len, labels.texts)) < 60
    assert set(labels.words) == {0}


def test_chinese_zero_and_japanese_iteration_stand_alone_like_han() -> None:
    for text in ("二〇〇四", "人々の"):
        labels = labelled(BYTES, text)
        assert labels.words == tuple(n for n in range(len(text)) for _ in range(3))


def test_special_tokens_part_the_segments() -> None:
    end = BYTES.eos_token_id
    labels = label_tokens([end, *BYTES("cat")["input_ids"], end], BYTES)
    assert [s.kind for s in labels.segments] == ["special", "text", "special"]
    assert labels.words[0] is None and labels.words[-1] is None and labels.words[1] == 0
    assert labels.texts[0] == "<|endoftext|>"


def test_word_piece_pair() -> None:
    tokenizer = word_piece()
    labels = label_tokens(tokenizer("the unbelievably small cat", "words 我们")["input_ids"], tokenizer)
    assert [s.kind for s in labels.segments] == ["special", "text", "special", "text", "special"]
    assert not any("##" in text for text in labels.texts)
    words: dict[int, str] = {}
    for word, text in zip(labels.words, labels.texts, strict=True):
        if word is not None:
            words[word] = words.get(word, "") + text
    assert list(words.values()) == ["the", "unbelievably", "small", "cat", "words", "我", "们"]
    assert list(words) == list(range(7))


def test_words_agree_with_the_tokenizers_own() -> None:
    tokenizer = word_piece()
    encoded = tokenizer("the cat, a small dog! unbelievably small words")
    ours = [word for word in label_tokens(encoded["input_ids"], tokenizer).words if word is not None]
    theirs = [word for word in encoded.word_ids() if word is not None]
    assert ours == theirs


def test_an_unknown_word_is_a_word() -> None:
    tokenizer = word_piece()
    labels = labelled(tokenizer, "the ☃ cat")
    assert labels.texts == ("[CLS]", "the", "[UNK]", "cat", "[SEP]")
    assert labels.words == (None, 0, 1, 2, None)


def test_an_unknown_token_with_another_role_stays_special() -> None:
    tokenizer = byte_level()
    tokenizer.unk_token = tokenizer.eos_token
    assert label_tokens([tokenizer.eos_token_id], tokenizer).special == (True,)


def test_unigram_pieces() -> None:
    tokenizer = unigram()
    labels = labelled(tokenizer, "the cat sat")
    assert joined(labels).replace(" ", "") == "thecatsat"
    assert not any("▁" in text for text in labels.texts)
    words: dict[int | None, str] = {}
    for word, text in zip(labels.words, labels.texts, strict=True):
        words[word] = words.get(word, "") + text.strip("␣")
    assert [word for word in words.values() if word] == ["the", "cat", "sat"]


def test_byte_fallback() -> None:
    tokenizer = byte_fallback()
    labels = labelled(tokenizer, "cat 吃")
    assert labels.texts == ("cat", "␣", "吃⟨1/3⟩", "吃⟨2/3⟩", "吃⟨3/3⟩")
    assert labels.words[2:] == (1, 1, 1)


def test_clip_end_of_word() -> None:
    tokenizer = clip_like()
    labels = labelled(tokenizer, "the cat sat 吃")
    assert not any("</w>" in text for text in labels.texts)
    assert joined(labels) == "thecatsat吃"
    words: dict[int | None, str] = {}
    for word, text in zip(labels.words, labels.texts, strict=True):
        words[word] = words.get(word, "") + text
    assert list(words.values())[:3] == ["the", "cat", "sat"]


def test_without_a_tokenizer_the_ids_are_the_texts() -> None:
    labels = label_tokens([5, 7], None)
    assert labels.texts == ("5", "7") and labels.ids == (5, 7) and labels.words == (0, 1)


def test_an_id_beyond_the_vocabulary_is_shown_as_its_number() -> None:
    assert label_tokens([99_999], BYTES).texts == ("⟨99999⟩",)


@pytest.mark.parametrize("token", ["é", "<tag>", "吃饭"])
def test_added_tokens_are_read_as_they_were_added(token: str) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([token])
    assert labelled(tokenizer, f"cat{token}").texts[-1] == token


def test_added_tokens_say_themselves_whether_they_are_special() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([tokenizers.AddedToken("<|im_start|>", special=True), "<plain>"])
    labels = labelled(tokenizer, "<|im_start|>cat<plain>")
    assert labels.special == (True, *(False,) * (len(labels) - 1))


def test_added_runs_of_spaces_are_read_as_gemma_means_them() -> None:
    tokenizer = byte_fallback()
    tokenizer.add_tokens(["▁▁", "<a▁b>"])
    assert label_tokens(tokenizer.convert_tokens_to_ids(["▁▁", "<a▁b>"]), tokenizer).texts == ("␣␣", "<a▁b>")


# ---- patches, frames and pairs


def mixed() -> Labels:
    """Two words, a picture of 2 × 2 patches, three frames of half a second, a special token."""
    segments = (
        Segment("text", 0, 2, part=1),
        Segment("patch", 2, 6, grid=(2, 2)),
        Segment("frame", 6, 9, seconds=(1.0, 2.5)),
        Segment("special", 9, 10),
    )
    cells = (None, None, (0, 0), (0, 1), (1, 0), (1, 1), None, None, None, None)
    return Labels(tuple("abcdefghij"), (None,) * 10, (0, 1, *(None,) * 8), segments, cells)


@given(st.lists(st.integers(0, 9), max_size=12))
def test_chosen_positions_keep_their_part_cell_and_seconds(places: list[int]) -> None:
    whole, chosen = mixed(), mixed().at(places)
    assert chosen.texts == tuple(whole.texts[i] for i in places)
    assert chosen.kinds == tuple(whole.kinds[i] for i in places)
    assert chosen.parts == tuple(whole.parts[i] for i in places)
    assert [m.grid for m in chosen.marks] == [whole.marks[i].grid for i in places]
    assert [chosen.cells[n] if chosen.cells else None for n in range(len(places))] == [whole.cells[i] for i in places]
    for n, i in enumerate(places):
        expected = {6: (1.0, 1.5), 7: (1.5, 2.0), 8: (2.0, 2.5)}.get(i)
        assert chosen.seconds[n] == (None if expected is None else pytest.approx(expected))
    covered = [n for s in chosen.segments for n in range(s.start, s.stop)]
    assert covered == list(range(len(places)))


def test_labels_one_after_another_are_those_labels() -> None:
    labels = mixed()
    assert Labels.joined([labels[:4], labels[4:9], labels[9:]]) == labels
    twice = Labels.joined([labels, labels])
    assert twice.words[:2] == (0, 1) and twice.words[10:12] == (2, 3)
    assert twice.at(range(10)) == labels and twice.at(range(10, 20)).segments == labels.segments


def test_positions_must_all_be_described() -> None:
    with pytest.raises(av.errors.ShapeError, match="one text, id, word and cell"):
        Labels(("a",), (None,), (None,), (Segment("text", 0, 1),), ((0, 0), None))
