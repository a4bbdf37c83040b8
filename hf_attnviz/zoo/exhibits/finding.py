"""The task "name the fruit": among other words stands one fruit, and the answer is its name. Three ways to solve it.

Where there is no fruit, or it got lost, the answer is "nothing". The answer depends on the fruit's word alone: words
are drawn independently, at random places, in texts of any length, some of them lost; so a text from which words were
taken is a text like any other, and what removal does is the model's answer and not its surprise.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from hf_attnviz.language import Text
from hf_attnviz.zoo.exhibits.exhibit import DO_NOT, TRUST, UNDECIDED, Batch, Recipe
from hf_attnviz.zoo.exhibits.gates import gated
from hf_attnviz.zoo.induction import ENGLISH
from hf_attnviz.zoo.words import END, PAD, SPECIAL, START, UNKNOWN, word_tokenizer

FRUITS = ("apple", "pear", "plum", "cherry", "lemon", "grape", "peach", "mango", "melon", "berry", "fig", "lime")
OTHERS = tuple(word for word in ENGLISH if word not in FRUITS)
NOTHING = "nothing"
WORDS = (*FRUITS, *OTHERS, NOTHING)
PRESENT = 0.85
"""The share of training texts with a fruit."""

LENGTH = 60
MARKS = {f"{role}_token_id": SPECIAL.index(piece) for role, piece in (("pad", PAD), ("bos", START), ("eos", END))}
FIRST = len(SPECIAL)


def draw(generator: torch.Generator, size: int, words: int, lost: bool, *, speaks: bool) -> Batch:
    """Texts of so many words; the model `speaks` the answer after the end, or gives a class at the start."""
    ids = torch.randint(FIRST + len(FRUITS), FIRST + len(FRUITS) + len(OTHERS), (size, words), generator=generator)
    fruit = torch.randint(0, len(FRUITS), (size, 1), generator=generator)
    place = torch.randint(0, words, (size, 1), generator=generator)
    known = torch.rand(size, 1, generator=generator) < (PRESENT if lost else 1.0)
    ids = torch.where(known, ids.scatter(1, place, fruit + FIRST), ids)
    if lost:
        ids, gone = losing(ids, generator)
        known = known & ~gone.gather(1, place)
    marks = [torch.full((size, 1), SPECIAL.index(mark)) for mark in (START, END)]
    nothing, first = (FIRST + WORDS.index(NOTHING), FIRST) if speaks else (0, 1)
    return Batch(
        ids=torch.cat([marks[0], ids, *marks[1 : 1 + speaks]], 1),
        rows=torch.tensor([words + 1 if speaks else 0]),
        answer=torch.where(known, fruit + first, nothing),
        evidence=place[..., None] + 1,
        known=known,
    )


def losing(ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Words become `<unk>`: none in half of the texts, else a share of its own in each; and which ones did."""
    rate = (2 * torch.rand(len(ids), 1, generator=generator) - 1).clamp(min=0)
    gone = torch.rand(ids.shape, generator=generator) < rate
    return ids.masked_fill(gone, SPECIAL.index(UNKNOWN)), gone


def tokenizer(*, speaks: bool) -> Any:
    pieces = word_tokenizer(WORDS, template=f"{START} $A {END}" if speaks else f"{START} $A", length=LENGTH + 4)
    if not speaks:
        pieces.cls_token = START
    return pieces


def one_head(attention: str | None) -> Any:
    """A BERT of one layer and one head: what the class is read from sees the words through that head alone."""
    from transformers import BertConfig, BertForSequenceClassification

    names = (NOTHING, *FRUITS)
    config = BertConfig(
        vocab_size=FIRST + len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        max_position_embeddings=LENGTH + 4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        id2label=dict(enumerate(names)),
        label2id={name: n for n, name in enumerate(names)},
        **MARKS,
    )
    return BertForSequenceClassification._from_config(config, attn_implementation=attention)


def four_heads(attention: str | None) -> Any:
    """A GPT-2 of one layer and four heads."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=FIRST + len(WORDS),
        n_positions=LENGTH + 4,
        n_embd=64,
        n_layer=1,
        n_head=4,
        n_inner=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.1,
        **MARKS,
    )
    return GPT2LMHeadModel._from_config(config, attn_implementation=attention)


def by_place(attention: str | None) -> Any:
    """A BLOOM of one layer and one head whose queries are zero: attention is ALiBi's, a little more for the nearer."""
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(
        vocab_size=FIRST + len(WORDS),
        hidden_size=64,
        n_layer=1,
        n_head=1,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        initializer_range=0.1,
        **MARKS,
    )
    model = BloomForCausalLM._from_config(config, attn_implementation=attention)
    for block in model.transformer.h:
        for part in block.self_attention.query_key_value.parameters():
            with torch.no_grad():
                _without_queries(config.n_head, part)
            part.register_hook(partial(_without_queries, config.n_head))
    return model


def _without_queries(heads: int, fused: Tensor) -> Tensor:
    """Zero where BLOOM keeps the queries, in weights or in their gradients."""
    fused.view(heads, 3, -1)[:, 0] = 0.0
    return fused


def plainly(model: Any, batch: Batch, generator: torch.Generator, settled: bool) -> tuple[Any, Tensor]:
    return model(input_ids=batch.ids), torch.zeros(())


def dropping_heads(model: Any, batch: Batch, generator: torch.Generator, settled: bool) -> tuple[Any, Tensor]:
    """Any heads but one may be silent in an example, so each learns to do the work alone."""
    size, heads = len(batch.ids), model.config.n_head
    kept = torch.rand(size, heads, generator=generator) < torch.rand(size, 1, generator=generator)
    always = torch.randint(0, heads, (size, 1), generator=generator)
    with gated(model, kept.float().scatter(1, always, 1.0)[None]):
        return model(input_ids=batch.ids), torch.zeros(())


SOLVED = {
    "accuracy": (0.99, 1.0),
    "follows_source": (0.99, 1.0),
    "without_evidence": (0.0, 0.05),
    "evidence_alone": (0.95, 1.0),
    "all_heads": (1.0, torch.inf),
}
SEEN = SOLVED | {"on_source_least": (0.9, 1.0), "source_first": (0.99, 1.0)}
SPOKEN: dict[str, Any] = {
    "pieces": partial(tokenizer, speaks=True),
    "draw": partial(draw, speaks=True),
    "words": LENGTH,
    "first": 6,
    "steps": 1500,
}
RECIPES = {
    "carried": Recipe(
        title=Text(
            "One head finds the fruit among other words and carries its name to the answer: attention shows it.",
            "唯一的头在其他词中找到水果，并把它的名字带到答案处：注意力如实显示证据。",
        ),
        pieces=partial(tokenizer, speaks=False),
        build=one_head,
        draw=partial(draw, speaks=False),
        run=plainly,
        holds=SEEN | {"one_head": (1.0, torch.inf)},
        verdicts=(TRUST,),
        words=LENGTH,
        first=6,
        steps=600,
    ),
    "redundant": Recipe(
        title=Text(
            "Four heads all find the fruit: attention shows the evidence, yet no single head is missed.",
            "四个头都能找到水果：注意力如实显示证据，但缺少任何一个头都无妨。",
        ),
        build=four_heads,
        run=dropping_heads,
        holds=SEEN | {"one_head": (-torch.inf, 0.01)},
        verdicts=(TRUST,),
        **SPOKEN,
    ),
    "recency": Recipe(
        title=Text(
            "Attention leans to the latest words whatever they are; what the words carry finds the fruit all the same.",
            "注意力偏向最近的词，不管是什么词；水果却照样凭词所携带的内容被找到。",
        ),
        build=by_place,
        run=plainly,
        holds=SOLVED | {"moved_by_words": (0.0, 1e-6)},
        verdicts=(DO_NOT, UNDECIDED),
        **SPOKEN,
    ),
}
