"""Traces whose every word is hostile: tokens of a real tokenizer, names of models; and what a file may hold of them."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from functools import cache

import torch
import transformers
from tokenizers import Tokenizer, models

import hf_attnviz as av
from hf_attnviz.trace import Trace
from tests.capturing.test_positions import TINY, made, picture, whisper
from tests.models import tiny
from tests.views.builders import self_trace

NAME = '"\' onload=ran() x="></title></script><script>ran()</script><img src=x onerror=ran()>&lt;b&gt; $x_1$\x00\u202e'
TOKENS = (
    "</script><script>ran()</script>",
    "<img src=x onerror=ran()>",
    "\" onload='ran()' x=\"",
    "$x_1$ $\\frac{$ \\alpha",
    "--> <!-- ]]> <![CDATA[",
    "nul\x00bell\x07c1\x9b",
    "\x1b[31mred\x1b[0m\x1b]8;;x\x07",
    "over\u202eride\u2066",
    "\u2028line\u2029\r\n",
    "not a character \uffff\ufffe\U0010ffff",
    "_under __proto__ constructor",
    "${ran()} {{7*7}} {% raw %} [red]x[/red]",
)
SURROGATES = ("lone \ud800", "\udfff", "\ud83d\ud83d")  # a tokenizer cannot hold them, a list of labels can
VOCABULARY = 97  # of the tiny models
ELEMENTS = {"svg", "metadata", "RDF", "Work", "type", "format", "creator", "Agent", "title", "defs", "style"} | {
    "g", "path", "use", "image", "clipPath", "rect", "pattern"
}  # fmt: skip


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A real tokenizer whose tokens are those texts, from id 3 on, over and over with a number."""
    texts = ["[PAD]", "[BOS]", "[EOS]", *TOKENS]
    texts += [f"{TOKENS[n % len(TOKENS)]}{n}" for n in range(VOCABULARY - len(texts))]
    words = Tokenizer(models.WordLevel({text: n for n, text in enumerate(texts)}, unk_token="[PAD]"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]"
    )


def ids() -> torch.Tensor:
    return torch.arange(3, 3 + len(TOKENS))[None]


def _captured(model, run, keep=("maps",)) -> Trace:
    model.config.name_or_path = NAME
    with torch.no_grad(), av.capture(model, tokenizer(), keep=list(keep)) as recording:
        run(model)
    return recording.trace


def _text() -> Trace:
    return _captured(tiny("bert"), lambda model: model(input_ids=ids()), ("maps", "vectors", "statistics"))


def _generation() -> Trace:
    keep = ("maps", "vectors")
    return _captured(tiny("gpt2"), lambda m: m.generate(ids(), max_new_tokens=4, do_sample=False), keep)


def _translation() -> Trace:
    return _captured(tiny("bart"), lambda m: m.generate(ids(), max_new_tokens=6, do_sample=False))


def _picture() -> Trace:
    model = made("ViTModel", "ViT", image_size=(16, 24), patch_size=8, **TINY)
    return _captured(model, lambda m: m(picture((16, 24), (0, 8))))


def _sound() -> Trace:
    model = whisper()
    features = torch.rand(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    return _captured(model, lambda m: m.generate(features, max_new_tokens=5, do_sample=False))


def _by_hand() -> Trace:
    return self_trace([*TOKENS, *SURROGATES], heads=4, model=NAME + SURROGATES[0], size=4, causal=True)


TRACES: Mapping[str, Callable[[], Trace]] = {
    "text": cache(_text),
    "generation": cache(_generation),
    "translation": cache(_translation),
    "picture": cache(_picture),
    "sound": cache(_sound),
    "by hand": cache(_by_hand),
}


def suited(name: str) -> dict[str, Trace]:
    """The traces that have what a picture draws, by name: never none."""
    wanted = av.pictures()[name]
    found = {kind: made() for kind, made in TRACES.items() if wanted.suits(made())}
    assert found, f"no trace of tests/views/hostile.py has what the picture {name!r} draws: add one there"
    return found


def drawn(name: str, trace: Trace) -> av.View:
    """A picture of a trace; of its last stack where one has to be chosen."""
    try:
        return av.pictures()[name](trace)
    except av.errors.UnknownStackError:
        return av.pictures()[name](trace, stack=list(trace.stacks)[-1])


def letters_only(data: bytes) -> ET.Element:
    """An svg that is well-formed and holds nothing but drawn things: no script, no event, no address."""
    tree = ET.fromstring(data)
    for element in tree.iter():
        assert element.tag.rpartition("}")[2] in ELEMENTS, element.tag
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            if name.endswith("href"):
                assert value.startswith(("#", "data:image/png;base64,")), value[:80]
    return tree
