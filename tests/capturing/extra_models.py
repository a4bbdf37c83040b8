"""Attention written by hand in the ways people write it, and small real tokenizers; nothing here knows the package."""

import math
from collections.abc import Callable
from typing import Any

import tokenizers
import torch
import torch.nn.functional as F
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

HEADS = 4


def _softmax_matmul(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.matmul(s.softmax(-1), v)


def _at_functional(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.softmax(s, dim=-1) @ v


def _torch_softmax_named(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.matmul(input=torch.softmax(s, dim=-1), other=v)


def _module_softmax(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return nn.Softmax(dim=-1)(s).matmul(v)


def _dropout(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.dropout(s.softmax(-1), p, training) @ v


def _cast(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return s.double().softmax(-1, dtype=torch.float64).to(v.dtype) @ v


def _flat_bmm(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.bmm(s.flatten(0, 1).softmax(-1), v.flatten(0, 1)).view(v.shape)


def _softmax_then_view(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    w = F.dropout(s.softmax(-1), p, training)
    return torch.bmm(w.reshape(-1, *w.shape[2:]), v.flatten(0, 1)).view(v.shape)


def _in_place(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    w = s.softmax(-1)
    w.mul_(0.5)
    return w @ v


def _sinks(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    w = torch.cat([s, torch.ones_like(s[..., :1])], -1).softmax(-1)
    return w[..., :-1] @ v


def _scaled_after_dropout(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    w = F.dropout(s.softmax(-1), p, training)
    return (w * torch.linspace(0.5, 2, HEADS).view(1, -1, 1, 1)) @ v


def _transposed(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    w = F.dropout(s.transpose(-1, -2).softmax(-2), p, training)
    return w.transpose(-1, -2) @ v


def _einsum(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.einsum("bhqk,bhkd->bhqd", s.softmax(-1), v)


def _multiply_and_sum(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return (s.softmax(-1)[..., None] * v[:, :, None]).sum(-2)


def _values_on_the_left(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return (v.transpose(-1, -2) @ s.softmax(-1).transpose(-1, -2)).transpose(-1, -2)


def _out_argument(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.matmul(s.softmax(-1), v, out=torch.empty_like(v))


def _exp_by_hand(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    e = torch.exp(s - s.max(-1, keepdim=True).values)
    return F.dropout(e / e.sum(-1, keepdim=True), p, training) @ v


def _masked_exp(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    e = s.exp() * (torch.arange(s.shape[-1]) != 1)
    return e.div(e.sum(dim=-1).unsqueeze(-1) + 1e-9) @ v


def _exp_times_inverse(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    e = s.exp()
    return (e * (1 / e.sum(-1, keepdim=True))) @ v


def _normalized_exp(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.normalize(s.exp(), p=1.0, dim=-1) @ v


def _divided_last(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    e = s.exp()
    return (e @ v) / e.sum(-1, keepdim=True)


def _log_softmax(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.log_softmax(s, dim=-1).exp() @ v


def _logsumexp(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.exp(s - torch.logsumexp(s, -1, keepdim=True)) @ v


def _special(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.special.softmax(s, -1, dtype=torch.float32) @ v


def _masked_after(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    allowed = torch.ones(s.shape[-2:], dtype=torch.bool).tril(-1)
    w = s.masked_fill(~allowed, -torch.inf).softmax(-1, torch.float32).nan_to_num(0.0)
    return torch.where(allowed, w, 0.0).type_as(v) @ v


def _written_into(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    w = F.dropout(s.softmax(-1), p, training)
    w[..., 0] = 0.0
    return w @ v


def _expanded(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    w = s.softmax(-1)[..., None].expand(*s.shape, v.shape[-1])
    return torch.sum(torch.mul(v[:, :, None], w), dim=-2)


def _chunked(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.cat([part @ v for part in s.softmax(-1).chunk(2, dim=-2)], dim=-2)


def _softmin(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.softmin(-s, dim=-1) @ v


def _powers_of_two(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    e = torch.exp2(s)
    return torch.linalg.matmul(e / e.sum(-1, keepdim=True), v)


def _joined_heads(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.cat([F.dropout(part.softmax(-1), p, training) for part in s.chunk(2, dim=1)], dim=1) @ v


def _stacked_heads(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.stack([part.softmax(-1) for part in s.unbind(1)], dim=1) @ v


def _parted_and_joined(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    one, other = F.dropout(s.softmax(-1), p, training).chunk(2, dim=1)
    return torch.cat([other, one], dim=1) @ v


def _filled(s: torch.Tensor, v: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    w = torch.empty_like(s)
    for head in range(s.shape[1]):
        w[:, head] = F.dropout(s[:, head].softmax(-1), p, training)
    return w @ v


Way = Callable[[torch.Tensor, torch.Tensor, float, bool], torch.Tensor]
WAYS: dict[str, Way] = {
    "softmax, matmul": _softmax_matmul,
    "F.softmax, @": _at_functional,
    "torch.softmax, named": _torch_softmax_named,
    "nn.Softmax, .matmul": _module_softmax,
    "dropout between": _dropout,
    "cast between": _cast,
    "bmm of [B*H, Q, K]": _flat_bmm,
    "dropout, then a view": _softmax_then_view,
    "changed in place": _in_place,
    "scaled after dropout": _scaled_after_dropout,
    "transposed after dropout": _transposed,
    "sink column sliced off": _sinks,
    "einsum": _einsum,
    "multiply and sum": _multiply_and_sum,
    "values on the left": _values_on_the_left,
    "out=": _out_argument,
    "exp, sum, division": _exp_by_hand,
    "exp, masked": _masked_exp,
    "exp times the inverse": _exp_times_inverse,
    "exp, normalize": _normalized_exp,
    "exp, divided last": _divided_last,
    "log_softmax, exp": _log_softmax,
    "logsumexp, exp": _logsumexp,
    "torch.special": _special,
    "masked afterwards": _masked_after,
    "written into after dropout": _written_into,
    "multiply and sum, expanded": _expanded,
    "softmin": _softmin,
    "powers of two, linalg.matmul": _powers_of_two,
    "heads joined": _joined_heads,
    "heads stacked": _stacked_heads,
    "heads parted and joined": _parted_and_joined,
    "a buffer filled head by head": _filled,
    "in chunks": _chunked,
}


class ByHand(nn.Module):
    """Self-attention by one of :data:`WAYS`; it keeps the weights that it used, worked out apart, in ``truth``."""

    def __init__(self, way: str, size: int = 32, p: float = 0.3) -> None:
        super().__init__()
        self.way, self.p = way, p
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        batch, length, size = hidden.shape
        q, k, v = self.qkv(hidden).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = 3 * q @ k.transpose(-1, -2) / math.sqrt(size // HEADS)
        out = WAYS[self.way](scores, v, self.p, self.training)
        return self.out(out.transpose(1, 2).reshape(batch, length, size))

    def truth(self, hidden: torch.Tensor) -> torch.Tensor:
        """The weights without dropout, through the identity in place of the values."""
        batch, length, size = hidden.shape
        q, k, _ = self.qkv(hidden).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = 3 * q @ k.transpose(-1, -2) / math.sqrt(size // HEADS)
        return WAYS[self.way](scores, torch.eye(length).expand(batch, HEADS, -1, -1), 0.0, False)


class Blocks(nn.Module):
    """Token ids through ``count`` attention blocks; ``seen`` holds what each block read."""

    def __init__(self, make: Callable[[], nn.Module], count: int = 2, size: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(97, size)
        self.blocks = nn.ModuleList(make() for _ in range(count))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(input_ids)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return hidden


def built(make: Callable[[], nn.Module], count: int = 2) -> Any:
    """A :class:`Blocks` with weights from a fixed seed, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Blocks(make, count).eval()


# ---- tokenizers

CORPUS = [
    "the cat sat on the mat and the dog slept",
    "a small model reads small words, unbelievably small words!",
    "吃 饭 的 时 候 我 们 说 话",
    "我们一起吃饭,然后去看电影",
]


def word_piece() -> Any:
    """A BERT-like tokenizer: WordPiece, pairs, Chinese characters apart."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def byte_level(vocabulary: int = 300) -> Any:
    """A GPT-2-like tokenizer with few merges, so that Chinese and emoji fall apart into bytes."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS[:2], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def unigram() -> Any:
    """A T5-like tokenizer: Unigram pieces with ▁."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def byte_fallback() -> Any:
    """A Llama-like tokenizer: BPE with ▁, unknown characters as <0xE5>."""
    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    for piece in ["▁", "c", "a", "t", "s", "▁c", "at", "▁cat"]:
        vocabulary[piece] = len(vocabulary)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, [("▁", "c"), ("a", "t"), ("▁c", "at")], byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def clip_like() -> Any:
    """A CLIP-like tokenizer: bytes, and </w> at the end of each word."""
    tokenizer = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([*CORPUS[:2], "吃"], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|startoftext|>", eos_token="<|endoftext|>"
    )
