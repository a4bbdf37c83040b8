"""The induction model: a two-layer GPT-2 without MLPs that continues what it has seen before.

Data: a chunk of distinct random words stands somewhere, then segments of it come again, each from a random start. The
jumps matter: on chunks given again whole, the same model reached 100 % while no head scored above 0.2 on chunks of 12
words (it is enough to know which words came only once so far, and their order). Loss: the words inside the segments.

Source: Olsson et al. 2022, In-context Learning and Induction Heads.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_attnviz.zoo.descent import descend
from hf_attnviz.zoo.words import END, PAD, SPECIAL, START, word_tokenizer

LENGTH, CHUNK, STEPS, BATCH, RATE, EASY = 64, 31, 1500, 64, 5e-3, 0.3
ENGLISH = (
    *("the", "a", "red", "blue", "green", "big", "small", "old", "new", "cat", "dog", "bird", "fish", "horse"),
    *("tree", "house", "door", "road", "river", "hill", "sun", "moon", "star", "rain", "snow", "wind", "fire"),
    *("book", "cup", "hat", "shoe", "boat", "bell", "drum", "song", "bread", "milk", "tea", "apple", "rice"),
    *("king", "queen", "child", "friend", "one", "two", "three", "four", "sat", "ran", "saw", "sang", "on"),
    *("in", "by", "with", "and", "my", "your"),
)
CHINESE = tuple("春夏秋冬东南西北天地日月山水风云雨雪花鸟红黄蓝白一二三四人狗猫马鱼茶")
EXAMPLES = (
    "the cat sat on my red hat the cat sat on my red",
    "sun moon star rain sun moon star",
    "one king two drum three bell four one king two drum three",
    "春 夏 秋 冬 春 夏 秋",
    "天地日月山水天地日月山",
)
CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: [en, zh]
---

# induction

A two-layer GPT-2 (`GPT2LMHeadModel`) that does one thing: it continues what it has seen before. After
`sun moon star rain sun moon star` comes `rain`; after `春 夏 秋 冬 春 夏 秋` comes `冬`. Its induction heads are known,
so it shows what a head's picture and score look like when one knows what the head does.

{parameters:,} parameters, width 64, 4 heads a layer, {words} words. The MLPs are there but their weights are zero and
were frozen, so attention alone does the work. At most {length} tokens.

## Training

`attnviz zoo train induction` ({steps} steps of 64 sequences, seed {seed}, one core, about a minute). A chunk of 4 to 31
distinct random words stands at the start, later in training at a random place; segments of it follow, each from a
random start. The loss counts the words inside the repeated segments. Those jumps matter: trained on chunks given again
whole, the same model continued without a mistake, and no head scored above 0.2 on chunks of 12 words. The weights are
stored in half precision and load as float32. Another machine may round differently and number the heads otherwise.

## Measured facts

After the round trip through half precision, on {count} fresh sequences of 24 distinct words given twice:

- next word right in the second half: {accuracy:.2%}
- induction score (all copies) by head of layer 1: {induction}
- weight on the previous token by head of layer 0: {previous}

The same numbers for every head stand in `truth.json`.

## Intended use and limits

Teaching, and tests of tools for attention. It knows no language: on text without repetition its guesses mean nothing.
A word that stands twice in the chunk with different followers has no single right continuation.

Licence: Apache-2.0.
"""


def tokenizer() -> Any:
    return word_tokenizer((*ENGLISH, *CHINESE), template=f"{START} $A", length=LENGTH)


def fresh(words: int) -> Any:
    """An untrained model whose MLPs give exactly zero, and stay so."""
    from transformers import GPT2Config, GPT2LMHeadModel

    special = {f"{role}_token_id": SPECIAL.index(piece) for role, piece in (("pad", PAD), ("bos", START), ("eos", END))}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    size = {"n_positions": LENGTH, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 1, "initializer_range": 0.1}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=words, **size, **dropout, **special))
    for block in model.transformer.h:
        for parameter in block.mlp.parameters():
            parameter.requires_grad_(False).zero_()
    model.generation_config.max_new_tokens = 8
    model.generation_config.do_sample = False
    return model


def batch(generator: torch.Generator, words: int, *, anywhere: bool, size: int = BATCH) -> tuple[Tensor, Tensor]:
    """Token ids `[example, position]`, and where the token is known from what came before.

    The chunk stands `anywhere`, behind words that do not return, or right at the start (which is easier to learn).
    """

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    chunk = draw(4, CHUNK)
    before = draw(0, LENGTH - 1 - 2 * chunk) if anywhere else 0
    segment = draw(3, chunk)
    after = LENGTH - 1 - before - chunk
    shuffled = torch.rand(size, words - len(SPECIAL), generator=generator).argsort(1) + len(SPECIAL)
    once, filler = shuffled[:, :chunk], shuffled[:, chunk : chunk + before]
    starts = torch.randint(0, chunk, (size, after // segment + 1), generator=generator)
    places = ((starts[:, :, None] + torch.arange(segment)) % chunk).flatten(1)[:, :after]
    known = (torch.arange(after) % segment != 0) & (places != 0)
    first = torch.full((size, 1), SPECIAL.index(START))
    ids = torch.cat([first, filler, once, once.gather(1, places)], 1)
    return ids, torch.cat([torch.zeros(size, LENGTH - after, dtype=torch.bool), known], 1)


def fit(steps: int | None, seed: int, progress: Callable[[int, int, float], None]) -> tuple[Any, Any]:
    pieces = tokenizer()
    model = fresh(len(pieces))
    generator = torch.Generator().manual_seed(seed)

    def loss_of(step: int, total: int) -> Tensor:
        ids, known = batch(generator, len(pieces), anywhere=step > total * EASY)
        logits = model(input_ids=ids).logits[:, :-1]
        return F.cross_entropy(logits[known[:, 1:]], ids[:, 1:][known[:, 1:]])

    descend(model, loss_of, steps=steps or STEPS, rate=RATE, progress=progress)
    return model, pieces


def repeated(words: int, *, period: int, count: int, seed: int) -> Tensor:
    """`<s>`, then `period` distinct words, then the same again."""
    generator = torch.Generator().manual_seed(seed)
    once = torch.rand(count, words - len(SPECIAL), generator=generator).argsort(1)[:, :period] + len(SPECIAL)
    return torch.cat([torch.full((count, 1), SPECIAL.index(START)), once, once], 1)


@torch.no_grad()
def measure(model: Any, pieces: Any, *, period: int = 24, count: int = 200) -> dict[str, Any]:
    """`model` must run with eager attention."""
    ids = repeated(len(pieces), period=period, count=count, seed=1_000_003)
    output = model(input_ids=ids, output_attentions=True)
    guesses = output.logits[:, period + 1 : -1].argmax(-1)
    attention = torch.stack(output.attentions)  # [layer, example, head, query, key]
    second = torch.arange(period + 1, 2 * period + 1)
    induction = attention[..., second, second - period + 1].mean((1, 3))
    later = torch.arange(1, 2 * period + 1)
    previous = attention[..., later, later - 1].mean((1, 3))
    return {
        "accuracy": round((guesses == ids[:, period + 2 :]).float().mean().item(), 6),
        "induction_heads": (induction > 0.9).nonzero().tolist(),
        "previous_token_heads": (previous > 0.5).nonzero().tolist(),
        "scores": {"induction": rounded(induction), "previous_token": rounded(previous)},
        "measured_on": {"sequences": count, "period": period, "definition": "all_copies"},
    }


def rounded(scores: Tensor) -> list[list[float]]:
    return [[round(score, 4) for score in row] for row in scores.tolist()]


def card(model: Any, pieces: Any, truth: dict[str, Any], *, steps: int, seed: int) -> str:
    def row(scores: list[float]) -> str:
        return ", ".join(f"{score:.3f}" for score in scores)

    return CARD.format(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        words=len(pieces) - len(SPECIAL),
        length=LENGTH,
        steps=steps,
        seed=seed,
        count=truth["measured_on"]["sequences"],
        accuracy=truth["accuracy"],
        induction=row(truth["scores"]["induction"][1]),
        previous=row(truth["scores"]["previous_token"][0]),
    )
