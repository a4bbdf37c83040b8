"""Folders as a user has them: a tiny model of each kind, saved with the processor that prepares what it reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as t

from tests.capturing import pipes


def _pipeline(build: Callable[[Path], Any]) -> Callable[[Path], list[Any]]:
    def parts(folder: Path) -> list[Any]:
        pipe = build(folder)[0]
        if pipe.processor is not None:
            return [pipe.model, pipe.processor]
        named = (pipe.tokenizer, pipe.feature_extractor, pipe.image_processor)
        return [pipe.model, *(one for one in named if one is not None)]

    return parts


def whisper(_: Path) -> list[Any]:
    config = t.WhisperConfig(
        vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, num_mel_bins=16, max_source_positions=50,
        max_target_positions=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = pipes.made("WhisperForConditionalGeneration", config)
    model.generation_config.suppress_tokens = model.generation_config.begin_suppress_tokens = None
    return [model, t.WhisperFeatureExtractor(feature_size=16, chunk_length=1)]


def clip(folder: Path) -> list[Any]:
    model, tokenizer, reader = _pipeline(pipes.zero_shot_image)(folder)
    return [model, t.CLIPProcessor(reader, tokenizer)]


FOLDERS: dict[str, Callable[[Path], list[Any]]] = {
    "vit": _pipeline(pipes.image_pipe("image-classification", "ViTForImageClassification")),
    "detr": _pipeline(pipes.objects),
    "video": _pipeline(pipes.video),
    "wav2vec2": _pipeline(pipes.audio_classification),
    "wav2vec2 with letters": _pipeline(pipes.speech),
    "whisper": whisper,
    "clip": clip,
    "llava": _pipeline(pipes.image_text),
    "qwen2_audio": _pipeline(pipes.any_to_any),
}


def saved(name: str, folder: Path) -> Path:
    """A folder that holds the model, and all that reads for it."""
    for part in FOLDERS[name](folder):
        part.save_pretrained(folder / "model")
    return folder / "model"
