"""Captions, their tokenizer and their frozen text encoder; all made here, nothing is downloaded."""

from __future__ import annotations

import torch
from shapes import BACKGROUND_NAMES, COLOR_NAMES, MOTION_NAMES, MOTIONS, SHAPES, Labels
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

TEXT_DIM = 64
CAPTION_TOKENS = 16


def caption(shape: int, color: int, motion: int, background: int | None = None) -> str:
    """Caption of one clip from its label numbers; without the background when that is None."""
    article = "an" if COLOR_NAMES[color][0] in "aeiou" else "a"
    text = f"{article} {COLOR_NAMES[color]} {SHAPES[shape]} {MOTIONS[MOTION_NAMES[motion]]}"
    return text if background is None else f"{text} on a {BACKGROUND_NAMES[background]} background"


def captions_of(labels: Labels, name_background: Tensor) -> list[str]:
    """Captions of a batch; `name_background` bool `[clips]` says which ones name the background."""
    columns = (labels[name].tolist() for name in ("shape", "color", "motion", "background"))
    rows = zip(*columns, name_background.tolist(), strict=True)
    return [caption(s, c, m, b if named else None) for s, c, m, b, named in rows]


def labels_of(text: str) -> dict[str, int]:
    """Label numbers of a caption that names all four; raises ValueError when one is missing."""
    words = text.lower().split()
    names = {
        "shape": SHAPES,
        "color": COLOR_NAMES,
        "motion": MOTION_NAMES,
        "background": BACKGROUND_NAMES,
    }
    found = {}
    for kind, choices in names.items():
        hits = [number for number, name in enumerate(choices) if name in words]
        if len(hits) != 1:
            raise ValueError(f"Found {text!r}; needed one {kind} of {choices}. Name exactly one.")
        found[kind] = hits[0]
    return found


def vocabulary() -> list[str]:
    """Words by token number; it fits the published tokenizer, so extend it at its end only."""
    words = ["<pad>", "</s>", "<unk>", "a", "an", "the", "and", "on", "of", "in", "with"]
    words += ["video", "background"]
    phrases = (*SHAPES, *COLOR_NAMES, *MOTIONS.values(), *BACKGROUND_NAMES)
    for word in " ".join((*phrases, "spinning slowly two , .")).split():
        if word not in words:
            words.append(word)
    return words


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer that ends every caption with </s>."""
    numbers = {word: number for number, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", numbers["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
        padding_side="right",
    )


def build_text_encoder(seed: int = 0) -> UMT5EncoderModel:
    """Random and frozen: every word keeps its own direction, enough for a small fixed grammar."""
    config = UMT5Config(
        vocab_size=64,
        d_model=TEXT_DIM,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UMT5EncoderModel(config).eval().requires_grad_(False)


@torch.no_grad()
def encode(
    tokenizer: PreTrainedTokenizerFast, text_encoder: UMT5EncoderModel, texts: list[str]
) -> tuple[Tensor, Tensor]:
    """Embeddings `[texts, CAPTION_TOKENS, TEXT_DIM]`, zero on padding as in WanPipeline, and counts."""
    tokens = tokenizer(
        texts, padding="max_length", max_length=CAPTION_TOKENS, truncation=True, return_tensors="pt"
    )
    mask = tokens.attention_mask
    hidden = text_encoder(tokens.input_ids, mask).last_hidden_state
    return hidden * mask[..., None], mask.sum(dim=1)
