"""Latte at toy size: blocks within a frame, and blocks along time, which stay dense."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import Family
from tiny_pipelines.parts import letter_tokenizer, t5_encoder


def latte() -> diffusers.LattePipeline:
    torch.manual_seed(0)
    transformer = diffusers.LatteTransformer3DModel(
        sample_size=8,
        num_layers=2,
        patch_size=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=32,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=16,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        video_length=2,
    ).eval()
    vae = diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
    ).eval()
    return diffusers.LattePipeline(
        tokenizer=letter_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )


FAMILIES = (
    Family(
        name="latte",
        build=latte,
        layers=2,
        rows=2,
        guidance="one batch",
        call={
            "prompt": "a red circle",
            "negative_prompt": "blurry",
            "height": 16,
            "width": 16,
            "video_length": 2,
            "guidance_scale": 3.0,
            "clean_caption": False,
            "mask_feature": False,  # with it a prompt differs in a batch from one alone
        },
    ),
)
