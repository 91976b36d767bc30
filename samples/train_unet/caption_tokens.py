"""The CLIP tokenizer and the frozen text encoder of shapes-unet; both made here, nothing downloaded."""

from __future__ import annotations

import string

import torch
from pictures import every_caption
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_DIM = 64
CAPTION_TOKENS = 16
MARKS = ("<|startoftext|>", "<|endoftext|>")


def pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-pair encoding in which every word of a caption is one token.

    A word grows from its first letter; other words stay single letters. Longer words come first:
    no merge of a shorter one then breaks them (the test of the model folder checks it).
    """
    words = sorted({word for text in every_caption() for word in text.split()})
    merges: list[tuple[str, str]] = []
    for word in sorted(words, key=lambda word: (-len(word), word)):
        letters = [*word[:-1], f"{word[-1]}</w>"]
        for end in range(1, len(letters)):
            pair = ("".join(letters[:end]), letters[end])
            if pair not in merges:
                merges.append(pair)
    letters = [letter + end for end in ("", "</w>") for letter in string.ascii_lowercase]
    names = [*MARKS, *letters, *("".join(pair) for pair in merges)]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}, merges


def build_tokenizer() -> CLIPTokenizer:
    """The class that Stable Diffusion has, with a small vocabulary of its own."""
    vocabulary, merges = pieces()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CAPTION_TOKENS)


def build_text_encoder(seed: int = 0) -> CLIPTextModel:
    """Random and frozen: every word keeps its own direction, enough for a small fixed grammar."""
    vocabulary, _ = pieces()
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=TEXT_DIM,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CAPTION_TOKENS,
        projection_dim=TEXT_DIM,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPTextModel(config).eval().requires_grad_(False)


@torch.no_grad()
def encode(texts: list[str]) -> Tensor:
    """Embeddings `[texts, CAPTION_TOKENS, TEXT_DIM]`, as StableDiffusionPipeline computes them."""
    tokens = build_tokenizer()(
        texts, padding="max_length", max_length=CAPTION_TOKENS, truncation=True, return_tensors="pt"
    )
    embeddings: Tensor = build_text_encoder()(tokens.input_ids).last_hidden_state
    return embeddings
