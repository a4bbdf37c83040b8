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
    found_links, known_links = set(), set()
    for number, sentence in enumerate(sentences or loaded.examples):
        cross = av.trace_text(loaded, sentence).cross
        rows, words = cross.head(layer, head), cross.maps[0].produced or ()
        print(sentence)
        for row, word in zip(rows, words, strict=True):
            place = int(row.argmax())
            print(f"  {word:12} ← {cross.keys.texts[place]}  ({row[place]:.2f})")
        known = loaded.truth["alignments"].get(sentence)
        if known is not None:
            # only links between real words count; the end token is aligned to nothing
            targets = {word: place for place, word in enumerate(known["target"])}
            sources = {word: place for place, word in enumerate(known["source"])}
            known_links |= {(number, s, t) for s, t in known["links"]}
            found_links |= {
                (number, sources[cross.keys.texts[int(row.argmax())]], targets[word])
                for row, word in zip(rows, words, strict=True)
                if word in targets and cross.keys.texts[int(row.argmax())] in sources
            }
    if known_links:
        error = av.functional.alignment_error_rate(found_links, known_links, known_links)
        print(f"alignment error rate of L{layer}H{head}: {error:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
