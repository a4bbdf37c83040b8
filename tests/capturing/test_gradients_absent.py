"""Attention gradients: when they are there, and when not, in words, with the run as it would be without."""

import gc
import weakref
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import hf_attnviz as av
from tests.capturing.extra_models import ByHand, built
from tests.capturing.test_functions import Direct
from tests.models import ids, tiny


def test_it_is_there_after_backward_and_adds_up() -> None:
    model = tiny("gpt2")
    with av.capture(model, gradients=True) as recording:
        logits = model(ids(1, 5)).logits
        assert recording.trace.decoder.maps[0].gradient is None
        with pytest.raises(av.errors.NotKeptError, match=r"transformer\.h\.0\.attn yet: call backward"):
            recording.calls[0].gradient  # noqa: B018
        logits[0, -1, 3].backward(retain_graph=True)
        once = recording.calls[0].gradient
        assert torch.equal(recording.trace.decoder.maps[0].gradient, once[0])
        logits[0, -1, 3].backward()
        torch.testing.assert_close(recording.calls[0].gradient, 2 * once)
    model(ids(1, 5)).logits.sum().backward()  # another run, after the block, adds nothing
    torch.testing.assert_close(recording.calls[0].gradient, 2 * once)
    assert float(once[0, :, -1].abs().max()) > 0


def test_backward_after_the_block_still_arrives() -> None:
    model = tiny("gpt2")
    with av.capture(model, gradients=True) as recording:
        loss = model(ids(1, 5)).logits.square().sum()
    loss.backward()
    assert recording.trace.decoder.maps[1].gradient is not None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_says_so(mode: Any) -> None:
    model = tiny("bert")
    with mode(), av.capture(model, gradients=True) as recording:
        model(ids(1, 5))
    with pytest.raises(av.errors.NotKeptError, match=r"outside torch\.no_grad\(\)"):
        recording.calls[0].gradient  # noqa: B018
    assert recording.trace.encoder.maps[0].gradient is None
    gpt2 = tiny("gpt2")
    with av.capture(gpt2, gradients=True) as recording:
        gpt2.generate(ids(1, 4), max_new_tokens=2, do_sample=False)  # under no_grad by itself
    assert recording.trace.decoder.maps[0].gradient is None


@pytest.mark.parametrize("what", ["bert", "by hand", "direct"])
def test_dropout_is_refused_and_the_run_is_the_plain_one(what: str) -> None:
    model = {
        "bert": lambda: tiny("bert", attention_probs_dropout_prob=0.4),
        "by hand": lambda: built(lambda: ByHand("dropout between"), count=1),
        "direct": lambda: built(lambda: Direct("dropout"), count=1),
    }[what]().train()  # fmt: skip

    def run() -> torch.Tensor:
        torch.manual_seed(3)
        out = model(ids(2, 6))
        hidden: torch.Tensor = out if isinstance(out, torch.Tensor) else out.last_hidden_state
        return hidden

    plain = run()
    with av.capture(model, gradients=True) as recording:
        out = run()
        out.sum().backward()
    assert torch.equal(out, plain)
    with pytest.raises(av.errors.NotKeptError, match=r"dropout was on.*model\.eval\(\)"):
        recording.calls[0].gradient  # noqa: B018


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_is_refused_and_the_run_is_the_plain_one(reentrant: bool) -> None:
    model = tiny("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": reentrant})
    model.train()
    embedded = model.embeddings.word_embeddings(ids(1, 5)).detach().requires_grad_()
    plain = model(inputs_embeds=embedded).last_hidden_state
    with av.capture(model, gradients=True) as recording:
        out = model(inputs_embeds=embedded).last_hidden_state
        out.square().sum().backward()
    assert torch.equal(out, plain)
    with pytest.raises(av.errors.NotKeptError, match="without gradients" if reentrant else "checkpointing_disable"):
        recording.calls[0].gradient  # noqa: B018


def test_a_kernel_whose_mask_no_eager_function_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flash and flex attention have: the map is proved as ever, its gradient refused in words."""
    sdpa = transformers.AttentionInterface()["sdpa"]

    def kernel(module: nn.Module, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        assert mask.dim() == 2
        return sdpa(module, query, key, value, None, **kwargs)

    for registry, function in (("Attention", kernel), ("AttentionMask", lambda *_, **__: torch.ones(1, 5))):
        known = getattr(transformers, f"{registry}Interface")._global_mapping
        monkeypatch.setitem(known, "flat", function)
    model, expected = tiny("llama", "flat"), tiny("llama", "eager")
    plain = model(ids(1, 5)).logits
    with av.capture(model, gradients=True) as recording:
        logits = model(ids(1, 5)).logits
        logits.sum().backward()
    assert torch.equal(logits, plain)
    truth = expected(ids(1, 5), output_attentions=True).attentions[0]
    torch.testing.assert_close(recording.calls[0].weights, truth, atol=2e-5, rtol=0)
    with pytest.raises(av.errors.NotKeptError, match=r"flat has no eager function for this mask.*sdpa"):
        recording.calls[0].gradient  # noqa: B018


def test_an_eager_function_that_disagrees_is_not_run_as_the_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    home = transformers.models.bert.modeling_bert
    eager = home.eager_attention_forward

    def wrong(*args: Any, **kwargs: Any) -> Any:
        out, weights = eager(*args, **kwargs)
        return out * 1.01, weights

    model = tiny("bert")
    plain = model(ids(1, 5)).last_hidden_state
    monkeypatch.setattr(home, "eager_attention_forward", wrong)
    with av.capture(model, gradients=True) as recording:
        out = model(ids(1, 5)).last_hidden_state
        out.sum().backward()
    assert torch.equal(out, plain)
    with pytest.raises(av.errors.NotKeptError, match="another output than the kernel"):
        recording.calls[0].gradient  # noqa: B018


def test_an_eager_function_that_cannot_run_leaves_the_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("not here")

    model, expected = tiny("bert"), tiny("bert", "eager")
    truth = expected(ids(1, 5), output_attentions=True).attentions[0]
    plain = model(ids(1, 5)).last_hidden_state
    monkeypatch.setattr(transformers.models.bert.modeling_bert, "eager_attention_forward", broken)
    with av.capture(model, gradients=True) as recording:
        out = model(ids(1, 5)).last_hidden_state
        out.sum().backward()
    assert torch.equal(out, plain)
    torch.testing.assert_close(recording.calls[0].weights, truth, atol=2e-5, rtol=0)
    with pytest.raises(av.errors.NotKeptError, match="not here"):
        recording.calls[0].gradient  # noqa: B018


def test_the_model_gets_back_what_its_kernel_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that returns something of its own beside the output goes on returning it."""
    returned: list[Any] = []
    attention = transformers.models.bert.modeling_bert.BertSelfAttention

    def told(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        returned.append(result[1])
        return result

    forward = attention.forward
    monkeypatch.setattr(attention, "forward", told)
    model = tiny("bert")
    with av.capture(model, gradients=True):
        model(ids(1, 5)).last_hidden_state.sum().backward()
    assert returned == [None, None]


def test_weights_that_are_not_those_used_have_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager function's output is right, and what it returns as weights is something else."""
    home = transformers.models.bert.modeling_bert
    eager = home.eager_attention_forward

    def odd(*args: Any, **kwargs: Any) -> Any:
        out, weights = eager(*args, **kwargs)
        return out, weights.flip(-1)

    monkeypatch.setattr(home, "eager_attention_forward", odd)
    model, expected = tiny("bert"), tiny("bert", "eager")
    with av.capture(model, gradients=True) as recording:
        model(ids(1, 5)).last_hidden_state.sum().backward()
    monkeypatch.undo()
    truth = expected(ids(1, 5), output_attentions=True).attentions[0]
    torch.testing.assert_close(recording.calls[0].weights, truth, atol=2e-5, rtol=0)
    with pytest.raises(av.errors.NotKeptError, match="not those that it uses"):
        recording.calls[0].gradient  # noqa: B018


def test_the_graph_is_freed_while_the_gradients_stay() -> None:
    model = tiny("bert")
    with av.capture(model, gradients=True) as recording:
        out = model(ids(1, 5)).last_hidden_state
        ref = weakref.ref(out)
        out.sum().backward()
        del out
        gc.collect()
        assert ref() is None
    assert recording.calls[0].gradient is not None
