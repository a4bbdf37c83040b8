"""Does cross-attention align? Compares the embedded translator's cross-attention with the alignments it was taught.

    python apps/translation_alignment.py [SENTENCE …]

Prints, for each word put out, the source word that the given head looks at most, and the alignment error rate over
all examples whose alignment is known. Uses the front door only.
"""

import sys

import hf_attnviz as av


def main(sentences: list[str]) -> None:
    loaded = av.zoo.load("translator")
    layer, head = loaded.truth["alignment_head"]
    found, sure, possible = set(), set(), set()
    for number, sentence in enumerate(sentences or loaded.examples):
        cross = av.trace_text(loaded, sentence).cross
        rows, words = cross.head(layer, head), cross.maps[0].produced or ()
        places = [int(row.argmax()) for row in rows]
        print(sentence)
        for row, word, place in zip(rows, words, places, strict=True):
            print(f"  {word:12} ← {cross.keys.texts[place]}  ({row[place]:.2f})")
        known = loaded.truth["alignments"].get(sentence)
        if known is not None and list(words[:-1]) == known["target"]:
            # by place, not by word, which may occur twice; the end token is aligned to nothing
            found |= {(number, s, t) for t, s in enumerate(places[:-1]) if s < len(known["source"])}
            sure |= {(number, s, t) for s, t in known["sure"]}
            possible |= {(number, s, t) for s, t in known["links"]}
    if sure:
        error = av.functional.alignment_error_rate(found, sure, possible)
        print(f"alignment error rate of L{layer}H{head}: {error:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
