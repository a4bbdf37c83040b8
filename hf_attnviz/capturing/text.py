"""From a text to its trace in one call: what the command line, the demo and short scripts need."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_attnviz.capturing.long import keep_for
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.reducers import Keep
from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text
from hf_attnviz.trace import Trace


def trace_text(
    target: Any,
    text: str,
    *,
    pair: str | None = None,
    processor: Any = None,
    generate: bool | None = None,
    max_new_tokens: int = 24,
    keep: Keep | None = "maps",
    layers: Sequence[int] | None = None,
    max_memory: int | str | None = None,
) -> Trace:
    """Read ``text`` with a model and give the trace of it.

    Args:
        target: a model, a pipeline, or what :func:`hf_attnviz.load_model` gives.
        text, pair: the text, and the second sentence of a pair.
        processor: the tokenizer; default: the one that ``target`` brings.
        generate: go on with ``generate()`` (greedy); default: where the model can.
        max_new_tokens: how many tokens to generate at most; fewer when the model's positions run out.
        keep: as in :func:`hf_attnviz.capture`; None: maps where those of this text take at most 256 MB, else
            what :func:`hf_attnviz.report` shows of a long text.
        layers, max_memory: as in :func:`hf_attnviz.capture`.

    Raises:
        ArgumentError: no tokenizer, an empty text, or one that is longer than the model reads.
        CaptureError: attention could not be captured and proved.
        MemoryBudgetError: ``max_memory`` did not do.
    """
    first: Keep = "maps" if keep is None else keep
    recording = Recording(target, processor, keep=first, layers=layers, max_memory=max_memory)
    inputs = encode(recording.model, recording.processor, text, pair)
    if keep is None:
        chosen = keep_for(recording.model, int(inputs["input_ids"].shape[1]))
        recording = Recording(target, processor, keep=chosen, layers=layers, max_memory=max_memory)
    with recording, torch.no_grad():
        read(recording.model, inputs, generate=generate, max_new_tokens=max_new_tokens)
    return recording.trace


def read(model: Any, inputs: dict[str, torch.Tensor], *, generate: bool | None = None, max_new_tokens: int = 24) -> Any:
    """Run a model on its inputs, by greedy ``generate()`` where it can, else by one forward; give what it gives."""
    if not (can_generate(model) if generate is None else generate):
        return model(**inputs, **decoder_start(model))
    two_sided = getattr(model.config, "is_encoder_decoder", False) or "input_ids" not in inputs
    prompt = 1 if two_sided else int(inputs["input_ids"].shape[1])
    most = longest(model)
    new = max_new_tokens if most is None else max(1, min(max_new_tokens, most - prompt + 1))
    return model.generate(**inputs, generation_config=_greedy(model, prompt, new))


def can_generate(model: Any) -> bool:
    """Whether the model has a ``generate()`` that works."""
    return bool(getattr(model, "can_generate", lambda: False)())


def encode(model: Any, processor: Any, text: str, pair: str | None = None) -> dict[str, torch.Tensor]:
    """The inputs of a model for one text, or words about why there are none.

    Raises:
        ArgumentError: no tokenizer, an empty text, or one that is longer than the model reads.
    """
    tokenizer = tokenizer_of(processor)
    if tokenizer is None:
        reads = getattr(model, "main_input_name", "input_ids")
        if reads not in ("input_ids", "inputs"):
            raise ArgumentError(
                Text(
                    f"this model came without a tokenizer and reads {reads}, not text; run it inside "
                    "av.capture(model), or give a file to: attnviz doctor MODEL --input FILE",
                    f"此模型没有附带分词器，它读取 {reads}，不是文本；请在 av.capture(model) 内运行它，或给 "
                    "attnviz doctor MODEL --input FILE 一个文件",
                )
            )
        raise ArgumentError(
            Text(
                "this model came without a tokenizer; pass processor=AutoTokenizer.from_pretrained(…)",
                "此模型没有附带分词器；请传入 processor=AutoTokenizer.from_pretrained(…)",
            )
        )
    for one in (text, *([] if pair is None else [pair])):
        if not isinstance(one, str):
            raise ArgumentError(
                Text(
                    f"expected one text, got {type(one).__name__}; read several one after another",
                    f"应为一段文本，得到的是 {type(one).__name__}；多段请逐一读取",
                )
            )
    if not text.strip() or (pair is not None and not pair.strip()):
        raise ArgumentError(Text("the text is empty; expected at least one word", "文本是空的；应至少有一个词"))
    if pair is not None and not _knows_pairs(tokenizer):
        raise ArgumentError(
            Text(
                "this tokenizer knows no pairs: it would read both sentences as one; give one sentence",
                "此分词器不支持句对：它会把两句当作一句读；请只给一句",
            )
        )
    encoded = tokenizer(text, pair, return_tensors="pt") if pair is not None else tokenizer(text, return_tensors="pt")
    length = encoded["input_ids"].shape[1]
    if length == 0:
        raise ArgumentError(
            Text(
                "the tokenizer made no token of this text; expected at least one word",
                "分词器没有从此文本得到任何词元；应至少有一个词",
            )
        )
    most = longest(model, tokenizer)
    if most is not None and length > most:
        raise ArgumentError(
            Text(
                f"the text has {length:,} tokens, this model reads at most {most:,}; shorten it",
                f"文本有 {length:,} 个词元，此模型最多读 {most:,} 个；请缩短它",
            )
        )
    return on_device(encoded, model)


def _knows_pairs(tokenizer: Any) -> bool:
    """Whether anything parts the two sentences of a pair: special tokens between them, or types."""
    added = getattr(tokenizer, "num_special_tokens_to_add", None)
    parted = added is None or added(pair=True) > added(pair=False)
    return parted or "token_type_ids" in getattr(tokenizer, "model_input_names", ())


def tokenizer_of(processor: Any) -> Any:
    """The part of a processor that reads text, or the tokenizer itself; None where there is none."""
    part = getattr(processor, "tokenizer", None)
    return processor if part is None and hasattr(processor, "convert_ids_to_tokens") else part


def on_device(inputs: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Inputs where the model is, and as precise as the model itself."""
    device, dtype = getattr(model, "device", "cpu"), getattr(model, "dtype", None)
    return {
        name: value.to(device, dtype if value.is_floating_point() else None) if torch.is_tensor(value) else value
        for name, value in inputs.items()
    }


def longest(model: Any, processor: Any = None) -> int | None:
    """How many tokens the model reads at most, or None where nothing says so."""
    config = getattr(model, "config", None)
    said = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    said.append(getattr(processor, "model_max_length", None))
    bounds = [int(number) for number in said if isinstance(number, (int, float)) and 0 < number < 1e9]
    return min(bounds, default=None)


def decoder_start(model: Any) -> dict[str, torch.Tensor]:
    """What an encoder-decoder's decoder reads when only the source is given: its start token."""
    config = getattr(model, "config", None)
    reads = "decoder_input_ids" in inspect.signature(model.forward).parameters  # DETR's decoder reads no tokens
    if not getattr(config, "is_encoder_decoder", False) or not reads:
        return {}
    start = getattr(getattr(model, "generation_config", None), "decoder_start_token_id", None)
    start = getattr(config, "decoder_start_token_id", None) if start is None else start
    return {"decoder_input_ids": torch.tensor([[0 if start is None else int(start)]], device=model.device)}


def _greedy(model: Any, read: int, new: int) -> Any:
    """The model's own generation settings, made greedy: its special tokens stay, sampling and lengths go."""
    config = copy.deepcopy(model.generation_config)
    config.update(do_sample=False, num_beams=1, num_return_sequences=1, temperature=None, top_k=None, top_p=None)
    # transformers warns when both lengths are set, and fills in from the model's settings what is left out here
    config.update(**({"max_length": read + new} if config.max_new_tokens is None else {"max_new_tokens": new}))
    return config
