"""What each picture weighs, how long it takes to build and until it can be used. Prints Markdown.

    python apps/measure_views.py [--tokens 64 128 512 1024] [--views head model …] [--no-bertviz] [--no-browser]

Every picture of ``av.pictures()``, of models made from configs: a decoder of 12 layers × 12 heads that reads a text or
goes on with it, a ViT of the same shape, and, for what needs two sides, an encoder-decoder and a Whisper of 4 × 12.
Their weights are drawn so that scores have a standard deviation of 3: rows are then as uneven as those of trained
models (even ones would compress better than any real page), and the table says how many keys a row spreads over. Tokens
are words of 1 to 8 letters.

Build: from the trace to the page. Interactive: from the start of loading to the moment the page says that it is ready,
in Chromium without a network. BertViz' own pages stand beside: they load d3, jQuery and require.js from the network,
so the browser is handed those that we vendor, and a require of two lines (0.33 MB that its bytes leave out); ready is
when lines are drawn. Beyond --bertviz-bytes its size is reckoned (it grows with the square of the tokens), and nothing
is built. Its neuron view runs its own copies of three models of 2019 alone, so there is nothing to hold it against.
Uses the front door only.
"""

import argparse
import math
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import hf_attnviz as av

SCORES = 3.0  # standard deviation of what goes into the softmax
WORDS = 1000
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PATIENCE = 180_000  # milliseconds
READY = """new MutationObserver(() => {
    const lines = %s && document.querySelector("svg line, svg path");
    if (window.isReady !== undefined || !(lines || document.documentElement.dataset.ready === "yes")) return;
    requestAnimationFrame(() => { window.isReady ??= performance.now(); });
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["data-ready"]});"""
SHIM = """window.require = window.requirejs = (names, go) =>
    go(...names.map((name) => (name === "jquery" ? window.jQuery : window.d3)));
window.require.config = () => {};"""


@dataclass(frozen=True)
class Shape:
    """How large the models are: layers and heads, and layers of those with two sides."""

    layers: int = 12
    heads: int = 12
    two_sided: int = 4
    size: int = 64  # of a head

    @property
    def width(self) -> int:
        return self.heads * self.size


@dataclass(frozen=True)
class Page:
    """One page: its bytes, seconds to build it, milliseconds until it can be used (NaN: not measured)."""

    size: int
    build: float
    ready: float


# ---- traces


def drawn(model: Any) -> Any:
    """The model with queries and keys that tell one token from another."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if one.dim() == 2 and any(part in name for part in ("c_attn", "q_proj", "k_proj", "query", "key")):
                fan_in = one.shape[0] if "c_attn" in name else one.shape[1]
                one.copy_(torch.randn(one.shape, generator=generator) * math.sqrt(SCORES / fan_in))
    return model.eval()


@cache
def tokenizer() -> Any:
    letters = torch.Generator().manual_seed(1)
    names = ["[PAD]", "[BOS]", "[EOS]"]
    while len(names) < WORDS:
        length = int(torch.randint(1, 9, (), generator=letters))
        codes = torch.randint(97, 123, (length,), generator=letters).tolist()
        names += [] if (word := "".join(map(chr, codes))) in names else [word]
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(names)}, unk_token="[PAD]"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]")


def ids(count: int) -> torch.Tensor:
    return torch.randint(3, WORDS, (1, count), generator=torch.Generator().manual_seed(count))


def traced(model: Any, run: Callable[[Any], Any], *keep: str) -> av.Trace:
    with torch.no_grad(), av.capture(model, tokenizer(), keep=list(keep or ("maps",))) as recording:
        run(model)
    return recording.trace


@cache
def decoder(shape: Shape, tokens: int) -> Any:
    sizes = {"n_layer": shape.layers, "n_head": shape.heads, "n_embd": shape.width, "n_positions": tokens + 1}
    config = transformers.GPT2Config(vocab_size=WORDS, bos_token_id=1, eos_token_id=None, pad_token_id=0, **sizes)
    return drawn(transformers.GPT2LMHeadModel(config))


def text(shape: Shape, tokens: int) -> av.Trace:
    return traced(decoder(shape, tokens), lambda m: m(ids(tokens)), "maps", "vectors", "statistics")


def generation(shape: Shape, tokens: int) -> av.Trace:
    new = min(32, tokens // 2)
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
    return traced(decoder(shape, tokens), lambda m: m.generate(ids(tokens - new + 1), **options))


def two_sides(shape: Shape, tokens: int) -> dict[str, Any]:
    sides = ("encoder", "decoder")
    found = {f"{side}_layers": shape.two_sided for side in sides} | {"d_model": shape.width}
    found |= {f"{side}_attention_heads": shape.heads for side in sides} | {f"{side}_ffn_dim": 128 for side in sides}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 1}
    return found | ends | {"vocab_size": WORDS}


def translation(shape: Shape, tokens: int) -> av.Trace:
    config = transformers.BartConfig(max_position_embeddings=tokens + 4, **two_sides(shape, tokens))
    model = drawn(transformers.BartForConditionalGeneration(config))
    return traced(model, lambda m: m(input_ids=ids(tokens), decoder_input_ids=ids(tokens + 1)[:, :tokens]))


def picture(shape: Shape, tokens: int) -> av.Trace:
    down = 2 ** (int(math.log2(tokens)) // 2)
    size = (8 * down, 8 * (tokens // down))
    config = transformers.ViTConfig(
        hidden_size=shape.width, num_hidden_layers=shape.layers, num_attention_heads=shape.heads, patch_size=8,
        image_size=size, intermediate_size=128,
    )  # fmt: skip
    pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return traced(drawn(transformers.ViTModel(config)), lambda m: m(pixels))


def sound(shape: Shape, tokens: int) -> av.Trace:
    config = transformers.WhisperConfig(num_mel_bins=8, max_target_positions=tokens + 4, **two_sides(shape, tokens))
    model = drawn(transformers.WhisperForConditionalGeneration(config))
    features = torch.rand(1, 8, 3000, generator=torch.Generator().manual_seed(0))
    return traced(model, lambda m: m(input_features=features, decoder_input_ids=ids(tokens)))


KINDS: Mapping[str, Callable[[Shape, int], av.Trace]] = {
    "text": text,
    "generation": generation,
    "translation": translation,
    "picture": picture,
    "sound": sound,
}


@cache
def small(kind: str) -> av.Trace:
    return KINDS[kind](Shape(1, 2, 1, 8), 8)


def suited(views: list[str]) -> dict[str, str]:
    """For each picture the kind of trace that has what it draws, found on the smallest models."""
    found = {}
    for name in views:
        kind = next((kind for kind in KINDS if av.pictures()[name].suits(small(kind))), None)
        if kind is None:
            print(f"{name}: none of these traces has what it draws\n")
        else:
            found[name] = kind
    return found


# ---- pages


@contextmanager
def browser(wanted: bool) -> Iterator[Any]:
    """A Chromium without a network; None where there is none, or none is wanted."""
    binary = shutil.which("chromium")
    if not wanted or binary is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=binary, args=FLAGS)
        yield found
        found.close()


def ready(chromium: Any, html: str, *, bertviz: bool = False) -> float:
    """Milliseconds until a page can be used; infinity where that takes longer than we wait."""
    if chromium is None:
        return math.nan
    from playwright.sync_api import TimeoutError as Late

    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "page.html"
            path.write_text(html, encoding="utf-8")
            context.route(re.compile("^https?:"), lambda call: _handed(call) if bertviz else call.abort())
            page = context.new_page()
            page.add_init_script(READY % ("true" if bertviz else "false"))
            page.goto(path.as_uri(), timeout=PATIENCE)
            page.wait_for_function(
                "() => window.isReady !== undefined", timeout=PATIENCE
            )  # a policy forbids text as code
            return float(page.evaluate("window.isReady"))
    except Late:
        return math.inf
    finally:
        context.close()


def _handed(call: Any) -> None:
    """What BertViz' pages ask the network for: the libraries that we vendor, and a require that gives them."""
    folder = Path(av.__file__).parent / "views" / "assets"
    libraries = [(folder / name).read_text(encoding="utf-8") for name in ("jquery.slim.min.js", "d3.min.js")]
    call.fulfill(content_type="text/javascript", body="\n".join([*libraries, SHIM]))


def ours(name: str, trace: av.Trace, chromium: Any) -> Page:
    drawing = av.pictures()[name]
    stack = list(trace.stacks)[-1] if len(trace.stacks) > 1 and drawing.arguments.get("stack", 0) is None else None
    start = time.perf_counter()
    try:
        html = drawing(trace).html
    except av.errors.UnknownStackError:
        start = time.perf_counter()
        html = drawing(trace, stack=stack).html
    seconds = time.perf_counter() - start
    return Page(len(html.encode("utf-8")), seconds, ready(chromium, html))


def theirs(name: str, trace: av.Trace, chromium: Any) -> Page:
    import bertviz

    start = time.perf_counter()
    html = getattr(bertviz, f"{name}_view")(**av.to_bertviz(trace), html_action="return").data
    seconds = time.perf_counter() - start
    return Page(len(html.encode("utf-8")), seconds, ready(chromium, html, bertviz=True))


# ---- the table


def cells(page: Page | str) -> list[str]:
    if isinstance(page, str):
        return [page, "–", "–"]
    waited = "–" if math.isnan(page.ready) else f"{page.ready / 1000:.2f}"
    if math.isinf(page.ready):
        waited = f"> {PATIENCE / 1000:.0f}"
    return [f"{page.size / 1e6:.2f} MB", f"{page.build:.2f}", waited]


def spread(trace: av.Trace) -> float:
    """Over how many keys a row spreads: exp of its entropy, mean over all rows of the first stack."""
    weights = trace.maps[0].weights.double()
    return float(torch.special.entr(weights).sum(-1).exp().mean())


def beside(name: str, trace: av.Trace, tokens: int, most: float, each: dict[str, float], chromium: Any) -> Page | str:
    """BertViz' page of the same trace, or how large it would be."""
    if name not in ("head", "model"):
        return "–"
    expected = each.get(name, 44.0) * sum(m.weights.numel() for m in trace.maps)  # bytes of a weight, written twice
    if expected > most:
        return f"≈ {expected / 1e6:,.0f} MB, not built"
    page = theirs(name, trace, chromium)
    each[name] = page.size / sum(m.weights.numel() for m in trace.maps)
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 128, 512, 1024])
    parser.add_argument("--views", nargs="+", default=list(av.pictures()), choices=list(av.pictures()))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--bertviz-bytes", type=float, default=150e6)
    parser.add_argument("--no-bertviz", action="store_true")
    parser.add_argument("--no-browser", action="store_true")
    asked = parser.parse_args()
    shape = Shape(asked.layers, asked.heads, min(asked.layers, 4))
    found, each = suited(asked.views), dict[str, float]()
    print(f"{shape.layers} layers × {shape.heads} heads ({shape.two_sided} layers where there are two sides)\n")
    print("| view | of a | tokens | keys a row spreads over | page | build, s | interactive, s "
          "| BertViz: page | build, s | interactive, s |")  # fmt: skip
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    with browser(not asked.no_browser) as chromium:
        for kind in KINDS:
            names = [name for name in found if found[name] == kind]
            for tokens in sorted(asked.tokens) if names else ():
                trace = KINDS[kind](shape, tokens)
                for name in names:
                    row = [name, kind, f"{tokens:,}", f"{spread(trace):.1f}", *cells(ours(name, trace, chromium))]
                    other = "–" if asked.no_bertviz else beside(
                        name, trace, tokens, asked.bertviz_bytes, each, chromium
                    )  # fmt: skip
                    print(f"| {' | '.join([*row, *cells(other)])} |", flush=True)
                decoder.cache_clear()
    return 0


if __name__ == "__main__":
    sys.exit(main())
