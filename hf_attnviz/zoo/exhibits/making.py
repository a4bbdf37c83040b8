"""Train an exhibit from a seed until its truth holds, or refuse to hand it out.

Steps: short texts first, longer ones as soon as most answers are right; at full length the rate falls, and every 50
steps the truth is measured on inputs of its own, and once more on others where it held. On these last figures the
exhibit is handed out.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from hf_attnviz.errors import ArgumentError, ModelError, UnknownNameError, listed
from hf_attnviz.language import Text
from hf_attnviz.progress import shown
from hf_attnviz.zoo.exhibits.exhibit import Exhibit, Recipe
from hf_attnviz.zoo.exhibits.figures import answers, logits, measured, share
from hf_attnviz.zoo.training import repeatable

HOMES = {
    "carried": "hf_attnviz.zoo.exhibits.finding",
    "redundant": "hf_attnviz.zoo.exhibits.finding",
    "recency": "hf_attnviz.zoo.exhibits.finding",
    "elsewhere": "hf_attnviz.zoo.exhibits.recalling",
}
RATE, WARM, FALL, EVERY = 5e-3, 50, 300, 50
BATCH, BATCH_OF_LONG = 64, 32
EASY = 0.6
"""The share of right answers from which on texts become longer."""


def exhibit_names() -> tuple[str, ...]:
    """The exhibits there are."""
    return tuple(HOMES)


def exhibit(name: str, *, seed: int = 0, steps: int | None = None) -> Exhibit:
    """Train the exhibit `name` from a seed: some 2 to 30 seconds on one core. Keep it; nothing is stored.

    Raises:
        UnknownNameError: another name; the message lists them.
        ModelError: within so many steps it did not become what it is to show.
    """
    if name not in HOMES:
        raise UnknownNameError(
            Text(
                f"There is no exhibit {name!r}. The exhibits are: {listed(HOMES)}.",
                f"没有展品 {name!r}。展品有：{listed(HOMES)}。",
            )
        )
    if steps is not None and steps < 1:
        raise ArgumentError(
            Text(
                f"Expected at least one training step, got steps={steps}. Leave it out.",
                f"训练步数应至少为 1，得到 steps={steps}。可以不给它。",
            )
        )
    recipe: Recipe = importlib.import_module(HOMES[name]).RECIPES[name]
    with repeatable(seed):
        trained, taken, figures = _fit(name, recipe, seed, recipe.steps if steps is None else steps)
        model = recipe.build(None).eval()
        model.load_state_dict(trained.state_dict())
    model.config.name_or_path = name
    return Exhibit(name, seed, model, recipe.pieces(), figures, taken, recipe)


def _fit(name: str, recipe: Recipe, seed: int, steps: int) -> tuple[Any, int, dict[str, float]]:
    """The model that runs with eager attention, the steps it took, and its figures."""
    model, generator = recipe.build("eager"), torch.Generator().manual_seed(seed)
    missing = dict.fromkeys(recipe.holds, float("nan"))
    said = Text(f"training {name}, at most", f"训练 {name}，至多")
    for step, settled in shown(_steps(model, recipe, generator, steps), steps, said):
        if settled and step % EVERY == 0:
            model.eval()
            figures = _checked(model, recipe, seed, step)
            missing = _broken(recipe, figures)
            if not missing:
                return model, step, figures
            model.train()
    came = listed(f"{key} {value:.3f} (from {recipe.holds[key]})" for key, value in missing.items())
    raise ModelError(
        Text(
            f"The exhibit {name!r} from seed {seed} did not become what it is to show within {steps} steps: {came}. "
            "Take another seed.",
            f"展品 {name!r} 以种子 {seed} 在 {steps} 步之内没有成为它应展示的样子：{came}。请换一个种子。",
        )
    )


def _steps(model: Any, recipe: Recipe, generator: torch.Generator, steps: int) -> Iterator[tuple[int, bool]]:
    """Train; tell after each step which it was, and whether texts have reached their full length."""
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.98))
    longest, right, full = recipe.first, 0.0, 0
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / WARM) * max(0.1, 1 - full / FALL)
        words = int(torch.randint(1, longest + 1, (1,), generator=generator))
        batch = recipe.draw(generator, BATCH_OF_LONG if full else BATCH, words, True)
        outputs, more = recipe.run(model, batch, generator, full > 0)
        given = logits(outputs, batch)
        loss = F.cross_entropy(given.flatten(0, 1), batch.answer.flatten()) + more
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if bool(batch.known.any()):
            right = 0.9 * right + 0.1 * share((answers(outputs, batch) == batch.answer)[batch.known])
        if right > EASY and longest < recipe.words:
            longest, right = min(recipe.words, int(longest * 1.3) + 1), 0.0
        full += longest == recipe.words
        yield step, full > EVERY


def _checked(model: Any, recipe: Recipe, seed: int, step: int) -> dict[str, float]:
    """The figures on 200 inputs, and where they hold, on 500 others. What answers wrongly is not measured further."""
    figures: dict[str, float] = {}
    for count, stream in ((200, 1), (500, 2)):
        generator = torch.Generator().manual_seed(2**40 + 10_000 * (10_000 * seed + step) + stream)
        batch = recipe.draw(generator, count, recipe.words, False)
        with torch.no_grad():
            figures = {"accuracy": share(answers(model(input_ids=batch.ids), batch) == batch.answer)}
        if not _broken(recipe, figures):
            figures = measured(model, batch)
        if _broken(recipe, figures):
            break
    return figures


def _broken(recipe: Recipe, figures: Mapping[str, float]) -> dict[str, float]:
    """Those figures that are not as they must be."""
    bounds = {key: recipe.holds.get(key, (-torch.inf, torch.inf)) for key in figures}
    return {key: value for key, value in figures.items() if not bounds[key][0] <= value <= bounds[key][1]}
