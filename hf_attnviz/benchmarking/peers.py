"""Other tools, each used as its documentation says to get the attention of all layers.

Under sdpa none of them is given weights, so each works on the model's eager twin: nnsight and captum read what the
attention modules hand out, TransformerLens brings a bridge of its own. Each works on a model of its own, for what they
leave on it must not slow the others. Models are built here; nothing is downloaded.
"""

import importlib
import tempfile
from typing import Any

import torch

from hf_attnviz.benchmarking.beds import Bed
from hf_attnviz.benchmarking.given import NotThereError, Run
from hf_attnviz.benchmarking.shapes import build, eager_of
from hf_attnviz.language import Text


def nnsight(bed: Bed) -> Run:
    """``NNsight(model).trace(…)``, and the weights among the outputs of each attention module."""
    wrapped = _package("nnsight").NNsight(eager_of(bed.model))
    ids = bed.ids

    def run() -> tuple[torch.Tensor, Any]:
        maps: Any = []
        output: Any = None
        with wrapped.trace(input_ids=ids):
            maps = list().save()  # type: ignore[attr-defined]  # noqa: C408 - a list of nnsight's
            for block in wrapped.h:
                maps.append(block.attn.output[1])
            output = wrapped.output.last_hidden_state.save()
        return output, maps

    return run


def captum(bed: Bed) -> Run:
    """``LayerActivation`` of all attention modules."""
    attributions = _package("captum.attr")
    model = eager_of(bed.model)
    output: list[torch.Tensor] = []

    def forward(ids: torch.Tensor) -> torch.Tensor:
        output[:] = [model(ids).last_hidden_state]
        return output[0]

    activation = attributions.LayerActivation(forward, [block.attn for block in model.h])

    def run() -> tuple[torch.Tensor, Any]:
        kept = activation.attribute(bed.ids)
        return output.pop(), [weights for _, weights in kept]

    return run


def transformer_lens(bed: Bed) -> Run:
    """``TransformerBridge.boot_transformers(…)``, ``run_with_cache`` and ``hook_pattern`` of all layers."""
    bridges = _package("transformer_lens.model_bridge")
    # It takes models with a head only, and changes the one that it is given.
    model = build(bed.shape, seed=bed.seed, positions=bed.shape.tokens, head=True, device=bed.device)
    model.transformer.load_state_dict(bed.model.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
        bridge = bridges.TransformerBridge.boot_transformers(
            folder, hf_model=model, device=bed.device, dtype=model.dtype
        )
    output: list[torch.Tensor] = []
    model.transformer.ln_f.register_forward_hook(lambda module, given, gave: output.append(gave))

    def run() -> tuple[torch.Tensor, Any]:
        _, cache = bridge.run_with_cache(bed.ids, names_filter=lambda name: name.endswith("hook_pattern"))
        return output.pop(), cache

    return run


def _package(name: str) -> Any:
    """A package that may not be installed."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        if missing.name is None or missing.name.split(".")[0] != name.split(".")[0]:
            raise
        package = name.split(".")[0]
        raise NotThereError(Text(f"not installed: {package}", f"未安装 {package}")) from missing


def _tokenizer() -> Any:
    """A tokenizer of single words, because the bridge asks for one."""
    import tokenizers
    import transformers

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "w": 3}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="w"
    )
