"""Bad input: an error that says what was expected, what came, what to do; and nothing is lost or silently empty."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import hf_attnviz as av
from tests.capturing.extra_models import ByHand, built
from tests.models import ENDS, ids, padded, tiny


def test_a_model_with_no_attention() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    plain = model(torch.ones(1, 4))
    with pytest.raises(av.errors.NothingCapturedError, match=r"Sequential.*no attention"), av.capture(model):
        assert torch.equal(model(torch.ones(1, 4)), plain)
    config = transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=97, state_size=4, **ENDS)
    mamba = transformers.MambaModel(config).eval()
    with pytest.raises(av.errors.NothingCapturedError, match="no attention"), av.capture(mamba):
        mamba(ids(1, 4))


def test_a_block_in_which_the_model_never_ran() -> None:
    with av.capture(tiny("bert")) as recording:
        pass
    assert recording.traces == []
    with pytest.raises(av.errors.CaptureError, match=r"there are 0.*run the model inside the block"):
        recording.trace  # noqa: B018


@pytest.mark.parametrize("way", ["parts", "forward", "method"])
def test_a_model_whose_parts_ran_without_it_is_not_silently_empty(way: str) -> None:
    """model.encoder(x), model.forward(x), clip.get_image_features(x): attention ran, and none would be recorded."""
    model = tiny("gpt2")
    if way == "method":
        size = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = transformers.CLIPConfig(
            text_config=size | {"vocab_size": 97, "max_position_embeddings": 16} | ENDS,
            vision_config=size | {"image_size": 8, "patch_size": 4},
        )
        model = transformers.CLIPModel(config).eval()
    recording: Any = None
    try:
        with torch.no_grad(), av.capture(model) as recording:
            if way == "parts":
                model.transformer(ids(1, 4))
            elif way == "forward":
                model.forward(ids(1, 4))
            else:
                model.get_image_features(torch.randn(1, 3, 8, 8))
    except av.errors.CaptureError as error:
        assert "forward" in str(error)
    else:
        assert len(recording.calls) == 2


def test_more_than_one_trace() -> None:
    model = tiny("bert")
    with av.capture(model) as recording:
        model(ids(3, 4))
    with pytest.raises(av.errors.CaptureError, match=r"there are 3.*recording\.traces"):
        recording.trace  # noqa: B018


@pytest.mark.parametrize("target", [None, "bert-base-uncased", 3, object(), [1]])
def test_a_target_that_is_no_model(target: Any) -> None:
    with pytest.raises(av.errors.ArgumentError, match=type(target).__name__):
        av.capture(target)


@pytest.mark.parametrize("layers", [[2], [-1], [0, 7], [], range(3)])
def test_a_layer_that_does_not_exist(layers: Any) -> None:
    with pytest.raises(av.errors.UnknownNameError, match="0 to 1"):
        av.capture(tiny("gpt2"), layers=layers)


def test_layers_of_a_model_without_blocks() -> None:
    with pytest.raises(av.errors.UnknownNameError, match="no list of layers"):
        av.capture(ByHand("einsum"), layers=[0])


def test_a_layer_of_only_one_stack() -> None:
    """BART here has three encoder and two decoder layers: layer 2 is the encoder's alone."""
    model = tiny("bart")
    with av.capture(model, layers=[2]) as recording:
        model(input_ids=ids(1, 5), decoder_input_ids=ids(1, 4))
    assert set(recording.trace.stacks) == {"encoder"}
    assert recording.trace.encoder.layers == (2,)


@pytest.mark.parametrize("keep", ["map", "everything", ["maps", "nothing"]])
def test_an_unknown_name(keep: Any) -> None:
    with pytest.raises(av.errors.UnknownNameError, match="known: maps, statistics, topk"):
        av.capture(tiny("gpt2"), keep=keep)


def test_arguments_that_contradict() -> None:
    model = tiny("gpt2")
    with pytest.raises(av.errors.ArgumentError, match="nothing to keep"):
        av.capture(model, keep=[])
    with pytest.raises(av.errors.ArgumentError, match="twice"):
        av.capture(model, keep=["maps", "maps"])
    with pytest.raises(av.errors.ArgumentError, match="twice"):
        av.capture(model, keep=["maps", av.Rows([0])])
    with pytest.raises(av.errors.ArgumentError, match="queries"):
        av.capture(model, keep="vectors", queries=[0])
    with pytest.raises(av.errors.ArgumentError, match="last=0"):
        av.attach(model, last=0)
    with pytest.raises(av.errors.ArgumentError, match="at least one"):
        av.capture(model, queries=[])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["torch.compile", "part", "in place", "forward", "script", "pipeline"])
def test_a_model_compiled_before_capture(how: str) -> None:
    model: Any = tiny("gpt2")
    name = "compiled"
    if how in ("torch.compile", "pipeline"):
        model = torch.compile(model, backend="eager")
    elif how == "part":
        model.transformer.h[1] = torch.compile(model.transformer.h[1], backend="eager")
        name = r"transformer\.h\.1"
    elif how == "in place":
        model.transformer.h[0].attn.compile(backend="eager")
        name = r"transformer\.h\.0\.attn"
    elif how == "forward":
        model.forward = torch.compile(model.forward, backend="eager")
    else:
        model = nn.Sequential(torch.jit.trace(nn.Linear(3, 3), torch.ones(1, 3), check_trace=False))
        name = "0"
    if how == "pipeline":
        holder = type("Pipeline", (), {})()
        holder.model = model
        model = holder
    with pytest.raises(av.errors.CaptureError, match=f"{name}.*compiled"):
        av.capture(model)


def test_opening_twice() -> None:
    recording = av.attach(tiny("gpt2"))
    try:
        with pytest.raises(av.errors.CaptureError, match="open already"):
            recording.open()
    finally:
        recording.detach()


def test_what_was_not_kept_names_the_keep_that_gives_it() -> None:
    model = tiny("gpt2")
    with av.capture(model, keep="vectors") as recording:
        model(ids(1, 4))
    with pytest.raises(av.errors.NotKeptError, match=r"keep=.maps."):
        recording.calls[0].weights  # noqa: B018
    with pytest.raises(av.errors.NotKeptError, match=r"keep=.maps."):
        recording.traces  # noqa: B018
    with av.capture(model) as recording:
        model(ids(1, 4))
    with pytest.raises(av.errors.NotKeptError, match=r"av\.Vectors\(\)"):
        recording.calls[0].query  # noqa: B018
    by_hand = built(lambda: ByHand("F.softmax, @"))
    with av.capture(by_hand, keep=["maps", "vectors"]) as recording:
        by_hand(ids(1, 4))
    with pytest.raises(av.errors.NotKeptError, match=r"blocks\.0 computes its attention by hand"):
        recording.calls[0].query  # noqa: B018


def test_unknown_stacks_layers_and_heads() -> None:
    model = tiny("bart")
    with av.capture(model) as recording:
        model(input_ids=ids(1, 5), decoder_input_ids=ids(1, 4))
    trace = recording.trace
    with pytest.raises(av.errors.UnknownStackError, match="encoder, decoder, cross"):
        trace.vision  # noqa: B018
    assert not hasattr(trace, "vision")
    with pytest.raises(av.errors.UnknownStackError, match=r"choose one.*encoder, decoder, cross"):
        trace.stack()
    with pytest.raises(av.errors.UnknownNameError, match="no layer 9; it has: 0, 1"):
        trace.decoder.layer(9)
    with pytest.raises(av.errors.UnknownNameError, match="heads 0 to 1, not 2"):
        trace.decoder.head(0, 2)
    with pytest.raises(av.errors.NotKeptError, match="cross-attention"):
        trace.cross.whole()


def test_rows_beyond_the_sequence_are_not_made_up() -> None:
    model = tiny("bert")
    with av.capture(model, queries=[0, 50]) as recording:
        model(**padded([6, 3], "right"))
    assert [t.encoder.maps[0].positions for t in recording.traces] == [(0,), (0,)]
    with av.capture(model, queries=[4, -1]) as recording:
        model(**padded([6, 3], "right"))
    assert [t.encoder.maps[0].positions for t in recording.traces] == [(4, 5), (2,)]


def test_attention_in_a_thread_of_the_models_own_is_not_missed_in_silence() -> None:
    class Threaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny("bert", num_hidden_layers=1)
            self.attention = ByHand("F.softmax, @")

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            with ThreadPoolExecutor(1) as pool, torch.no_grad():
                hidden = pool.submit(lambda: self.inner(input_ids).last_hidden_state).result()
            out: torch.Tensor = self.attention(hidden)
            return out

    model = Threaded().eval()
    try:
        with av.capture(model) as recording:
            model(ids(1, 4))
    except av.errors.CaptureError:
        return
    assert len(recording.calls) == 2


def test_a_compiled_function_inside_a_plain_model_is_refused() -> None:
    """And never disturbed: the compiler traces our observers when it meets them, and must not stumble over them."""
    model = built(lambda: ByHand("F.softmax, @"))
    compiled = torch.compile(model.blocks[0].forward, backend="eager")

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.model.blocks[1](compiled(self.model.embedding(input_ids)))
            return out

    mixed = Mixed().eval()
    with torch.no_grad():
        plain = mixed(ids(1, 4))
        recording = av.attach(mixed)
        try:
            assert torch.equal(mixed(ids(1, 4)), plain)
        finally:
            recording.detach()
        assert torch.equal(mixed(ids(1, 4)), plain)
    with pytest.raises(av.errors.CaptureError, match="compiled"):
        recording.check()
    with pytest.raises(av.errors.CaptureError, match="compiled"):
        recording.traces  # noqa: B018
