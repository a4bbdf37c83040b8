"""Explanations of one number: against closed forms, finite differences, eager attention, and Captum called directly."""

import sys
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
import transformers

import hf_attnviz as av
from hf_attnviz.explaining.methods import METHODS
from hf_attnviz.explaining.prediction import predicted
from hf_attnviz.explaining.rankings import OWN
from tests.capturing.test_undo import marks
from tests.explaining.subjects import NAMES, STEPS, built, eager, given, linear, scalar, target, vectors
from tests.functional import reference
from tests.functional import reference_relevance as slow
from tests.models import ids, tiny

OF_ATTENTION = ["attention", "rollout", "attention_gradient", "relevance"]
BY_CAPTUM = ["saliency", "smoothgrad", "input_x_gradient", "integrated_gradients"]
SETTINGS = av.Settings(steps=STEPS, samples=8, rows=4, baseline=9)
CLOSE = {"atol": 1e-9, "rtol": 1e-9}


def explained(name: str, methods: list[str]) -> av.Result:
    return av.explain(built(name), given(name), target=target(name), methods=methods, settings=SETTINGS)


def test_a_linear_model_has_its_attributions_in_closed_form() -> None:
    model, inputs, embedded, weights = linear()
    result = av.explain(model, inputs, target=1, methods=BY_CAPTUM)
    products = (embedded * weights).sum(-1)
    lengths = weights.norm(dim=-1)
    torch.testing.assert_close(result.values, torch.stack([lengths, lengths, products, products]), **CLOSE)
    assert abs(result.parameters["integrated_gradients.convergence_delta"]) < 1e-9
    assert result.parameters["integrated_gradients.baseline_score"] == pytest.approx(model.bias[1].item())
    token = av.explain(model, inputs, target=1, methods=["integrated_gradients"], settings=av.Settings(baseline=7))
    other = ((embedded - model.embed.weight[7]) * weights).sum(-1).detach()
    torch.testing.assert_close(token.values[0], other, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_attention_its_rollout_and_its_gradients_are_those_of_an_eager_copy(name: str) -> None:
    result, stacks = explained(name, OF_ATTENTION), eager(name)
    crossed = "cross" in stacks
    attention, gradient = stacks["cross" if crossed else "only"]
    row = {"bert": 0, "gpt2": 5, "llama": 5}.get(name, 3)
    assert result.parameters["attention.rows"] == (row,)
    last = attention[-1].mean(0)[row]
    maps = stacks["encoder"][0] if crossed else attention
    options = {"residual": 0.5, "head_fusion": "mean", "normalise": "after", "discard": 0.0, "start_layer": 0}
    rolled = reference.rollout(maps[:, None].numpy(), **options, valid=[[True] * 6])[-1, 0]
    if crossed:
        three = [tuple(t.numpy() for t in stacks[one]) for one in ("encoder", "decoder", "cross")]
        relevance = slow.encoder_decoder(*three)["cross"][row]
    else:
        relevance = slow.relevance(attention.numpy(), gradient.numpy())[row]
    expected = [
        last,
        torch.tensor(last.numpy() @ rolled if crossed else rolled[row]),
        (attention[-1] * gradient[-1]).sum((0, 1)),
        torch.tensor(relevance, dtype=torch.float64),
    ]
    torch.testing.assert_close(result.values, torch.stack(expected), **CLOSE)
    assert float(result.values.abs().amax(1).min()) > 1e-4
    assert result.axis("key").labels == tuple(str(token) for token in given(name)["input_ids"][0].tolist())


@pytest.mark.parametrize("name", NAMES)
def test_captum_called_directly_on_the_same_model_gives_the_same(name: str) -> None:
    result, model = explained(name, BY_CAPTUM), built(name)
    forward, at = scalar(name, model), vectors(name, model, given(name)["input_ids"]).requires_grad_()
    start = vectors(name, model, torch.full((1, 6), 9))
    saliency = captum.attr.Saliency(forward)
    parts, delta = captum.attr.IntegratedGradients(forward).attribute(
        at, start, n_steps=STEPS, return_convergence_delta=True
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spread = 0.15 * float((at.max() - at.min()).detach())
        smooth = captum.attr.NoiseTunnel(saliency).attribute(
            at, nt_samples=8, nt_samples_batch_size=4, stdevs=spread, abs=False
        )
    expected = [
        saliency.attribute(at, abs=False)[0].norm(dim=-1),
        smooth[0].norm(dim=-1),
        captum.attr.InputXGradient(forward).attribute(at)[0].sum(-1),
        parts[0].sum(-1),
    ]
    torch.testing.assert_close(result.values, torch.stack(expected).detach(), **CLOSE)
    assert result.parameters["integrated_gradients.convergence_delta"] == pytest.approx(float(delta.detach()), abs=1e-9)
    ends = float(forward(at.detach()).detach()) - result.parameters["integrated_gradients.baseline_score"]
    assert float(result.values[3].sum()) - ends == pytest.approx(float(delta.detach()), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_against_finite_differences(name: str) -> None:
    result, model = explained(name, ["input_x_gradient", "saliency"]), built(name)
    forward, at = scalar(name, model), vectors(name, model, given(name)["input_ids"])
    step = 1e-5
    with torch.no_grad():
        for position in range(6):
            longer = torch.zeros_like(at)
            longer[0, position] = at[0, position]
            slope = float(forward(at + step * longer) - forward(at - step * longer)) / (2 * step)
            assert result.values[0, position].item() == pytest.approx(slope, rel=1e-5, abs=1e-6)
            axes = torch.zeros(at.shape[-1], *at.shape[1:], dtype=at.dtype)
            axes[:, position] = torch.eye(at.shape[-1], dtype=at.dtype) * step
            length = float(((forward(at + axes) - forward(at - axes)) / (2 * step)).norm())
            assert result.values[1, position].item() == pytest.approx(length, rel=1e-5)


def vit() -> tuple[Any, dict[str, torch.Tensor]]:
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    config = transformers.ViTConfig(**size, image_size=16, patch_size=4, num_labels=3)
    model = transformers.ViTForImageClassification._from_config(config, attn_implementation="sdpa")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.double().eval(), {"pixel_values": torch.randn(1, 3, 16, 16, generator=generator)}


def test_the_patches_of_a_picture() -> None:
    model, inputs = vit()
    result = av.explain(model, inputs, target=1, settings=av.Settings(steps=STEPS, samples=8))
    assert result.axis("statistic").labels == tuple(METHODS) and result.values.shape == (8, 16)
    assert result.axis("key").labels[:2] == ("r0 c0", "r0 c1") and not result.values.isnan().any()
    trace, pixels = None, inputs["pixel_values"].double()
    with av.capture(model, gradients=True) as recording:
        model(pixel_values=pixels).logits[0, 1].backward()
    trace = recording.trace
    torch.testing.assert_close(result.values[0], trace.vision.maps[-1].weights.mean(0)[0, 1:], **CLOSE)
    relevance = av.relevance(trace).values[0, 1:]
    torch.testing.assert_close(result.values[3], relevance, **CLOSE)
    # the patches' vectors are a convolution of the pixels: one patch's pixels against the gradient of its vector
    pixels.requires_grad_()
    slope = torch.autograd.grad(model(pixel_values=pixels).logits[0, 1], pixels)[0]
    kernel = model.vit.embeddings.patch_embeddings.projection.weight
    patch = slope[0, :, 4:8, 8:12].flatten()
    solved = torch.linalg.lstsq(kernel.flatten(1).mT.detach(), patch).solution  # the kernel has full rank
    assert result.values[4, 6].item() == pytest.approx(float(solved.norm()), rel=1e-6)


def test_several_rows_are_read_where_the_scalar_reads_several() -> None:
    model = tiny("bert").double()
    result = av.explain(
        model,
        {"input_ids": ids(1, 6)},
        target=lambda outputs: outputs.last_hidden_state[0, [1, 4], 3].sum(),
        methods=["attention"],
    )
    assert result.parameters["attention.rows"] == (1, 4)
    weights = tiny("bert", "eager").double()(input_ids=ids(1, 6), output_attentions=True).attentions[-1][0]
    torch.testing.assert_close(result.values[0], weights.mean(0)[[1, 4]].mean(0).detach(), **CLOSE)


def test_padding_is_left_out() -> None:
    tokens = torch.tensor([[0, 0, *ids(1, 5)[0].tolist()]])
    padded = {"input_ids": tokens, "attention_mask": (tokens > 0).long()}
    both = [av.explain(built("llama"), inputs, target=7) for inputs in (padded, {"input_ids": ids(1, 5)})]
    torch.testing.assert_close(both[0].values, both[1].values, **CLOSE)
    assert both[0].axes == both[1].axes


@pytest.mark.parametrize("block", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("frozen", [True, False])
def test_everything_stays_as_it_was(block: Any, frozen: bool) -> None:
    model = tiny("bart")
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(not frozen and number % 2 == 0)
        parameter.grad = torch.full_like(parameter, 3.0) if parameter.requires_grad else None
    before = marks(model), {name: value.clone() for name, value in model.state_dict().items()}
    flags = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()
    with block():
        result = av.explain(model, given("bart"), settings=av.Settings(steps=4, samples=4))
        av.layer_attributions(model, given("bart"), settings=av.Settings(steps=4))
        av.hotflip(model, given("bart"), candidates=2)
        av.input_reduction(model, given("bart"), beam=1)
    assert len(result.values) == len(METHODS)
    assert marks(model) == before[0]
    assert all(torch.equal(before[1][name], value) for name, value in model.state_dict().items())
    for parameter, (asked, gradient) in zip(model.parameters(), flags, strict=True):
        assert parameter.requires_grad == asked
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), state) and np.random.get_state()[1].tolist() == numbers
    assert not model.training


def test_a_frozen_model_is_explained_like_one_that_learns() -> None:
    one, other = tiny("llama"), tiny("llama").requires_grad_(False)
    results = [av.explain(model, {"input_ids": ids(1, 5)}, settings=SETTINGS) for model in (one, other)]
    assert torch.equal(results[0].values, results[1].values)


def test_noise_has_a_seed() -> None:
    first, again, other = (
        av.explain(
            tiny("gpt2"), given("gpt2"), methods=["smoothgrad"], settings=av.Settings(seed=seed, samples=4)
        ).values
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_the_number_is_told_and_what_is_rounded() -> None:
    result = av.explain(tiny("gpt2"), given("gpt2"), target=(2, 7))
    out = tiny("gpt2")(**given("gpt2")).logits[0, 2, 7].item()
    assert result.parameters["score"] == pytest.approx(out, abs=1e-6)
    assert result.parameters["captured_score"] == pytest.approx(out, abs=1e-4)
    assert "logit of token 7 at position 2" in result.notes[0].en
    told = " ".join(note.en for note in result.notes)
    assert "captured with gradients" in told and "convergence delta" in told and "Left out" not in told
    assert result.parameters["relevance.rows"] == (2,)
    assert not result.values[2, 3:].any()  # what comes later has no say
    assert av.heatmap(result).html.count("SmoothGrad") >= 1


def test_a_wide_miss_of_the_integral_is_told() -> None:
    """RMSNorm forgets the length of a vector: on the straight way to zero there is nothing to integrate."""
    result = av.explain(tiny("llama"), {"input_ids": ids(1, 6)}, methods=["integrated_gradients"])
    assert any("above 5 %" in note.en and "5%" in note.zh for note in result.notes)
    near = av.explain(built("gpt2"), given("gpt2"), methods=["integrated_gradients"])
    assert not any("above 5 %" in note.en for note in near.notes)


def test_what_does_not_fit_is_left_out_with_its_reason_or_refused_by_name() -> None:
    model, inputs, _, _ = linear()
    result = av.explain(model, inputs, target=1)
    assert result.axis("statistic").labels == tuple(BY_CAPTUM)
    assert sum(note.en.startswith("Left out: ") for note in result.notes) == 4
    with pytest.raises(av.errors.NothingCapturedError, match="no attention was seen"):
        av.explain(model, inputs, target=1, methods=["relevance"])


def picture(config: Any, model: str) -> Any:
    torch.manual_seed(0)
    return av.explain(
        getattr(transformers, model)._from_config(config).eval(),
        {"pixel_values": torch.randn(1, 3, 16, 16)},
        settings=av.Settings(steps=4, samples=4, rows=4),
    )


def test_windows_have_gradients_but_no_rows_and_a_pooling_head_is_no_stack_of_patches() -> None:
    swin = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1], num_heads=[2, 2], image_size=16, patch_size=2, window_size=2
    )
    result = picture(swin, "SwinForImageClassification")
    assert result.axis("statistic").labels == tuple(BY_CAPTUM) and result.values.shape == (4, 64)
    assert any("Left out" in note.en and "layout of its own" in note.en for note in result.notes)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    siglip = transformers.SiglipConfig(vision_config=size | {"image_size": 16, "patch_size": 4})
    result = picture(siglip, "SiglipForImageClassification")
    assert result.parameters["stack"] == "vision" and result.values.shape == (8, 16)
    assert result.parameters["attention.rows"] == tuple(range(16))


def test_without_captum_the_rest_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    result = av.explain(tiny("gpt2"), given("gpt2"))
    assert result.axis("statistic").labels == tuple(OF_ATTENTION)
    assert any("Left out: saliency" in note.en and "hf-attnviz[captum]" in note.en for note in result.notes)
    with pytest.raises(av.errors.MissingPackageError, match=r"pip install 'hf-attnviz\[captum\]'"):
        av.explain(tiny("gpt2"), given("gpt2"), methods=["saliency"])


def test_errors_say_what_to_do() -> None:
    model, inputs = tiny("gpt2"), given("gpt2")
    with pytest.raises(av.errors.UnknownNameError, match="unknown method lime; known: attention, rollout"):
        av.explain(model, inputs, methods=["lime"])
    with pytest.raises(av.errors.ShapeError, match="must be one number"):
        av.explain(model, inputs, target=lambda outputs: outputs.logits[0, -1])
    with pytest.raises(av.errors.ArgumentError, match="one example"):
        av.explain(model, {"input_ids": ids(2, 5)})
    with pytest.raises(av.errors.ArgumentError, match=r"input_ids.*got both"):
        av.explain(model, inputs | {"pixel_values": torch.zeros(1, 3, 4, 4)})
    with pytest.raises(av.errors.ArgumentError, match=r"input_ids.*got inputs_embeds"):
        av.explain(model, {"inputs_embeds": torch.zeros(1, 3, 32)})
    with pytest.raises(av.errors.ArgumentError, match="mask.*tokenizer"):
        av.explain(model, inputs, methods=["integrated_gradients"], settings=av.Settings(baseline="mask"))
    with pytest.raises(
        av.errors.ArgumentError, match="^no module of XLNetLMHeadModel makes a vector for each position"
    ):
        config = transformers.XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=37, vocab_size=97)
        av.explain(transformers.XLNetLMHeadModel(config).eval(), inputs)
    with pytest.raises(av.errors.ArgumentError, match="2 or more rows"):
        av.Settings(rows=1)
    with pytest.raises(av.errors.UnknownStackError, match="encoder, decoder, cross"):
        av.explain(tiny("bart"), given("bart"), stack="vision")
    with pytest.raises(av.errors.NotKeptError, match="no row of it is read"):
        av.explain(
            tiny("bert"),
            inputs | {"output_hidden_states": True},
            target=lambda outputs: outputs.hidden_states[1][0, 0, 0],
            methods=["attention"],
        )
    for analysis in (av.explain, av.hotflip):
        with pytest.raises(av.errors.ArgumentError, match=r"^the given scalar has no gradient.*detach\(\)"):
            analysis(model, inputs, target=lambda outputs: outputs.logits[0, -1, 7].detach())
    with pytest.raises(av.errors.ArgumentError, match=r"training mode.*model\.eval\(\)"):
        av.explain(tiny("gpt2").train(), inputs)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_table_gives_the_same_scores_one_by_one(method: Any) -> None:
    model, inputs = built("gpt2"), given("gpt2")
    scores = method.scores(model, inputs, 7, settings=SETTINGS)
    whole = av.explain(model, inputs, target=7, methods=[method.name], settings=SETTINGS)
    assert torch.equal(scores, whole.values[0])
    assert method.source and method.text.zh and method.meaning.en.endswith(".")
    assert method.signed == bool((scores < 0).any())


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart", "t5"])
def test_what_is_put_to_the_test_is_what_is_explained(name: str) -> None:
    """The table takes a prediction of av.trust as it is, and reads attention at the same row."""
    prediction = predicted(built(name), given(name), target=7)
    for method in ("attention", "rollout", "relevance", "integrated_gradients"):
        found = METHODS[method].scores(prediction.model, prediction.inputs, prediction.target, settings=SETTINGS)
        assert found.shape == prediction.ids.shape
        if method in OWN:
            # with gradients the model's own eager softmax runs, in float32 whatever the model
            torch.testing.assert_close(found, OWN[method](prediction), atol=2e-7, rtol=0)


def test_a_text_and_the_embedded_translator() -> None:
    loaded = av.load_model("translator")
    text = loaded.examples[0]
    result = av.explain(loaded, text, settings=av.Settings(steps=4, samples=4))
    shown = av.trace_text(loaded, text, generate=False)
    assert result.axis("key").labels == shown.encoder.keys.texts
    assert result.parameters["stack"] == "cross" and len(result.values) == len(METHODS)


def test_a_word_that_the_model_does_not_know_is_no_target() -> None:
    """Its tokenizer would read it as <unk>, and another number than the one asked for would be explained."""
    loaded = av.load_model("induction")
    with pytest.raises(av.errors.UnknownNameError, match="'elephant' is no token of this model.*<unk>"):
        av.explain(loaded, "sun moon sun", target="elephant", methods=["attention"])
    named = av.explain(loaded, "sun moon sun", target="<unk>", methods=["attention"])  # by its own name it is one
    assert "<unk>" in named.parameters["target"]


def test_what_is_explained_is_told_in_both_languages() -> None:
    loaded, text = av.load_model("induction"), "sun moon sun"
    settings = av.Settings(steps=2, samples=2)
    explained = av.explain(loaded, text, methods=["integrated_gradients"], settings=settings)
    layers = av.layer_attributions(loaded, text, settings=settings)
    for result in (explained, layers, av.hotflip(loaded, text, candidates=2), av.input_reduction(loaded, text)):
        told = result.notes[0]
        assert "'moon' at position 3" in told.en
        assert "位置 3 处的“moon”" in told.zh
        assert "logit of" not in told.zh
    assert any("零向量" in note.zh for note in explained.notes)


def test_every_door_takes_a_loaded_model() -> None:
    loaded, text = av.load_model("induction"), "sun moon sun"
    plain = av.value_zeroing(loaded.model, text, processor=loaded.processor)
    assert torch.equal(av.value_zeroing(loaded, text).values, plain.values)


def test_what_is_no_text_and_no_trace_is_named() -> None:
    with pytest.raises(av.errors.ArgumentError, match="expected one text, got list"):
        av.trace_text(av.load_model("induction"), ["sun", "moon"])  # type: ignore[arg-type]
    with pytest.raises(av.errors.ArgumentError, match="expected a trace or several, got str.*trace_text"):
        av.head_roles("sun moon")  # type: ignore[arg-type]


class Shared(torch.nn.Module):
    """An encoder and a decoder with one embedding: logit_c = Σ_i w_c · e(source_i) + 3 Σ_i w_c · e(read_i)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = torch.nn.Embedding(11, 4), torch.nn.Linear(4, 3, bias=False)

    def forward(self, input_ids: torch.Tensor, decoder_input_ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(input_ids).sum(1) + 3 * self.embed(decoder_input_ids).sum(1))


def test_an_embedding_that_serves_two_texts_is_followed_for_the_one_that_is_explained() -> None:
    torch.manual_seed(0)
    model, source = Shared().double().eval(), torch.tensor([[3, 1, 4, 1]])
    inputs = {"input_ids": source, "decoder_input_ids": torch.tensor([[5, 9, 2, 6]])}
    found = av.explain(model, inputs, target=1, methods=["integrated_gradients"], settings=av.Settings(steps=3))
    expected = model.embed(source)[0] @ model.out.weight[1]
    torch.testing.assert_close(found.values[0], expected.detach(), atol=1e-7, rtol=1e-7)
