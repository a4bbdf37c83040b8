"""How much of attention is parked on special tokens, and how much of what is moved? Prints shares by layer.

    python apps/weights_and_norms.py MODEL "a text" ["another text" …]

By weight: the share of each row that lies on special tokens, mean over rows, heads and texts. By norm: the share of the
length of what they add, ‖Σ_h α f_h(x)‖ (Kobayashi et al. 2020), in each row, mean over rows and texts. MODEL is an
embedded name, a local folder or a hub id. Uses the front door only.
"""

import sys

import torch

import hf_attnviz as av


def shares(loaded: av.Loaded, text: str) -> tuple[tuple[str, ...], torch.Tensor]:
    """The layers, and ``[mean_weight or summed, layer]``."""
    trace = av.trace_text(loaded, text, generate=False, keep=["maps", "contributions"])
    stack = next(iter(trace.stacks))
    norms = av.norms(trace, stack=stack)
    special = torch.tensor(trace.stacks[stack].keys.special)
    kinds = torch.stack([norms.select(statistic=name).values for name in ("mean_weight", "summed")])
    return norms.axis("layer").labels, kinds[..., special].sum(-1).nanmean(-1)


def main(model: str, texts: list[str]) -> None:
    loaded = av.load_model(model)
    found = [shares(loaded, text) for text in texts]
    means = torch.stack([values for _, values in found]).mean(0)
    print(f"Share of special tokens, texts: {len(texts)}\n\n| layer | by weight | by norm |\n|---|---|---|")
    for layer, weight, norm in zip(found[0][0], *means.tolist(), strict=True):
        print(f"| {layer} | {weight:.3f} | {norm:.3f} |")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
