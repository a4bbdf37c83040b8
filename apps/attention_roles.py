"""Which heads of a model do something recognisable? Prints the clearest head of each role, over all texts together.

    python apps/attention_roles.py MODEL "a text" ["another text" …]

MODEL is an embedded name, a local folder or a hub id. The interval needs five texts or more. Uses the front door only.
"""

import sys

import hf_attnviz as av


def main(model: str, texts: list[str]) -> None:
    loaded = av.load_model(model)
    traces = [av.trace_text(loaded, text, generate=False) for text in texts]
    for stack in traces[0].stacks:
        if any(one.positions is None for trace in traces for one in trace.stacks[stack]):
            continue  # cross-attention stands on no key: it has no previous token, and nothing is repeated
        print(f"{stack}, texts pooled: {len(texts)}")
        table = av.head_roles(traces, stack=stack).to_pandas()
        for name, heads in table.groupby("statistic_label", sort=False):
            if heads["value"].isna().all():
                continue  # undefined here: a causal head has no next token
            best = heads.loc[heads["value"].idxmax()]
            passed = "plays it" if best["verdict"] else ""
            print(
                f"  {name:18} L{best['layer_label']}H{best['head']}  {best['value']:.3f}  "
                f"[{best['low']:.3f}, {best['high']:.3f}]  (uniform attention {best['baseline']:.3f})  {passed}"
            )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
