"""The word finder: a two-layer model that names the one fruit of a text, however long the text is.

Data: random words, of which one is a fruit, or none. Every row is to name the fruit if it has read it, else "nothing".
The model has no positions at all (a SmolLM3 whose layers do without rotary ones), so nothing in it wears out behind the
length it was trained on but the sharpness of its heads: among T words a head must hold the fruit's score ln T above the
others'. So texts grow while it learns, up to 4,096 words, and it is measured on 16,383.

Source: Kazemnejad et al. 2023, The Impact of Positional Encoding on Length Generalization (models without positions).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_attnviz.zoo.descent import descend
from hf_attnviz.zoo.induction import CHINESE, ENGLISH, rounded
from hf_attnviz.zoo.words import END, PAD, SPECIAL, START, UNKNOWN, word_tokenizer

LENGTH, STEPS, RATE, TOKENS = 32_768, 700, 4e-3, 8_192
SHORTEST, LONGEST, PRESENT = 16, 4_096, 0.85
HEADS, KEY_HEADS = 4, 2
FRUITS = ("apple", "pear", "plum", "cherry", "lemon", "grape", "peach", "mango", "melon", "berry", "fig", "lime")
FRUITS_IN_CHINESE = ("苹果", "梨", "李子", "樱桃", "柠檬", "葡萄", "桃子", "芒果", "甜瓜", "草莓", "无花果", "青柠")
NAMES = (*FRUITS, *FRUITS_IN_CHINESE)
OTHERS = tuple(word for word in (*ENGLISH, *CHINESE) if word not in NAMES)
NOTHING = "nothing"
WORDS = (*NAMES, *OTHERS, NOTHING)
FIRST = len(SPECIAL)
ATTENTION = "sdpa"  # it is measured on texts whose maps would not fit
EXAMPLES = (
    "the cat sat on my red hat by the old tree and saw a plum in the rain",
    "one king and one queen saw a melon by the river and sang",
    "天地日月山水风云柠檬花鸟红黄",
    "the old king and the new queen ran by the river",
)
CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: [en, zh]
---

# wordfinder

A two-layer SmolLM3 (`SmolLM3ForCausalLM`) that does one thing: it names the one fruit of a text, however long the text
is. After each word it says which fruit it has read so far, or `nothing`. It has no positions, so it reads texts of any
length; it is here for pictures of long inputs, in which one then knows what must be seen: behind the fruit, heads of
layer 0 look at the fruit.

{parameters:,} parameters, width 64, 4 heads a layer (2 of keys and values), {words} words, 24 of them fruits. It
accepts at most {length:,} tokens; beyond what was measured below its heads will in the end be too blunt.

## Training

`attnviz zoo train wordfinder` ({steps} steps of 8,192 tokens, seed {seed}, one core, some minutes): random words with
one fruit or none at a random place, some words unknown, texts of 16 words at first and of 4,096 in the end. The loss
counts every row. The weights are stored in half precision and load as float32. Another machine may round differently
and number the heads otherwise.

## Measured facts

After the round trip through half precision, on {count} fresh texts of {measured:,} tokens with one fruit each, over all
rows behind the fruit and all rows before it:

- names the fruit behind it: {behind:.2%}; says `nothing` before it: {before:.2%}
- weight on the fruit behind it, by head of layer 0: {weight_0}
- the same by head of layer 1: {weight_1}

The same numbers for every head stand in `truth.json`.

## Intended use and limits

Teaching, and tests of tools for long inputs. It knows no language: every word that is not on its list is `<unk>` to it.
A text with several fruits has no single right answer.

Licence: Apache-2.0.
"""


def tokenizer() -> Any:
    return word_tokenizer(WORDS, template=f"{START} $A", length=LENGTH)


def fresh(words: int) -> Any:
    """An untrained model without positions."""
    from transformers import SmolLM3Config, SmolLM3ForCausalLM

    special = {f"{role}_token_id": SPECIAL.index(piece) for role, piece in (("pad", PAD), ("bos", START), ("eos", END))}
    size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": HEADS}
    config = SmolLM3Config(
        vocab_size=words,
        **size,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=LENGTH,
        no_rope_layers=[0, 0],
        tie_word_embeddings=True,
        initializer_range=0.1,
        **special,
    )
    model = SmolLM3ForCausalLM(config)
    model.generation_config.max_new_tokens = 1
    model.generation_config.do_sample = False
    return model


def batch(generator: torch.Generator, size: int, words: int, *, lost: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids `[example, position]`, what each row is to say, and where the fruit stands (0: nowhere).

    Where words get `lost`, some texts have no fruit, and in some a share of the words is unknown.
    """
    ids = torch.randint(FIRST + len(NAMES), FIRST + len(NAMES) + len(OTHERS), (size, words), generator=generator)
    fruit = torch.randint(FIRST, FIRST + len(NAMES), (size, 1), generator=generator)
    place = torch.randint(0, words, (size, 1), generator=generator)
    known = torch.rand(size, 1, generator=generator) < (PRESENT if lost else 1.0)
    if lost:
        rate = (2 * torch.rand(size, 1, generator=generator) - 1).clamp(min=0)
        ids = ids.masked_fill(torch.rand(ids.shape, generator=generator) < rate, SPECIAL.index(UNKNOWN))
    ids = torch.where(known, ids.scatter(1, place, fruit), ids)
    ids = torch.cat([torch.full((size, 1), SPECIAL.index(START)), ids], 1)
    place = torch.where(known, place + 1, 0)
    seen = known & (torch.arange(words + 1) >= place)
    return ids, torch.where(seen, fruit, FIRST + WORDS.index(NOTHING)), place[:, 0]


def fit(steps: int | None, seed: int, progress: Callable[[int, int, float], None]) -> tuple[Any, Any]:
    pieces = tokenizer()
    model = fresh(len(pieces))
    generator = torch.Generator().manual_seed(seed)

    def loss_of(step: int, total: int) -> Tensor:
        share = min(1.0, 1.25 * step / total)  # the last fifth is read at full length
        words = round(SHORTEST * (LONGEST / SHORTEST) ** share)
        ids, answer, _ = batch(generator, max(1, TOKENS // words), words)
        return F.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), answer.flatten())

    descend(model, loss_of, steps=steps or STEPS, rate=RATE, progress=progress)
    return model, pieces


@torch.no_grad()
def measure(model: Any, pieces: Any, *, words: int = 16_383, count: int = 2) -> dict[str, Any]:
    """What the rows behind the fruit say, and those before it; and how much of 64 of those behind lies on the fruit."""
    generator = torch.Generator().manual_seed(1_000_003)
    nothing = FIRST + WORDS.index(NOTHING)
    behind, before, weights = [], [], []
    for _ in range(count):
        ids, answer, place = batch(generator, 1, words, lost=False)
        with _projected(model) as seen:
            right = (model(input_ids=ids, use_cache=False).logits.argmax(-1) == answer).float()
        behind.append(right[answer != nothing])
        before.append(right[answer == nothing])
        rows = torch.linspace(int(place[0]), words, 64).long()
        weights.append(torch.stack([_weights(q, k, rows)[..., place[0]].mean(-1) for q, k in zip(*seen, strict=True)]))
    found = torch.stack(weights).mean(0)
    return {
        "accuracy": round(torch.cat(behind).mean().item(), 6),
        "nothing_before": round(torch.cat(before).mean().item(), 6),
        "finding_heads": (found > 0.5).nonzero().tolist(),
        "scores": {"on_the_fruit": rounded(found)},
        "measured_on": {"sequences": count, "tokens": words + 1},
    }


@contextmanager
def _projected(model: Any) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """The queries and the keys of each layer, `[position, size]`, as its projections give them; no map is built."""
    seen: tuple[list[Tensor], list[Tensor]] = [], []
    with ExitStack() as hooks:
        for layer in model.model.layers:
            for part, into in zip((layer.self_attn.q_proj, layer.self_attn.k_proj), seen, strict=True):
                hook = part.register_forward_hook(lambda _, __, given, into=into: into.append(given[0]))
                hooks.callback(hook.remove)
        yield seen


def _weights(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """The attention of some rows, `[head, row, key]`; each head of keys serves two of queries."""
    query = queries[rows].view(len(rows), HEADS, -1).transpose(0, 1)
    key = keys.view(len(keys), KEY_HEADS, -1).transpose(0, 1).repeat_interleave(HEADS // KEY_HEADS, 0)
    scores: Tensor = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5
    return scores.masked_fill(torch.arange(len(keys)) > rows[:, None], -torch.inf).softmax(-1)


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
        measured=truth["measured_on"]["tokens"],
        behind=truth["accuracy"],
        before=truth["nothing_before"],
        weight_0=row(truth["scores"]["on_the_fruit"][0]),
        weight_1=row(truth["scores"]["on_the_fruit"][1]),
    )
