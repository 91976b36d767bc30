"""Autoencoders and text encoders of the image pipelines at toy size."""

from __future__ import annotations

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection


def image_vae(channels: int, *, levels: int = 1, **config: object) -> diffusers.AutoencoderKL:
    """An autoencoder of 2 ** (levels - 1) pixels a latent."""
    torch.manual_seed(0)
    settings = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": (4,) * levels,
        "layers_per_block": 1,
        "latent_channels": channels,
        "norm_num_groups": 1,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "shift_factor": 0.06,
        "scaling_factor": 1.5,
    }
    return diffusers.AutoencoderKL(**(settings | config)).eval()


def make_attention_count(model: torch.nn.Module, factor: float) -> None:
    """Raise what self-attention adds: beside loud noise, small random weights would not be seen."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "attn1.to_out" in name or "attn.to_out" in name:
                weight.mul_(factor)


def projected_clip_encoder(width: int = 32) -> CLIPTextModelWithProjection:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        bos_token_id=72,
        eos_token_id=73,
        hidden_size=width,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        pad_token_id=1,
        vocab_size=80,
        projection_dim=width,
    )
    return CLIPTextModelWithProjection(config).eval()
