"""EasyAnimate at toy size: a block with weights of its own for text, and one without."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import chat_tokenizer, language_model


def easyanimate() -> diffusers.EasyAnimatePipeline:
    torch.manual_seed(0)
    transformer = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        time_embed_dim=4,
        text_embed_dim=16,
        num_layers=2,
        mmdit_layers=1,
        sample_width=8,
        sample_height=8,
    ).eval()
    vae = diffusers.AutoencoderKLMagvit(
        in_channels=3,
        out_channels=3,
        down_block_types=(
            "SpatialDownBlock3D",
            "SpatialTemporalDownBlock3D",
            "SpatialTemporalDownBlock3D",
            "SpatialTemporalDownBlock3D",
        ),
        up_block_types=(
            "SpatialUpBlock3D",
            "SpatialTemporalUpBlock3D",
            "SpatialTemporalUpBlock3D",
            "SpatialTemporalUpBlock3D",
        ),
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    ).eval()
    return diffusers.EasyAnimatePipeline(
        vae=vae,
        text_encoder=language_model(),
        tokenizer=chat_tokenizer(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


_CALL = {name: value for name, value in GUIDED.items() if name != "max_sequence_length"}

FAMILIES = (
    Family(
        name="easyanimate",
        build=easyanimate,
        layers=2,
        text=256,
        guidance="one batch",
        call=_CALL | {"height": 240, "width": 240, "guidance_scale": 3.0},
    ),
)
