"""HunyuanVideo at toy size."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import TEXT, VIDEO, Family
from tiny_pipelines.parts import clip_encoder, clip_tokenizer, language_model, letter_tokenizer


def hunyuan_vae() -> diffusers.AutoencoderKLHunyuanVideo:
    torch.manual_seed(0)
    blocks = ("HunyuanVideoDownBlock3D",) * 4
    return diffusers.AutoencoderKLHunyuanVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=blocks,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        act_fn="silu",
        norm_num_groups=4,
        scaling_factor=0.48,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=True,
    )


def hunyuan_video() -> diffusers.HunyuanVideoPipeline:
    torch.manual_seed(0)
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    ).eval()
    return diffusers.HunyuanVideoPipeline(
        transformer=transformer,
        vae=hunyuan_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=language_model(),
        text_encoder_2=clip_encoder(8),
        tokenizer=letter_tokenizer(end=False),
        tokenizer_2=clip_tokenizer(),
    )


FAMILIES = (
    Family(
        name="hunyuan_video",
        build=hunyuan_video,
        layers=3,
        text=16,
        call=TEXT | VIDEO | {"prompt_template": {"template": "{}", "crop_start": 0}},
    ),
)
