"""Does cross-attention align? Compares the embedded translator's cross-attention with the alignments it was taught.

    python apps/translation_alignment.py [SENTENCE …]

Prints, for each word put out, the source word that the given head looks at most, the links in Pharaoh format, and the
alignment error rate over all examples whose alignment is known, by both rows. Uses the front door only.
"""

import sys

import hf_attnviz as av


def main(sentences: list[str]) -> None:
    loaded = av.zoo.load("translator")
    layer, head = loaded.truth["alignment_head"]
    traces, known = [], []
    for sentence in sentences or loaded.examples:
        trace = av.trace_text(loaded, sentence)
        found = av.alignment(trace, layer=layer, head=head)
        sources, targets = found.axis("key").labels, found.axis("query").labels
        weights = found.select(statistic="weight").values
        print(sentence)
        for source, target in sorted(av.links(found), key=lambda link: link[1]):
            print(f"  {targets[target]:12} ← {sources[source]}  ({weights[target, source]:.2f})")
        print(f"  {av.pharaoh(found)}", end="")
        truth = loaded.truth["alignments"].get(sentence)
        if truth is not None and list(targets) == truth["target"]:
            traces.append(trace)
            known.append(truth)
    if traces:
        scores = av.alignment_scores(
            traces, sure=[one["sure"] for one in known], possible=[one["links"] for one in known]
        )
        name = f"L{layer}H{head}"
        for row, words in (("output", "puts out"), ("reading", "reads")):
            error = float(scores.select(statistic=f"error_rate_{row}").values[layer, head])
            print(f"alignment error rate of {name}, by the row that {words} each word: {error:.3f}")
        print(f"  of sources drawn at random: {scores.parameters['chance_error_rate']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
