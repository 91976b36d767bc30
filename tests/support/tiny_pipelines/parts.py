"""Tokenizers and text encoders at toy size, built without any download."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import PIL.Image
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,"


def letter_tokenizer(*, end: bool = True) -> PreTrainedTokenizerFast:
    """One token a letter, T5 style."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {letter: 3 + i for i, letter in enumerate(LETTERS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    if end:
        tokenizer.post_processor = TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def clip_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows single letters."""
    words = [*LETTERS[:36], *(f"{letter}</w>" for letter in LETTERS[:36])]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {word: index for index, word in enumerate(words)}
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        (Path(folder) / "merges.txt").write_text("")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def t5_encoder() -> T5EncoderModel:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config).eval()


def clip_encoder(width: int = 32) -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        bos_token_id=72,
        eos_token_id=73,
        hidden_size=width,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=1,
        pad_token_id=1,
        vocab_size=80,
        projection_dim=32,
    )
    return CLIPTextModel(config).eval()


def clip_vision(width: int = 4) -> CLIPVisionModel:
    """A CLIP that sees pictures of 4 x 4 pixels."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=4,
        intermediate_size=16,
        patch_size=2,
    )
    return CLIPVisionModel(config).eval()


def clip_image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(crop_size=4, size=4)


def picture(width: int, height: int) -> PIL.Image.Image:
    """A picture with a gradient, so that no two places are alike."""
    return PIL.Image.linear_gradient("L").resize((width, height)).convert("RGB")


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter of the last message of a conversation."""
    tokenizer = letter_tokenizer(end=False)
    tokenizer.chat_template = (
        "{% set last = messages[-1]['content'] %}{{ last if last is string else last[-1]['text'] }}"
    )
    return tokenizer


def language_model(width: int = 16) -> LlamaModel:
    """A causal language model, for the pipelines that read its hidden states: three of them."""
    torch.manual_seed(0)
    config = LlamaConfig(
        bos_token_id=0,
        eos_token_id=2,
        hidden_size=width,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        pad_token_id=1,
        vocab_size=64,
    )
    return LlamaModel(config).eval()
