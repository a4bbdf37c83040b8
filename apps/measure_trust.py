"""How often is the verdict of ``av.trust`` right? Measured on models whose truth is known. Prints Markdown.

    python apps/measure_trust.py [--inputs 50] [--seeds 3] [--exhibits carried elsewhere …]

Every exhibit is trained from several seeds; each of its fresh inputs is put to ``av.trust`` with all methods and with a
shuffled ranking, which knows nothing. Uses the front door only. Ten minutes or so on one core.
"""

import argparse
import sys
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

import hf_attnviz as av

VERDICTS = ("trust", "undecided", "do not")
SHUFFLED = "shuffled"
FIGURES = {
    "accuracy": "right",
    "follows_source": "follows the source",
    "without_evidence": "p without evidence",
    "evidence_alone": "p, evidence alone",
    "on_source": "weight on source, most",
    "on_source_least": "last layer, least",
    "one_head": "one head, nats",
    "all_heads": "all heads, nats",
}


@dataclass(frozen=True)
class Judged:
    """One ranking of one input: its verdict, and by how many words the evidence is beaten (none: it stands first)."""

    exhibit: str
    method: str
    verdict: str
    behind: int
    tokens: int
    right: bool | None


def judged(exhibit: av.zoo.Exhibit, case: av.zoo.Case, seed: int) -> tuple[list[Judged], dict[str, float]]:
    """The verdict on each ranking of one input, and what the model loses without the heads shown.

    `seed` is of the shuffled ranking and of the random ones; it differs from input to input.
    """
    nothing = torch.rand(case.inputs["input_ids"].shape[1], generator=torch.Generator().manual_seed(seed))
    found = av.trust(exhibit, case.inputs, target=case.target, rankings={SHUFFLED: nothing}, seed=seed)
    rows = []
    for name, scores in zip(found.verdicts, found.scores.values, strict=True):
        others = [n for n in found.candidates if n not in case.evidence]
        behind = int((scores[others] >= scores[list(case.evidence)].min()).sum())
        right = found.verdicts[name] in exhibit.verdicts if name == "attention" else None
        rows.append(Judged(exhibit.name, name, found.verdicts[name], behind, len(found.candidates), right))
    return rows, {} if found.heads is None else dict(
        zip(found.heads.axes[0].labels, found.heads.values.tolist(), strict=True)
    )


def stripe(exhibit: av.zoo.Exhibit, cases: Iterable[av.zoo.Case]) -> float:
    """The induction score (stripe) of the answering row, the head of the model that scores most."""
    scores = []
    for case in cases:
        with av.capture(exhibit) as recording, torch.no_grad():
            exhibit.model(**case.inputs)
        maps = torch.stack([one.plain().weights for one in next(iter(recording.trace.stacks.values())).maps])
        score = av.functional.induction_score(maps[:, None], case.inputs["input_ids"], definition="stripe")
        scores.append(score[:, 0, :, case.row])
    return float(torch.stack(scores).mean(0).max())


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def of(part: int, whole: int) -> str:
    return f"{part}/{whole} ({part / whole:.1%})" if whole else "none"


def verdict_rows(found: Sequence[Judged]) -> list[list[object]]:
    rows = []
    for exhibit in dict.fromkeys(one.exhibit for one in found):
        for method in dict.fromkeys(one.method for one in found):
            here = [one for one in found if (one.exhibit, one.method) == (exhibit, method)]
            first = [one for one in here if one.behind == 0]
            far = [one for one in here if one.behind > one.tokens / 10]
            known = [one for one in here if one.right is not None]
            rows.append(
                [
                    exhibit,
                    method,
                    *(sum(one.verdict == verdict for one in here) for verdict in VERDICTS),
                    median(one.behind for one in here),
                    of(sum(one.verdict == "trust" for one in first), len(first)),
                    of(sum(one.verdict == "trust" for one in far), len(far)),
                    of(sum(bool(one.right) for one in known), len(known)) if known else "",
                ]
            )
    return rows


def main(names: Sequence[str], seeds: int, inputs: int) -> None:
    figures, found, heads = [], [], []
    for name in names:
        for seed in range(seeds):
            began = time.monotonic()
            exhibit = av.zoo.exhibit(name, seed=seed)
            seconds = time.monotonic() - began
            cases = exhibit.fresh(inputs, seed=seed)
            score = f"{stripe(exhibit, cases):.4f}" if name == "elsewhere" else ""
            numbers = [f"{exhibit.figures[key]:.4f}" for key in FIGURES]
            figures.append([name, seed, *numbers, score, exhibit.steps, f"{seconds:.0f}"])
            lost = []
            for n, case in enumerate(cases):
                rows, without = judged(exhibit, case, zlib.crc32(f"{name} {seed} {n}".encode()))
                found += rows
                lost.append(without)
            columns = ("top_head", "layer", "random_mean")
            mean = [torch.tensor([one.get(key, torch.nan) for one in lost]).nanmean() for key in columns]
            heads.append([name, seed, *(f"{value:.4f}" for value in mean)])
            passed = time.monotonic() - began - seconds
            print(f"{name} {seed}: trained in {seconds:.0f} s, {inputs} verdicts in {passed:.0f} s", file=sys.stderr)
    print(f"## The exhibits\n\n{table(['exhibit', 'seed', *FIGURES.values(), 'stripe', 'steps', 's'], figures)}\n")
    heading = [
        "exhibit",
        "ranking",
        *VERDICTS,
        "words before the evidence, median",
        "trust where the evidence is first",
    ]
    heading += ["trust where a tenth of the words or more stand before it", "right verdict on raw attention"]
    print(f"## Verdicts on {inputs} fresh inputs × {seeds} seeds\n\n{table(heading, verdict_rows(found))}\n")
    moved = ["exhibit", "seed", "without the head shown", "without its layer", "without another head"]
    print(f"## Probability of the answer without heads, change, mean\n\n{table(moved, heads)}\n")
    chance = [one for one in found if one.method == SHUFFLED]
    print(f"Shuffled rankings that earn trust: {of(sum(one.verdict == 'trust' for one in chance), len(chance))}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--exhibits", nargs="+", default=av.zoo.exhibit_names(), choices=av.zoo.exhibit_names())
    given = parser.parse_args()
    main(given.exhibits, given.seeds, given.inputs)
