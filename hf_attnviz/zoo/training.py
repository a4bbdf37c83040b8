"""Train an embedded model again and write its folder, whole or not at all.

The folder is written under a temporary name beside its place and renamed when everything in it is measured; a failure
before that leaves what stood there untouched.
"""

import importlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_attnviz.errors import ArgumentError, UnknownNameError, listed
from hf_attnviz.language import Text

RECIPES = {
    "induction": "hf_attnviz.zoo.induction",
    "translator": "hf_attnviz.zoo.translator",
    "wordfinder": "hf_attnviz.zoo.wordfinder",
}
SEEDS = {"induction": 0, "translator": 9, "wordfinder": 0}
FILES = (
    *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("README.md", "examples.json", "truth.json"),
)

Progress = Callable[[int, int, float], None]


def train(
    name: str,
    output: str | Path,
    *,
    seed: int | None = None,
    steps: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train `name` and write it to the folder `output`; `progress` hears the step, the number of steps and the loss.

    The default seed is that of the embedded model. `output` may exist only if it is empty or holds such a model.
    """
    if name not in RECIPES:
        raise UnknownNameError(
            Text(
                f"There is no recipe for {name!r}. The recipes are: {listed(RECIPES)}.",
                f"没有 {name!r} 的配方。配方有：{listed(RECIPES)}。",
            )
        )
    if steps is not None and steps < 1:
        raise ArgumentError(
            Text(
                f"Expected at least one training step, got steps={steps}. Leave it out for the usual number.",
                f"训练步数应至少为 1，得到 steps={steps}。不给它即用通常的步数。",
            )
        )
    target = Path(output).expanduser().absolute()
    refuse_foreign(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    seed = SEEDS[name] if seed is None else seed
    with replacing(target) as folder, repeatable(seed):
        recipe = importlib.import_module(RECIPES[name])
        model, pieces = recipe.fit(steps, seed, progress or (lambda *_: None))
        save(model, pieces, folder)
        describe(recipe, folder, steps=steps or recipe.STEPS, seed=seed)
    return target


def refuse_foreign(target: Path) -> None:
    if target.is_dir():
        foreign = sorted(entry.name for entry in target.iterdir() if entry.name not in FILES)
        if foreign:
            raise ArgumentError(
                Text(
                    f"{target} holds other files ({listed(foreign[:5])}) and would be replaced. "
                    "Name a new or an empty folder.",
                    f"{target} 中有其他文件（{listed(foreign[:5])}），会被替换。请给出新的或空的文件夹。",
                )
            )
    elif target.exists():
        raise ArgumentError(
            Text(
                f"Expected a folder, {target} is a file. Name a new folder.",
                f"应为文件夹，{target} 是文件。请给出新的文件夹。",
            )
        )


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block succeeds."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        yield new
        existed = target.exists()
        if existed:
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if existed:
                old.rename(target)
            raise


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """One thread and one seed inside; the caller's threads and random state come back."""
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def save(model: Any, pieces: Any, folder: Path) -> None:
    """Weights in half precision under a config that asks for float32."""
    model.eval().half().save_pretrained(folder)
    pieces.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text("utf-8")) | {"dtype": "float32"})


def describe(recipe: Any, folder: Path, *, steps: int, seed: int) -> None:
    """Measure what was saved, as a user will load it."""
    import transformers
    from transformers import AutoTokenizer

    architecture = json.loads((folder / "config.json").read_text("utf-8"))["architectures"][0]
    model_class = getattr(transformers, architecture)
    attention = getattr(recipe, "ATTENTION", "eager")
    model = model_class.from_pretrained(folder, local_files_only=True, attn_implementation=attention).eval()
    pieces = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    truth = recipe.measure(model, pieces)
    write_json(folder / "examples.json", list(recipe.EXAMPLES))
    write_json(folder / "truth.json", truth)
    (folder / "README.md").write_text(recipe.card(model, pieces, truth, steps=steps, seed=seed), "utf-8")


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
