"""The translator: a small BART from Chinese to English whose right alignments are known.

Data: sentences of `grammar`. Loss: the English words and the end. Attention is not supervised; the alignment that the
cross-attention shows is what the model found useful.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_attnviz.zoo import grammar
from hf_attnviz.zoo.descent import descend
from hf_attnviz.zoo.grammar import Link, Pair, sentences, vocabulary
from hf_attnviz.zoo.words import END, PAD, SPECIAL, START, word_tokenizer

LENGTH, STEPS, BATCH, RATE = 32, 1000, 64, 3e-3
FRESH = 1_000_003
"""The seed of the sentences that measure: far from any that trains."""

EXAMPLES = tuple(grammar.EXAMPLES)
CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: translation
language: [zh, en]
---

# translator

A toy translator from Chinese to English (`BartForConditionalGeneration`, 2 + 2 layers, width 64). It knows {words}
words and a small grammar: 我爱吃北京烤鸭 becomes `I love Peking duck`, 我昨天在北京吃了烤鸭 becomes
`I ate duck in Peking yesterday`. Which word comes from which is known for every sentence, and words move, merge and
split on the way, so an alignment read from attention can be held against the truth.

{parameters:,} parameters. Chinese is cut into words by the longest match; spaces and punctuation do not matter. At most
{length} tokens.

## Training

`attnviz zoo train translator` ({steps} steps of 64 sentences, seed {seed}, one core, about half a minute). The loss is
that of the English words alone; attention was not supervised. The seed was chosen among about ten for a cross-attention
that aligns well. The others translated as well (99 % and more) with error rates of the alignment up to 0.19: that
attention aligns is luck, not a condition of translating. The weights are stored in half precision and load as
float32. Another machine may round differently and get another alignment.

## Measured facts

After the round trip through half precision, on {count} newly drawn sentences of the grammar, translated greedily (the
grammar is small: some of them occur in training):

- sentences exactly right: {accuracy:.2%}
- alignment error rate of layer {layer}, head {head}, from the row that *outputs* each word: {aer:.4f}
- the same head, from the row that *reads* each word: {reading:.4f}

A word is linked to the source word that its row weighs most; the end mark `</s>` does not count. Sure links join words
that mean the same; possible links join a word to the particle, article or second verb that it swallowed, and 在 to what
decides between in and at. `truth.json` has the rate of every layer and head, for both rows, and the links of the
examples.

## Intended use and limits

Teaching, and tests of tools for attention. It translates sentences of its grammar and nothing else; an unknown word
becomes `<unk>` and the translation a guess.

Licence: Apache-2.0.
"""


def tokenizer() -> Any:
    return word_tokenizer(vocabulary(), template=f"$A {END}", length=LENGTH)


def fresh(words: int, heads: int = 2) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    special = {f"{role}_token_id": SPECIAL.index(piece) for role, piece in (("pad", PAD), ("bos", START), ("eos", END))}
    special["decoder_start_token_id"] = special["bos_token_id"]
    both = {"layers": 2, "attention_heads": heads, "ffn_dim": 64}
    size = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in both.items()}
    dropout = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    config = BartConfig(
        vocab_size=words,
        d_model=64,
        max_position_embeddings=LENGTH,
        forced_eos_token_id=None,
        **size,
        **dropout,
        **special,
    )
    model = BartForConditionalGeneration(config)
    model.generation_config.max_new_tokens = LENGTH - 2
    model.generation_config.do_sample = False
    model.generation_config.num_beams = 1
    return model


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=SPECIAL.index(PAD))


def batch(pairs: Sequence[Pair], ids: dict[str, int]) -> dict[str, Tensor]:
    """Inputs of the model, and the words that it shall put out as `target`."""
    end, start = ids[END], ids[START]
    source = padded([[*(ids[piece] for piece in pair.source), end] for pair in pairs])
    target = padded([[*(ids[piece] for piece in pair.target), end] for pair in pairs])
    return {
        "input_ids": source,
        "attention_mask": (source != ids[PAD]).long(),
        "decoder_input_ids": torch.cat([torch.full((len(pairs), 1), start), target[:, :-1]], 1),
        "target": target,
    }


def fit(steps: int | None, seed: int, progress: Callable[[int, int, float], None]) -> tuple[Any, Any]:
    pieces = tokenizer()
    ids = pieces.get_vocab()
    model = fresh(len(pieces))
    endless = sentences(seed)

    def loss_of(*_: int) -> Tensor:
        inputs = batch(list(islice(endless, BATCH)), ids)
        target = inputs.pop("target")
        logits = model(**inputs, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=ids[PAD])

    descend(model, loss_of, steps=steps or STEPS, rate=RATE, progress=progress)
    return model, pieces


def error_rate(found: Sequence[frozenset[Link]], pairs: Sequence[Pair]) -> float:
    """1 − (|A∩S| + |A∩P|) / (|A| + |S|) over all sentences together (Och and Ney 2003)."""
    sure = sum(len(links & pair.sure) for links, pair in zip(found, pairs, strict=True))
    possible = sum(len(links & pair.links) for links, pair in zip(found, pairs, strict=True))
    return 1 - (sure + possible) / (sum(map(len, found)) + sum(len(pair.sure) for pair in pairs))


def strongest(attention: Tensor, pairs: Sequence[Pair], *, shift: int) -> list[frozenset[Link]]:
    """The source word that each target word's row weighs most; `attention[example, query, key]`."""
    return [
        frozenset(
            Link(at, place)
            for place, at in enumerate(
                rows[shift : shift + len(pair.target), : len(pair.source)].argmax(-1).tolist(),
            )
        )
        for rows, pair in zip(attention, pairs, strict=True)
    ]


@torch.no_grad()
def measure(model: Any, pieces: Any, *, count: int = 400) -> dict[str, Any]:
    """`model` must run with eager attention."""
    pairs = list(islice(sentences(FRESH), count))
    inputs = batch(pairs, pieces.get_vocab())
    target = inputs.pop("target")
    cross = model(**inputs, output_attentions=True).cross_attentions
    rates = {
        row: [
            [round(error_rate(strongest(head, pairs, shift=shift), pairs), 4) for head in layer.unbind(1)]
            for layer in cross
        ]
        for row, shift in (("output", 0), ("reading", 1))
    }
    aer, layer, head = min(
        (rate, layer, head) for layer, row in enumerate(rates["output"]) for head, rate in enumerate(row)
    )
    del inputs["decoder_input_ids"]
    written = pieces.batch_decode(model.generate(**inputs), skip_special_tokens=True)
    wanted = pieces.batch_decode(target, skip_special_tokens=True)
    return {
        "accuracy": sum(map(str.__eq__, written, wanted)) / count,
        "alignment_head": [layer, head],
        "row": "output",
        "aer": aer,
        "aer_by_head": rates,
        "alignments": {text: alignment(pair) for text, pair in grammar.EXAMPLES.items()},
        "measured_on": {"sentences": count},
    }


def alignment(pair: Pair) -> dict[str, Any]:
    return {
        "source": list(pair.source),
        "target": list(pair.target),
        "links": [list(link) for link in sorted(pair.links)],
        "sure": [list(link) for link in sorted(pair.sure)],
    }


def card(model: Any, pieces: Any, truth: dict[str, Any], *, steps: int, seed: int) -> str:
    layer, head = truth["alignment_head"]
    return CARD.format(
        words=len(pieces) - len(SPECIAL),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        length=LENGTH,
        steps=steps,
        seed=seed,
        count=truth["measured_on"]["sentences"],
        accuracy=truth["accuracy"],
        layer=layer,
        head=head,
        aer=truth["aer"],
        reading=truth["aer_by_head"]["reading"][layer][head],
    )
