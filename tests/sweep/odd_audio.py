"""Rows for types that read sound alone, or make it from text. Shaped like ``odd.py``."""

from collections.abc import Callable
from typing import Any, Final

import torch
from transformers.models.bark import BarkSemanticConfig

from tests.sweep.rows import Feed, adding, mels, normal, ones, only, tokens, wave
from tests.sweep.shrink import WIDTH

_MIMI: Final[dict[str, Any]] = {
    "num_filters": 8, "upsample_groups": 64, "codebook_dim": 32, "vector_quantization_hidden_dimension": 32,
    "codebook_size": 64,
}  # fmt: skip
_POCKET: Final[dict[str, Any]] = {"num_filters": 8, "upsample_groups": 64}
_ENCODEC: Final[dict[str, Any]] = {"num_filters": 8, "codebook_dim": WIDTH, "codebook_size": 64}
_DAC: Final[dict[str, Any]] = {
    "encoder_hidden_size": 8, "decoder_hidden_size": 64, "hidden_size": 128, "codebook_size": 64,
}  # fmt: skip
_DIT: Final[dict[str, Any]] = {
    "look_ahead_layers": (1,), "look_backward_layers": (0,), "enc_channels": (32, 32, 32, 32, 96),
}  # fmt: skip


_CLAP: Final = {"patch_embeds_hidden_size": 16, "hidden_size": 128, "num_attention_heads": (2, 4, 4, 4)}
_FASTSPEECH: Final[dict[str, Any]] = {"encoder_linear_units": 96, "decoder_linear_units": 96}


def _inside(part: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{part}.{name}": one for name, one in values.items()}


CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "audio-spectrogram-transformer": {"max_length": 64},
    "clvp_encoder": {"num_attention_heads": 2},  # a head has at least 32
    "clvp": {"text_config.num_attention_heads": 2, "speech_config.num_attention_heads": 2},
    "dots3_note_audio_encoder": {"conv_output_size": 16 * WIDTH, "samples_per_token": 8 * 160},
    "clap_audio_model": _CLAP,
    "csm": _inside("codec_config", _MIMI),
    "dac": _DAC,
    "encodec": _ENCODEC,
    "fastspeech2_conformer": _FASTSPEECH,
    "fastspeech2_conformer_with_hifigan": _inside("model_config", _FASTSPEECH) | {"vocoder_config.model_in_dim": 80},
    "gemma4_audio": {"subsampling_conv_channels": [128, 8]},
    "kyutai_speech_to_text": _inside("codec_config", _MIMI),
    "mimi": _MIMI,
    "mimi_decoder": _MIMI,
    "mimi_encoder": _MIMI,
    "moonshine": {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
    "moshi_depth": {"input_size": WIDTH},
    "muse_spark_audio": {"hidden_sizes": (8, 16, 32, WIDTH), "num_hidden_layers": 4},
    "neucodec": {"quantization_dim": 2 * WIDTH, "encoder_hidden_size": 8},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "musicgen": _inside("audio_encoder", _ENCODEC),
    "musicgen_melody": _inside("audio_encoder", _ENCODEC) | {"chroma_length": 8},
    "pe_audio_encoder": _inside("dac_config", _DAC | {"codebook_dim": 32}),
    "phi4_multimodal_audio": {
        "ext_pw_out_channel": WIDTH, "depthwise_separable_out_channel": WIDTH, "nemo_conv_channels": WIDTH,
    },
    "pocket_tts_audio_tokenizer": _POCKET,
    "pocket_tts_audio_tokenizer_decoder": _POCKET,
    "pocket_tts_audio_tokenizer_encoder": _POCKET,
    "qwen2_5_omni_token2wav": _inside("dit_config", _DIT),
    "univnet": {"model_hidden_channels": 8},
    "qwen2_5_omni_dit": _DIT,
    "vibevoice_acoustic_tokenizer": {"num_filters": 4},
    "vibevoice_acoustic_tokenizer_decoder": {"num_filters": 4},
    "vibevoice_acoustic_tokenizer_encoder": {"num_filters": 4},
    "xcodec": _inside("acoustic_model_config", _DAC) | {"codebook_dim": 192},
    "xcodec2": {"quantization_dim": 2 * WIDTH, "encoder_hidden_size": 8},
}  # fmt: skip

CLASSES: Final[dict[str, str]] = {
    "bark": "BarkSemanticModel",  # the whole has no forward; this part is made of the same layers
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
    "speecht5": "SpeechT5ForSpeechToText",
}

MAKERS: Final[dict[str, Callable[[], Any]]] = {"bark": BarkSemanticConfig}

FEEDS: Final[dict[str, Feed]] = {
    # spectrograms with the frames first
    "audio-spectrogram-transformer": only(input_values=normal(1, 64, 128)),
    "canary": mels(64, 128),
    "cohere_asr": mels(64, 128),
    "granite_speech5_ctc": mels(64, 320),
    "granite_speech5_encoder": mels(64, 320),
    "granite_speech_encoder": only(hidden_states=normal(1, 40, 160)),
    "granite_speech_plus_encoder": only(hidden_states=normal(1, 40, 160)),
    "lasr_ctc": mels(64, 128),
    "lasr_encoder": mels(64, 128),
    "nemotron3_5_asr": mels(128, 80),
    "nemotron3_5_transcribe_asr_audio": mels(64, 128),
    "nemotron3_5_transcribe_audio": mels(64, 128),
    "nemotron3_diarization": mels(64, 128),
    "nemotron3_diarization_audio": mels(64, 128),
    "nemotron_asr_streaming": mels(128, 80),
    "nemotron_asr_streaming_encoder": mels(128, 80),
    "parakeet_ctc": mels(96, 80),
    "parakeet_encoder": mels(96, 80),
    "parakeet_rnnt": mels(96, 80),
    "parakeet_tdt": mels(96, 80),
    "phi4_multimodal_audio": only(hidden_states=normal(1, 96, 80), mask=None),
    "pop2piano": lambda model, made: {
        "input_features": torch.randn(1, 12, WIDTH), "decoder_input_ids": torch.randint(5, 100, (1, 7)),
    },
    "seamless_m4t": only(input_features=normal(1, 40, 160), decoder_input_ids=tokens(1, 7)),
    "seamless_m4t_v2": only(input_features=normal(1, 40, 160), decoder_input_ids=tokens(1, 7)),
    "speech_to_text": mels(64, 80),
    "univnet": mels(16, 100),
    "wav2vec2-bert": mels(40, 160),
    # spectrograms with masks and lengths
    "audioflamingo3_encoder": adding(input_features_mask=ones(1, 512)),
    "clap_audio_model": adding(input_features=normal(1, 1, 64, 64)),
    "fun_asr_nano_encoder": mels(20, 560, input_features_mask=ones(1, 20)),
    "gemma3n_audio": only(
        audio_mel=normal(1, 64, 128), audio_mel_mask=lambda model: torch.zeros(1, 64, dtype=torch.bool)
    ),
    "gemma4_audio": mels(96, 128),
    "inkling_audio": only(audio_input_ids=tokens(1, 6, 80)),
    "qwen2_5_omni_audio_encoder": only(
        input_features=normal(128, 48), feature_lens=lambda model: torch.tensor([48]),
        aftercnn_lens=lambda model: torch.tensor([24]),
    ),
    "qwen3_asr_encoder": only(input_features=normal(1, 128, 100), input_features_mask=ones(1, 100)),
    "qwen3_omni_moe_audio_encoder": only(
        input_features=normal(128, 100), feature_lens=lambda model: torch.tensor([100]),
    ),
    # waves
    "dots3_note_audio_encoder": only(
        input_features=normal(1, 128, 48), chunk_sample_lengths=lambda model: torch.tensor([48 * 160])
    ),
    "dac": wave(4096),
    "encodec": wave(4800),
    "mimi": wave(19200),
    "mimi_encoder": wave(19200),
    "muse_spark_audio": only(input_values=normal(1, 19200)),
    "neucodec": adding(input_values=normal(1, 1, 6400), input_features=normal(1, 20, 160)),
    "pe_audio_encoder": wave(19200),
    "pocket_tts_audio_tokenizer": wave(30720),
    "pocket_tts_audio_tokenizer_encoder": wave(30720),
    "speech-encoder-decoder": lambda model, made: {
        "input_values": torch.randn(1, 4000), "decoder_input_ids": torch.randint(5, 100, (1, 7)),
    },
    "vibevoice_acoustic_tokenizer": wave(6400),
    "vibevoice_acoustic_tokenizer_encoder": only(hidden_states=normal(1, 1, 6400)),
    "xcodec": wave(6400),
    "xcodec2": adding(input_values=normal(1, 1, 6400), input_features=normal(1, 20, 160)),
    # codes and what is made of them
    "csm": only(input_ids=tokens(1, 12, 32)),
    "dia": adding(decoder_input_ids=tokens(1, 7, 9)),
    "dia_decoder": only(input_ids=tokens(1, 7, 9), encoder_hidden_states=normal(1, 12, WIDTH)),
    "fastspeech2_conformer_hifigan": only(spectrogram=normal(1, 12, WIDTH)),
    "kyutai_speech_to_text": only(input_ids=tokens(1, 12, 33)),
    "mimi_decoder": only(latents=normal(1, WIDTH, 12)),
    "moshi_depth": only(input_ids=tokens(1, 8), last_hidden_state=normal(1, 1, WIDTH)),
    "musicgen": adding(decoder_input_ids=tokens(4, 7)),
    "musicgen_decoder": only(input_ids=tokens(4, 12), encoder_hidden_states=normal(1, 9, WIDTH)),
    "musicgen_melody": adding(decoder_input_ids=tokens(4, 7), input_features=normal(1, 8, 12)),
    "musicgen_melody_decoder": only(input_ids=tokens(4, 12), encoder_hidden_states=normal(1, 9, WIDTH)),
    "pocket_tts_audio_tokenizer_decoder": only(latents=normal(1, WIDTH, 4)),
    "qwen2_5_omni_bigvgan": only(mel_spectrogram=normal(1, 80, 12)),
    "qwen2_5_omni_dit": only(
        hidden_states=normal(1, 12, 80), condition_vector=normal(1, 12, 80), speaker_embedding=normal(1, 12, 192),
        quantized_code=tokens(1, 6), time_step=lambda model: torch.tensor(0.5),
    ),
    "qwen2_5_omni_token2wav": only(
        code=tokens(1, 6), conditioning=normal(1, 192), reference_mel=normal(1, 12, 80), num_steps=2,
    ),
    "speecht5": adding(decoder_input_ids=tokens(1, 7)),
    "speecht5_hifigan": only(spectrogram=normal(1, 12, WIDTH)),
    "vibevoice_acoustic_tokenizer_decoder": only(hidden_states=normal(1, WIDTH, 4)),
}  # fmt: skip

NOT_BUILT: Final[dict[str, str]] = {
    "higgs_audio_v2_tokenizer": "its module imports torchaudio, which is not installed here",
}
