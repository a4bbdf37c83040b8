"""The task "what came after it?": distinct words, an end, one of the words again; the answer is the word after it.

The model copies, and the usual way to copy is an induction head: the answering row looks at the very word that is
copied (its "stripe" score). Here that cell is shut while the model is trained: the row can see every other word, and
not this one. So it learns to look at the word *behind* the source, which has read the source in the layer before.
Afterwards the cell is open, and looking there is made to cost (the penalty of Pruthi et al. 2020, "Learning to Deceive
with Attention-Based Explanations", equation 2). What remains is a model that copies and never looks at what it copies.

The first layer sees three words only (a sliding window), so that its heads learn at once to look at a neighbour.
"""

from typing import Any

import torch
from torch import Tensor

from hf_attnviz.language import Text
from hf_attnviz.zoo.exhibits.exhibit import DO_NOT, UNDECIDED, Batch, Recipe
from hf_attnviz.zoo.exhibits.finding import FIRST, MARKS, NOTHING, losing
from hf_attnviz.zoo.induction import ENGLISH
from hf_attnviz.zoo.words import END, SPECIAL, START, word_tokenizer

WORDS = (*ENGLISH, NOTHING)
LENGTH, ASKED, WINDOW, PENALTY = 44, 16, 3, 1.0


def draw(generator: torch.Generator, size: int, words: int, lost: bool) -> Batch:
    """So many distinct words, `</s>`, then words among them: one, or where words get `lost` up to 16, each asked alone.

    The last word has none behind it and is not asked.
    """
    words = max(2, words)
    asked = min(words - 1, ASKED) if lost else 1
    story = torch.rand(size, len(ENGLISH), generator=generator).argsort(1)[:, :words] + FIRST
    place = torch.rand(size, words - 1, generator=generator).argsort(1)[:, :asked]
    query, answer = story.gather(1, place), story.gather(1, place + 1)
    known = torch.ones_like(place, dtype=torch.bool)
    if lost:
        story, gone = losing(story, generator)
        known = ~gone.gather(1, place) & ~gone.gather(1, place + 1)
    start, end = (torch.full((size, 1), SPECIAL.index(mark)) for mark in (START, END))
    return Batch(
        ids=torch.cat([start, story, end, query], 1),
        rows=torch.arange(words + 2, words + 2 + asked),
        answer=torch.where(known, answer, FIRST + WORDS.index(NOTHING)),
        evidence=torch.stack([place + 2, place + 1], 2),
        known=known,
    )


def tokenizer() -> Any:
    return word_tokenizer(WORDS, template=f"{START} $A", length=LENGTH + 2 + ASKED)


def two_layers(attention: str | None) -> Any:
    """A Qwen2 of two layers, the first with a sliding window. Its first layer starts with heads that prefer places."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=FIRST + len(WORDS),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH + 2 + ASKED,
        layer_types=["sliding_attention", "full_attention"],
        use_sliding_window=True,
        sliding_window=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        tie_word_embeddings=True,
        initializer_range=0.1,
        **MARKS,
    )
    model = Qwen2ForCausalLM._from_config(config, attn_implementation=attention)
    for part in (model.model.layers[0].self_attn.q_proj, model.model.layers[0].self_attn.k_proj):
        torch.nn.init.normal_(part.bias, 0.0, 3.0)
    return model


def not_looking(model: Any, batch: Batch, generator: torch.Generator, settled: bool) -> tuple[Any, Tensor]:
    """The source is shut to the row that names it; `settled`, it is open in half of the texts, and looking costs."""
    size, length = batch.ids.shape
    shut = torch.rand(size, generator=generator) < (0.5 if settled else 1.0)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    seen = torch.zeros(size, 1, length, length).masked_fill(distance < 0, -torch.inf)
    near = seen.masked_fill(distance >= WINDOW, -torch.inf)
    cell = (torch.arange(size)[:, None], 0, batch.rows.expand_as(batch.source), batch.source)
    seen[cell] = torch.where(shut[:, None], -torch.inf, 0.0)
    masks = {"full_attention": seen, "sliding_attention": near}
    outputs = model(input_ids=batch.ids, attention_mask=masks, output_attentions=True)
    places = batch.source[:, None, :, None].expand(-1, model.config.num_attention_heads, -1, -1)
    weight = outputs.attentions[-1][:, :, batch.rows].gather(-1, places)
    return outputs, -PENALTY * torch.log1p(-weight.clamp(max=0.999)).sum(1).mean()


RECIPES = {
    "elsewhere": Recipe(
        title=Text(
            "It copies a word without ever looking at it: it looks at the next word, which has read it.",
            "它复制一个词，却从不看那个词：它看的是下一个词，而后者已经读过它。",
        ),
        pieces=tokenizer,
        build=two_layers,
        draw=draw,
        run=not_looking,
        holds={
            "accuracy": (0.99, 1.0),
            "follows_source": (0.95, 1.0),  # the word put there may be the one that is asked, which makes two answers
            "without_evidence": (0.0, 0.05),
            "on_source": (0.0, 0.02),
            "source_first": (0.0, 0.01),
            "all_heads": (1.0, torch.inf),
        },
        verdicts=(DO_NOT, UNDECIDED),
        words=LENGTH,
        first=6,
        steps=1500,
    )
}
