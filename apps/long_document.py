"""One document of 16,384 tokens on one page, without a single attention matrix. Prints what it took.

    python apps/long_document.py [MODEL [TEXT_FILE]] [-o PAGE] [--tokens N] [--new N]

Without arguments it reads a text with one fruit in it with ``wordfinder``, the embedded model that finds the fruit, so
that one knows what the page must show: behind the fruit, heads of layer 0 look at it. MODEL is an embedded name, a
local folder or a hub id. Uses the front door only.
"""

import argparse
import random
import resource
import sys
import time
from pathlib import Path

import hf_attnviz as av

KEEP = ["statistics", "rollout", "gram", "topk"]


def a_text(tokens: int) -> str:
    """Words drawn at random, and one fruit."""
    chance = random.Random(0)
    words = [
        chance.choice(("sun", "moon", "star", "rain", "king", "queen", "the", "a", "山", "river"))
        for _ in range(tokens - 1)
    ]
    words[int(0.55 * len(words))] = "mango"
    return " ".join(words)


def peak() -> float:
    """The most memory that this process ever took, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def say(what: str, since: float) -> float:
    print(f"{what:<28} {time.monotonic() - since:8.1f} s   peak memory {peak():8,.0f} MB", flush=True)
    return time.monotonic()


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("model", nargs="?", default="wordfinder")
    options.add_argument("file", nargs="?", type=Path)
    options.add_argument("-o", "--output", type=Path, default=Path("long_document.html"))
    options.add_argument("--tokens", type=int, default=16_384)
    options.add_argument("--new", type=int, default=0, help="tokens to generate")
    asked = options.parse_args()
    text = a_text(asked.tokens) if asked.file is None else asked.file.read_text(encoding="utf-8")
    now = time.monotonic()
    loaded = av.load_model(asked.model)
    now = say("loaded", now)
    trace = av.trace_text(loaded, text, generate=asked.new > 0, max_new_tokens=asked.new, keep=KEEP)
    now = say("read, and reduced", now)
    page = av.report(trace, layer=loaded.telling_layer).save(asked.output)
    say("drawn", now)
    maps = sum(m.heads * len(m.queries) * len(m.keys) * 4 for m in trace.maps)
    kept = sum(one.nbytes for m in trace.maps for one in m.reduced.values())
    sizes = {"its maps would take": maps, "kept": kept, str(page): page.stat().st_size}
    print(f"{trace!r}\n" + "; ".join(f"{what} {size / 1e6:,.1f} MB" for what, size in sizes.items()))
    for name in trace.stacks:
        print_most(trace, name)


def print_most(trace: av.Trace, stack: str) -> None:
    """The key that each head's rows look at most, the first one left out."""
    received = av.received(trace, stack=stack)
    layers, heads, keys = (axis.labels for axis in received.axes)
    for n, layer in enumerate(layers):
        for head in range(len(heads)):
            key = 1 + int(received.values[n, head, 1:].argmax())
            told = f"{stack} L{layer}H{head}: key {key:,} {av.visible(keys[key])!r} receives "
            even = "unknown" if received.baseline is None else f"{float(received.baseline[n, head, key]):.1f}"
            print(f"{told}{float(received.values[n, head, key]):,.1f} (uniform attention: {even})")


if __name__ == "__main__":
    main()
