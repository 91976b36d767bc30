"""Allegro at toy size."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import letter_tokenizer, t5_encoder


def allegro() -> diffusers.AllegroPipeline:
    torch.manual_seed(0)
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=3,
        caption_channels=32,
    ).eval()
    vae = diffusers.AutoencoderKLAllegro(
        in_channels=3,
        out_channels=3,
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()
    return diffusers.AllegroPipeline(
        tokenizer=letter_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )


FAMILIES = (
    Family(
        name="allegro",
        build=allegro,
        layers=2,
        guidance="one batch",
        call=GUIDED | {"num_frames": 12, "guidance_scale": 3.0, "clean_caption": False},
    ),
)
