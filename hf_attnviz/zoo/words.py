"""A tokenizer whose pieces are whole words, for text with spaces (English) and without (Chinese).

Han words are cut out by the longest match from the left, English by its spaces, and the possessive 's is a piece of its
own. An unknown stretch becomes one `<unk>` and does not disturb its neighbours. Punctuation is dropped.
"""

import re
from collections.abc import Sequence
from typing import Any

PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = (PAD, START, END, UNKNOWN)


def is_han(word: str) -> bool:
    return all("一" <= letter <= "鿿" for letter in word)


def word_tokenizer(words: Sequence[str], *, template: str, length: int) -> Any:
    """A `PreTrainedTokenizerFast`; `template` places the special tokens, as in `"<s> $A"`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[.,!?。，、！？]"), " "),
            normalizers.Replace(Regex(r"(?<=\p{Han})\s+(?=\p{Han})"), ""),
        ]
    )
    longest_first = sorted(filter(is_han, words), key=len, reverse=True)
    cut = "|".join(map(re.escape, (*longest_first, "'s")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(cut), "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(word, ids[word]) for word in SPECIAL]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )
