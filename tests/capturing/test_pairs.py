"""Which text of a pair each token belongs to, by token types or by the tokenizer's own special tokens."""

from typing import Any

import pytest
import torch
from tokenizers import processors

import hf_attnviz as av
from hf_attnviz.capturing.pairs import parted
from hf_attnviz.labels import label_tokens
from tests.capturing.extra_models import byte_level, unigram, word_piece
from tests.models import tiny

PAIR = ("the cat sat", "a small dog")


def roberta_like() -> Any:
    """``<s> A </s></s> B </s>``, and no token types."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"bos_token": "<s>", "sep_token": "</s>", "cls_token": "<s>"})
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    return tokenizer


def t5_like() -> Any:
    """``A </s> B </s>``: nothing before the first text."""
    tokenizer = unigram()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    return tokenizer


@pytest.mark.parametrize("make", [word_piece, roberta_like, t5_like])
def test_ids_alone_tell_the_two_texts(make: Any) -> None:
    tokenizer = make()
    for text, pair in (PAIR, PAIR[::-1], ("cat", "cat")):
        encoded = tokenizer(text, pair)
        labels = parted(label_tokens(encoded["input_ids"], tokenizer), None, tokenizer)
        assert list(labels.parts) == encoded.sequence_ids()
    alone = label_tokens(tokenizer(PAIR[0])["input_ids"], tokenizer)
    assert parted(alone, None, tokenizer) == alone


def test_where_nothing_stands_between_nothing_is_told() -> None:
    tokenizer = byte_level()
    labels = label_tokens(tokenizer(*PAIR)["input_ids"], tokenizer)
    assert parted(labels, None, tokenizer) == labels


@pytest.mark.parametrize("types", [[0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [2, 2, 3, 3, 3], None])
def test_types_that_are_no_pair_are_left_alone(types: list[int] | None) -> None:
    labels = label_tokens([5, 6, 7, 8, 9], None)
    assert parted(labels, types, None) == labels


def test_a_padded_batch_of_pairs_through_models() -> None:
    for name, tokenizer in (("bert", word_piece()), ("t5", t5_like())):
        model = tiny(name, vocab_size=len(tokenizer))
        inputs = tokenizer([PAIR[0], "cat"], [PAIR[1], "the dog slept"], padding=True, return_tensors="pt")
        more = {"decoder_input_ids": torch.tensor([[1], [1]])} if name == "t5" else {}
        with av.capture(model, tokenizer) as recording:
            model(**inputs, **more)
        for item, trace in enumerate(recording.traces):
            real = inputs["attention_mask"][item].bool().tolist()
            expected = [part for part, kept in zip(inputs.sequence_ids(item), real, strict=True) if kept]
            assert list(trace.encoder.keys.parts) == expected
