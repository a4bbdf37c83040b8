"""A plain forward pass: same bits, and the maps of an eager copy of the model, whichever backend runs."""

from typing import Any

import pytest
import torch
import transformers

import hf_attnviz as av
from tests.capturing.extra_models import byte_level, word_piece
from tests.models import CONFIGS, ENDS, SMALL, ids, padded, tiny

LENGTHS = [7, 4]
PAIRS = [("encoder", "encoder_attentions"), ("decoder", "decoder_attentions"), ("cross", "cross_attentions")]
TOLERANCE = {"atol": 2e-5, "rtol": 0}


def batch(name: str, side: str) -> dict[str, torch.Tensor]:
    inputs = padded(LENGTHS, side)
    if name in ("t5", "bart"):
        target = padded([5, 3], "right", seed=9)
        inputs |= {"decoder_input_ids": target["input_ids"], "decoder_attention_mask": target["attention_mask"]}
    return inputs


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            same(first, second)


def captured(model: Any, inputs: dict[str, Any], **options: Any) -> tuple[Any, av.Recording]:
    with torch.no_grad():
        plain = model(**inputs)
        with av.capture(model, **options) as recording:
            seen = model(**inputs)
    same(plain, seen)
    return seen, recording


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_gives_the_maps_of_its_eager_copy(name: str, backend: str, side: str) -> None:
    model, reference, inputs = tiny(name, backend), tiny(name, "eager"), batch(name, side)
    before = model.config.to_dict()
    _, recording = captured(model, inputs)
    assert model.config.to_dict() == before
    assert model.config._attn_implementation == backend
    with torch.no_grad():
        out = reference(**inputs, output_attentions=True)
    real = {"encoder": inputs["attention_mask"].bool()}
    real["decoder"] = inputs.get("decoder_attention_mask", inputs["attention_mask"]).bool()
    groups = PAIRS if name in ("t5", "bart") else [(recording.traces[0].maps[0].stack, "attentions")]
    assert len(recording.runs) == 1 and len(recording.traces) == 2
    for item, trace in enumerate(recording.traces):
        assert (trace.item, trace.candidate, trace.run) == (item, 0, 0)
        assert set(trace.stacks) == {group for group, _ in groups}
        for group, field in groups:
            rows = real["decoder" if group in ("decoder", "cross") else "encoder"][item]
            columns = real["decoder" if group == "decoder" else "encoder"][item]
            expected = getattr(out, field)
            assert trace.stacks[group].layers == tuple(range(len(expected)))
            for found, wanted in zip(trace.stacks[group], expected, strict=True):
                torch.testing.assert_close(found.weights, wanted[item][:, rows][:, :, columns], **TOLERANCE)
                assert found.error <= 1e-5 * 100
                assert found.kind == ("cross" if group == "cross" else "self")
                assert model.get_submodule(found.module) is not None
                assert len(found.queries) == int(rows.sum()) and len(found.keys) == int(columns.sum())
    for trace, row, mask in zip(recording.traces, inputs["input_ids"], inputs["attention_mask"], strict=True):
        source = trace.stacks.get("encoder") or trace.stack()
        assert source.keys.ids == tuple(row[mask.bool()].tolist())


def test_several_forwards_in_one_block_are_several_runs() -> None:
    model, reference = tiny("bert"), tiny("bert", "eager")
    with av.capture(model) as recording, torch.no_grad():
        for seed, length in enumerate([5, 3, 8]):
            model(ids(2, length, seed))
    assert [(t.run, t.item) for t in recording.traces] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    with torch.no_grad():
        expected = reference(ids(2, 8, 2), output_attentions=True).attentions
    torch.testing.assert_close(
        recording.traces[5].encoder.stacked(), torch.stack([w[1] for w in expected]), **TOLERANCE
    )
    recording.clear()
    assert recording.traces == [] and recording.calls == []


def test_text_pairs_have_segments_and_words() -> None:
    tokenizer = word_piece()
    model, reference = tiny("bert"), tiny("bert", "eager")
    inputs = tokenizer(["the cat sat", "我们"], ["a small unbelievably dog", "cat"], padding=True, return_tensors="pt")
    with av.capture(model, tokenizer) as recording, torch.no_grad():
        model(**inputs)
        expected = reference(**inputs, output_attentions=True).attentions
    for item, trace in enumerate(recording.traces):
        labels, real = trace.encoder.queries, inputs["attention_mask"][item].bool()
        assert labels == trace.encoder.keys
        assert labels.ids == tuple(inputs["input_ids"][item][real].tolist())
        assert [s.kind for s in labels.segments] == ["special", "text", "special", "text", "special"]
        torch.testing.assert_close(trace.encoder.maps[1].weights, expected[1][item][:, real][:, :, real], **TOLERANCE)
    second = recording.traces[1].encoder.queries
    assert [(text, word) for text, word in zip(second.texts, second.words, strict=True)] == [
        ("[CLS]", None), ("我", 0), ("们", 1), ("[SEP]", None), ("cat", 2), ("[SEP]", None),
    ]  # fmt: skip


def test_unselected_layers_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel runs once a layer, and the model's eager twin for the chosen layer alone."""
    model = tiny("bert", num_hidden_layers=4)
    whole = captured(model, {"input_ids": ids(1, 5)})[1]
    calls: dict[str, int] = {"kernel": 0, "twin": 0}

    def counted(name: str, function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return run

    home = transformers.models.bert.modeling_bert
    monkeypatch.setattr(home, "eager_attention_forward", counted("twin", home.eager_attention_forward))
    kernel = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted("kernel", kernel))
    with torch.no_grad(), av.capture(model, layers=[2]) as recording:
        model(ids(1, 5))
    assert calls == {"kernel": 4, "twin": 1}
    assert recording.trace.encoder.layers == (2,)
    assert torch.equal(recording.trace.encoder.maps[0].weights, whole.trace.encoder.layer(2).weights)


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_half_precision(name: str) -> None:
    model, reference = tiny(name).bfloat16(), tiny(name, "eager").bfloat16()
    inputs = batch(name, "left")
    _, recording = captured(model, inputs)
    with torch.no_grad():
        out = reference(**inputs, output_attentions=True)
    expected = out.encoder_attentions if name == "t5" else out.attentions
    found = recording.traces[0].maps[0].weights
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected[0][0], atol=0.02, rtol=0)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_train_mode_keeps_the_stream_of_random_numbers(name: str, backend: str) -> None:
    changes = {
        "distilbert": {"attention_dropout": 0.3}, "gpt2": {"attn_pdrop": 0.3}, "t5": {"dropout_rate": 0.3},
        "bart": {"attention_dropout": 0.3}, "llama": {"attention_dropout": 0.3},
    }.get(name, {"attention_probs_dropout_prob": 0.3})  # fmt: skip
    model, reference, inputs = (
        tiny(name, backend, **changes).train(),
        tiny(name, "eager", **changes),
        batch(name, "right"),
    )
    torch.manual_seed(3)
    plain = model(**inputs)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    with av.capture(model) as recording:
        seen = model(**inputs)
    assert torch.equal(torch.get_rng_state(), after)
    same(plain.to_tuple()[0], seen.to_tuple()[0])
    first = recording.traces[1].maps[0]
    assert torch.allclose(first.weights.sum(-1), torch.ones(()), atol=1e-5)  # no dropout in them
    if name in ("llama",):  # no dropout before the first layer's attention
        with torch.no_grad():
            expected = reference(**inputs, output_attentions=True).attentions[0][1][:, :4, :4]
        torch.testing.assert_close(first.weights, expected, **TOLERANCE)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("name", ["bert", "llama", "bart"])
def test_gradients_are_those_of_the_plain_run(name: str, checkpointing: bool, backend: str) -> None:
    model, inputs = tiny(name, backend), batch(name, "right")
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
        model.train()

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(2)
        model(**inputs, use_cache=False).to_tuple()[0].square().sum().backward() if name != "bert" else model(
            **inputs
        ).last_hidden_state.square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradients()
    with av.capture(model) as recording:
        seen = gradients()
    same(plain, seen)
    assert len(recording.runs) == 1
    expected = {"bert": 2, "llama": 2, "bart": 7}[name]
    assert len(recording.calls) == expected
    assert not any(call.weights.requires_grad for call in recording.calls)


def test_inference_mode() -> None:
    model, reference = tiny("llama"), tiny("llama", "eager")
    with torch.inference_mode():
        plain = model(ids(2, 6))
        with av.capture(model) as recording:
            seen = model(ids(2, 6))
    same(plain.logits, seen.logits)
    with torch.no_grad():
        expected = reference(ids(2, 6), output_attentions=True).attentions
    torch.testing.assert_close(recording.traces[1].decoder.layer(1).weights, expected[1][1], **TOLERANCE)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_padding_is_dropped_when_embeddings_are_given(name: str, side: str) -> None:
    model, reference, inputs = tiny(name), tiny(name, "eager"), padded(LENGTHS, side)
    embedded = {
        "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"]).detach(),
        "attention_mask": inputs["attention_mask"],
    }
    _, recording = captured(model, embedded)
    with torch.no_grad():
        expected = reference(**inputs, output_attentions=True).attentions
    real = inputs["attention_mask"][1].bool()
    found = recording.traces[1].stack().maps[0]
    torch.testing.assert_close(found.weights, expected[0][1][:, real][:, :, real], **TOLERANCE)


def clip(text_length: int = 5) -> Any:
    size = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config=size | {"vocab_size": 97, "max_position_embeddings": 16} | ENDS,
        vision_config=size | {"image_size": 8, "patch_size": 4},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.CLIPModel._from_config(config, attn_implementation="sdpa").eval()


def test_the_text_masks_no_image() -> None:
    """Five patches and five text positions, two of them padding: the picture keeps all of its five."""
    model = clip()
    inputs = padded([5, 3], "right") | {"pixel_values": torch.randn(2, 3, 8, 8)}
    _, recording = captured(model, inputs)
    vision = [call for call in recording.calls if call.module.startswith("vision")]
    second = recording.traces[1]
    assert set(second.stacks) == {"vision", "text"}
    assert second.text.maps[0].weights.shape == (4, 3, 3)
    assert second.vision.maps[0].weights.shape == (4, 5, 5)
    assert torch.equal(second.vision.maps[0].weights, vision[0].weights[1])
    assert {s.kind for s in second.vision.keys.segments} <= {"patch", "latent", "special"}


def test_one_image_and_three_texts() -> None:
    """Zero-shot classification: batches of different sizes in one run."""
    model = clip()
    _, recording = captured(model, padded([5, 3, 4], "right") | {"pixel_values": torch.randn(1, 3, 8, 8)})
    assert len(recording.calls) == 4
    found = [tuple(t.stacks) for t in recording.traces]
    assert len(found) >= 3 and any("vision" in stacks for stacks in found)


def test_one_shared_module_serves_many_blocks() -> None:
    config = transformers.AlbertConfig(**SMALL | {"num_hidden_layers": 3, "embedding_size": 16}, **ENDS)
    models = []
    for backend in ("sdpa", "eager"):
        torch.manual_seed(0)
        models.append(transformers.AlbertModel._from_config(config, attn_implementation=backend).eval())
    _, recording = captured(models[0], {"input_ids": ids(2, 6)})
    with torch.no_grad():
        expected = models[1](ids(2, 6), output_attentions=True).attentions
    assert recording.traces[0].encoder.layers == (0, 1, 2)
    torch.testing.assert_close(
        recording.traces[1].encoder.stacked(), torch.stack([w[1] for w in expected]), **TOLERANCE
    )
    _, chosen = captured(models[0], {"input_ids": ids(2, 6)}, layers=[2])
    assert chosen.traces[0].encoder.layers == (2,)
    torch.testing.assert_close(chosen.traces[0].encoder.maps[0].weights, expected[2][0], **TOLERANCE)


@pytest.mark.parametrize("extra", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
def test_sliding_window_with_a_cache(extra: dict[str, Any]) -> None:
    config = transformers.MistralConfig(
        **SMALL | {"num_key_value_heads": 2, "sliding_window": 4, "max_position_embeddings": 64}, **ENDS
    )
    models = []
    for backend in ("sdpa", "eager"):
        torch.manual_seed(0)
        model = transformers.MistralForCausalLM._from_config(config, attn_implementation=backend).eval()
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.4)
        models.append(model)
    model, reference = models
    model.generation_config.eos_token_id = None
    inputs = padded([6, 4], "left")
    plain = model.generate(**inputs, max_new_tokens=7, do_sample=False, **extra)
    with av.capture(model) as recording:
        seen = model.generate(**inputs, max_new_tokens=7, do_sample=False, **extra)
    assert torch.equal(plain, seen)
    for item, trace in enumerate(recording.traces):
        real = inputs["attention_mask"][item].bool()
        tokens = torch.cat([inputs["input_ids"][item][real], seen[item, 6:-1]])[None]
        assert trace.decoder.keys.ids == tuple(tokens[0].tolist())
        with torch.no_grad():
            expected = reference(tokens, output_attentions=True).attentions
        for found, wanted in zip(trace.decoder, expected, strict=True):
            torch.testing.assert_close(found.weights, wanted[0], **TOLERANCE)


# ---- pipelines


def pipe(task: str) -> Any:
    if task == "fill-mask":
        tokenizer = word_piece()
        size = SMALL | {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
        model = transformers.BertForMaskedLM(transformers.BertConfig(**size)).eval()
    elif task == "text-classification":
        tokenizer = word_piece()
        size = SMALL | {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**size)).eval()
    else:
        tokenizer = byte_level()
        model = tiny("gpt2", vocab_size=len(tokenizer))
    return transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "fill-mask": ("the [MASK] sat", {}),
    "text-classification": ("a small dog", {}),
    "text-generation": ("the cat", {"max_new_tokens": 4, "do_sample": False, "return_full_text": True}),
}


@pytest.mark.parametrize("task", ASKED)
def test_pipelines(task: str) -> None:
    target = pipe(task)
    text, options = ASKED[task]
    plain = target(text, **options)
    with av.capture(target) as recording:
        assert target(text, **options) == plain
    trace = recording.trace
    shown = "".join(t for t, s in zip(trace.stack().keys.texts, trace.stack().keys.special, strict=True) if not s)
    assert shown.startswith(text.replace("[MASK]", "").split(" ")[0])
    assert trace.stack().layers == (0, 1)
    assert len(trace.stack().queries) == len(trace.stack().keys)

    attached = av.attach(target, last=2)
    try:
        for _ in range(3):
            assert target(text, **options) == plain
        assert [run.number for run in attached.runs] == [1, 2]
        assert [t.run for t in attached.traces] == [1, 2]
        assert torch.equal(attached.traces[1].stack().maps[0].weights, trace.stack().maps[0].weights)
    finally:
        attached.detach()
    target(text, **options)
    assert [run.number for run in attached.runs] == [1, 2]
    assert "generate" not in target.model.__dict__


def test_a_pipeline_with_a_list_gives_a_trace_an_input() -> None:
    target = pipe("text-classification")
    with av.capture(target) as recording:
        target(["a small dog", "the cat", "words"], batch_size=2)
    assert len(recording.traces) == 3
    assert [len(t.encoder.keys) for t in recording.traces] == [
        len(target.tokenizer(text)["input_ids"]) for text in ["a small dog", "the cat", "words"]
    ]
