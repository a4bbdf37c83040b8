"""Which heads of a model do something recognisable? Prints the clearest head of each kind, over all texts together.

    python apps/attention_roles.py MODEL "a text" ["another text" …]

MODEL is an embedded name, a local folder or a hub id. Uses the front door only.
"""

import sys

import hf_attnviz as av

KINDS = ("previous_token", "next_token", "self_token", "first_token", "confidence")


def main(model: str, texts: list[str]) -> None:
    loaded = av.load_model(model)
    traces = [av.trace_text(loaded, text, generate=False) for text in texts]
    for stack in traces[0].stacks:
        statistics = av.head_statistics(traces, stack=stack)
        print(f"{stack}: {len(texts)} texts, rows pooled")
        for kind in KINDS:
            scores = statistics.select(statistic=kind)
            if scores.values.isnan().all():
                continue  # undefined here: cross-attention has no previous token, a causal head no next one
            best = scores.values.nan_to_num(-1).argmax().item()
            layer, head = divmod(int(best), scores.values.shape[1])
            score = scores.values[layer, head].item()
            layer_name = scores.axis("layer").labels[layer]
            print(f"  {kind:15} L{layer_name}H{head}  {score:.3f}  (mean of all heads {scores.values.nanmean():.3f})")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
