"""A tiny random pipeline for every task: models from configs, tokenizers and processors made here; no hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as t
from PIL import Image

from tests.capturing.extra_models import byte_level, clip_like, word_piece
from tests.models import tiny

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
GREEDY = {"do_sample": False, "max_new_tokens": 3}
BOX = {"height": 32, "width": 32}
Asked = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""A pipeline, what it is asked, and with which options."""


def drawn(model: Any, seed: int = 0) -> Any:
    """The model with weights from a seed, attention far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                size = 1.5 * parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return model.eval()


def made(kind: str, config: Any) -> Any:
    return drawn(getattr(t, kind)._from_config(config))


def photo(rows: int = 40, columns: int = 56, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (rows, columns, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sound(seconds: float = 0.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(16_000 * seconds)).astype(np.float32)


def pipe(task: str, model: Any, **parts: Any) -> Any:
    return t.pipeline(task, model=model, device="cpu", **parts)


def bert(kind: str, tokenizer: Any, **options: Any) -> Any:
    return made(kind, t.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SIZE, **options))


def vit_parts() -> dict[str, Any]:
    return {"image_processor": t.ViTImageProcessorPil(size=BOX)}


VIT = {"image_size": 32, "patch_size": 8} | SIZE


def wave_reader() -> Any:
    return t.Wav2Vec2FeatureExtractor(return_attention_mask=True)


def wav2vec2(kind: str, **options: Any) -> Any:
    return made(kind, t.Wav2Vec2Config(
        conv_dim=(16,) * 3, conv_kernel=(10, 8, 4), conv_stride=(5, 8, 4), num_feat_extract_layers=3,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
        do_stable_layer_norm=True, **SIZE, **options,
    ))  # fmt: skip


def text_pipe(task: str, kind: str, asked: Any, **options: Any) -> Callable[[Path], Asked]:
    def build(_: Path) -> Asked:
        tokenizer = word_piece()
        return pipe(task, bert(kind, tokenizer), tokenizer=tokenizer), (asked,), options

    return build


def text_generation(_: Path) -> Asked:
    tokenizer = byte_level()
    target = pipe("text-generation", tiny("gpt2", vocab_size=len(tokenizer)), tokenizer=tokenizer)
    return target, ("the cat",), {"max_new_tokens": 4, "do_sample": False}


def zero_shot(_: Path) -> Asked:
    tokenizer = word_piece()
    tokenizer.model_max_length = 64
    names = {"contradiction": 0, "entailment": 1}
    model = bert("BertForSequenceClassification", tokenizer, num_labels=2, label2id=names)
    target = pipe("zero-shot-classification", model, tokenizer=tokenizer)
    return target, ("a small dog",), {"candidate_labels": ["cat", "dog", "words"]}


def table(folder: Path) -> Asked:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]", "cat", "dog", "name", "age", "how", "old", "3"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    tokenizer = t.TapasTokenizer(str(vocabulary))
    config = t.TapasConfig(vocab_size=len(words), max_position_embeddings=64, **SIZE)
    target = pipe("table-question-answering", made("TapasForQuestionAnswering", config), tokenizer=tokenizer)
    return target, ({"name": ["cat", "dog"], "age": ["3", "old"]}, "how old cat"), {}


def document(_: Path) -> Asked:
    tokenizer = word_piece()
    config = t.LayoutLMConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SIZE)
    target = pipe("document-question-answering", made("LayoutLMForQuestionAnswering", config), tokenizer=tokenizer)
    words = ["the", "cat", "sat", "on", "the", "mat", "and", "the", "dog", "slept"]
    boxes = [(word, [10 * n, 10, 10 * n + 8, 20]) for n, word in enumerate(words)]
    return target, (), {"image": None, "question": "the dog", "word_boxes": boxes, "max_seq_len": 12, "doc_stride": 2}


def image_pipe(task: str, kind: str, **options: Any) -> Callable[[Path], Asked]:
    return lambda _: (pipe(task, made(kind, t.ViTConfig(**VIT, **options)), **vit_parts()), (photo(),), {})


def detr(kind: str) -> Any:
    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    return made(kind, t.DetrConfig(
        backbone_config=backbone, d_model=32, encoder_ffn_dim=37, decoder_ffn_dim=37, num_queries=6,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
    ))  # fmt: skip


def objects(_: Path) -> Asked:
    reader = t.DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})
    return pipe("object-detection", detr("DetrForObjectDetection"), image_processor=reader), (photo(),), {
        "threshold": 0.0
    }  # fmt: skip


def segmentation(_: Path) -> Asked:
    config = t.SegformerConfig(
        hidden_sizes=[8, 16], num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[2, 4], mlp_ratios=[2, 2], decoder_hidden_size=16,
    )  # fmt: skip
    reader = t.SegformerImageProcessorPil(size=BOX)
    model = made("SegformerForSemanticSegmentation", config)
    return pipe("image-segmentation", model, image_processor=reader), (photo(),), {}


def depth(_: Path) -> Asked:
    config = t.DPTConfig(
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        **VIT | {"num_hidden_layers": 4},
    )
    reader = t.DPTImageProcessorPil(size=BOX)
    return pipe("depth-estimation", made("DPTForDepthEstimation", config), image_processor=reader), (photo(),), {}


def clip(kind: str, config: str) -> tuple[Any, Any]:
    tokenizer = clip_like()
    tokenizer.pad_token = tokenizer.eos_token
    text = SIZE | {"vocab_size": len(tokenizer), "max_position_embeddings": 32,
                   "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
                   "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    built = getattr(t, config)(text_config=text, vision_config=VIT, projection_dim=32)
    return made(kind, built), tokenizer


def zero_shot_image(_: Path) -> Asked:
    model, tokenizer = clip("CLIPModel", "CLIPConfig")
    reader = t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=BOX)
    target = pipe("zero-shot-image-classification", model, tokenizer=tokenizer, image_processor=reader)
    return target, (photo(),), {"candidate_labels": ["cat", "small dog", "mat"]}


def zero_shot_objects(_: Path) -> Asked:
    model, tokenizer = clip("OwlViTForObjectDetection", "OwlViTConfig")
    tokenizer.model_max_length = 16
    reader = t.OwlViTImageProcessorPil(size=BOX, crop_size=BOX)
    target = pipe("zero-shot-object-detection", model, tokenizer=tokenizer, image_processor=reader)
    return target, (photo(),), {"candidate_labels": ["cat", "small dog"], "threshold": 0.0}


def zero_shot_audio(_: Path) -> Asked:
    tokenizer = byte_level()
    text = SIZE | {"vocab_size": len(tokenizer), "max_position_embeddings": 66, "pad_token_id": 0}
    ears = {"spec_size": 64, "patch_size": 4, "patch_stride": [4, 4], "num_mel_bins": 8, "window_size": 2,
            "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 4], "hidden_size": 32,
            "num_hidden_layers": 2, "fusion_num_hidden_layers": 2, "enable_fusion": False}  # fmt: skip
    model = made("ClapModel", t.ClapConfig(text_config=text, audio_config=ears, projection_dim=16))
    reader = t.ClapFeatureExtractor(
        feature_size=8, sampling_rate=16_000, hop_length=160, max_length_s=1, fft_window_size=400, frequency_min=300,
        frequency_max=8000, truncation="rand_trunc",
    )  # fmt: skip
    target = pipe("zero-shot-audio-classification", model, tokenizer=tokenizer, feature_extractor=reader)
    return target, (sound(),), {"candidate_labels": ["cat", "small dog"]}


def audio_classification(_: Path) -> Asked:
    target = pipe("audio-classification", wav2vec2("Wav2Vec2ForSequenceClassification", num_labels=3),
                  feature_extractor=wave_reader())  # fmt: skip
    return target, (sound(),), {}


def speech(folder: Path) -> Asked:
    letters = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4} | {c: n + 5 for n, c in enumerate("acdegmost")}
    (folder / "letters.json").write_text(json.dumps(letters))
    tokenizer = t.Wav2Vec2CTCTokenizer(str(folder / "letters.json"))
    model = wav2vec2("Wav2Vec2ForCTC", vocab_size=len(letters), pad_token_id=0)
    target = pipe("automatic-speech-recognition", model, tokenizer=tokenizer, feature_extractor=wave_reader())
    return target, (sound(2.5),), {"chunk_length_s": 1.0, "stride_length_s": 0.2}


def speaking(folder: Path) -> Asked:
    letters = {"<pad>": 0, "<unk>": 1} | {c: n + 2 for n, c in enumerate("acdeghmost ")}
    (folder / "letters.json").write_text(json.dumps(letters))
    tokenizer = t.VitsTokenizer(str(folder / "letters.json"), phonemize=False)
    config = t.VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24, flow_size=16,
        spectrogram_bins=9, upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], duration_predictor_filter_channels=16,
        prior_encoder_num_wavenet_layers=2, posterior_encoder_num_wavenet_layers=2,
        use_stochastic_duration_prediction=False,
    )  # fmt: skip
    return pipe("text-to-audio", made("VitsModel", config), tokenizer=tokenizer), ("the cat sat",), {}


class Masks(t.MaskGenerationPipeline):
    """The pipeline up to its last step, which drops masks that overlap and does that with torchvision."""

    def postprocess(self, model_outputs: Any, **_: Any) -> Any:
        return list(model_outputs)


def masks(_: Path) -> Asked:
    eye = VIT | {"output_channels": 16, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 37, "num_pos_feats": 8}
    config = t.SamConfig(
        vision_config=eye,
        prompt_encoder_config={"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
                             "iou_head_hidden_dim": 16},
    )  # fmt: skip
    reader = t.SamImageProcessorPil(size={"longest_edge": 32}, pad_size=BOX, mask_size={"longest_edge": 16},
                                    mask_pad_size={"height": 16, "width": 16})  # fmt: skip
    target = pipe("mask-generation", made("SamModel", config), image_processor=reader, pipeline_class=Masks)
    options = {"points_per_batch": 3, "points_per_crop": 2, "pred_iou_thresh": -99.0, "stability_score_thresh": -1.0}
    return target, (photo(),), options


def keypoints(_: Path) -> Asked:
    finder = t.SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 8, 8], decoder_hidden_size=16, keypoint_decoder_dim=65, descriptor_decoder_dim=32,
        keypoint_threshold=0.0, max_keypoints=12,
    )  # fmt: skip
    config = t.SuperGlueConfig(
        keypoint_detector_config=finder, hidden_size=32, keypoint_encoder_sizes=[16, 32],
        gnn_layers_types=["self", "cross"], num_attention_heads=4, sinkhorn_iterations=2,
    )  # fmt: skip
    reader = t.SuperGlueImageProcessorPil(size={"height": 48, "width": 64})
    target = pipe("keypoint-matching", made("SuperGlueForKeypointMatching", config), image_processor=reader)
    return target, ([photo(), photo(seed=1)],), {}


def decision(_: Path) -> Asked:
    tokenizer = byte_level()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    model = tiny("gpt2", vocab_size=len(tokenizer) + 8, n_positions=1024)
    target = pipe("decision", model, tokenizer=tokenizer)
    questions = {
        "size": {"type": "score", "instructions": "small?", "criteria": ["no", "yes"]},
        "who": {"type": "choice", "instructions": "who?", "criteria": {"cat": "a cat", "dog": "a dog"}},
    }
    return target, ({"state": "the cat sat", "questions": questions},), {}


def image_text(_: Path) -> Asked:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    mark = tokenizer.convert_tokens_to_ids("<image>")
    config = t.LlavaConfig(
        text_config=t.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, bos_token_id=0, eos_token_id=0,
                                  pad_token_id=0, **SIZE),
        vision_config=t.CLIPVisionConfig(**VIT), image_token_index=mark, vision_feature_layer=-1,
    )  # fmt: skip
    processor = t.LlavaProcessor(
        t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=BOX), tokenizer, patch_size=8,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    target = pipe("image-text-to-text", made("LlavaForConditionalGeneration", config), processor=processor)
    return target, (), {"images": [photo()], "text": "<image> the cat", "generate_kwargs": GREEDY}


def any_to_any(_: Path) -> Asked:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]})
    config = t.Qwen2AudioConfig(
        text_config=t.Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, bos_token_id=0, eos_token_id=0,
                                  pad_token_id=0, **SIZE),
        audio_config={"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 37,
                      "num_mel_bins": 8, "max_source_positions": 1500},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )  # fmt: skip
    processor = t.Qwen2AudioProcessor(t.WhisperFeatureExtractor(feature_size=8), tokenizer)
    target = pipe("any-to-any", made("Qwen2AudioForConditionalGeneration", config), processor=processor)
    return (
        target,
        (),
        {"text": "<|audio_bos|><|AUDIO|><|audio_eos|> the cat", "audio": sound(), "generate_kwargs": GREEDY},
    )


def video(folder: Path) -> Asked:
    import av as pyav

    path = folder / "film.mp4"
    with pyav.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for n in range(8):
            frame = pyav.VideoFrame.from_image(photo(32, 48, seed=n))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    config = t.VideoMAEConfig(num_frames=4, tubelet_size=2, num_labels=3, **VIT)
    reader = t.VideoMAEImageProcessorPil(size={"shortest_edge": 32}, crop_size=BOX)
    target = pipe("video-classification", made("VideoMAEForVideoClassification", config), image_processor=reader)
    return target, (str(path),), {}


PIPES: dict[str, Callable[[Path], Asked]] = {
    "audio-classification": audio_classification,
    "automatic-speech-recognition": speech,
    "text-to-audio": speaking,
    "feature-extraction": text_pipe("feature-extraction", "BertModel", "the cat sat"),
    "text-classification": text_pipe(
        "text-classification", "BertForSequenceClassification", {"text": "the cat", "text_pair": "a small dog"}
    ),
    "token-classification": text_pipe("token-classification", "BertForTokenClassification", "the cat sat"),
    "table-question-answering": table,
    "document-question-answering": document,
    "fill-mask": text_pipe("fill-mask", "BertForMaskedLM", "the [MASK] sat"),
    "text-generation": text_generation,
    "zero-shot-classification": zero_shot,
    "zero-shot-image-classification": zero_shot_image,
    "zero-shot-audio-classification": zero_shot_audio,
    "image-classification": image_pipe("image-classification", "ViTForImageClassification", num_labels=3),
    "image-feature-extraction": image_pipe("image-feature-extraction", "ViTModel"),
    "image-segmentation": segmentation,
    "image-text-to-text": image_text,
    "object-detection": objects,
    "zero-shot-object-detection": zero_shot_objects,
    "decision": decision,
    "depth-estimation": depth,
    "video-classification": video,
    "mask-generation": masks,
    "keypoint-matching": keypoints,
    "any-to-any": any_to_any,
}
