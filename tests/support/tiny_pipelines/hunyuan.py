"""HunyuanVideo at toy size."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import TEXT, VIDEO, Family
from tiny_pipelines.parts import (
    clip_encoder,
    clip_tokenizer,
    language_model,
    letter_tokenizer,
    picture,
)


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


def _transformer(condition: str | None = None) -> diffusers.HunyuanVideoTransformer3DModel:
    torch.manual_seed(0)
    return diffusers.HunyuanVideoTransformer3DModel(
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
        image_condition_type=condition,
    ).eval()


def hunyuan_video() -> diffusers.HunyuanVideoPipeline:
    return diffusers.HunyuanVideoPipeline(
        transformer=_transformer(),
        vae=hunyuan_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=language_model(),
        text_encoder_2=clip_encoder(8),
        tokenizer=letter_tokenizer(end=False),
        tokenizer_2=clip_tokenizer(),
    )


def hunyuan_i2v() -> diffusers.HunyuanVideoImageToVideoPipeline:
    """The picture is the first frame, whose tokens are modulated on their own."""
    return diffusers.HunyuanVideoImageToVideoPipeline(
        transformer=_transformer("token_replace"),
        vae=hunyuan_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        image_processor=None,
    )


def _read_prompt() -> dict[str, Any]:
    """What a language model made of a picture and a prompt: 12 tokens and padding."""
    noise = torch.Generator().manual_seed(0)
    return {
        "prompt_embeds": torch.randn(1, 16, 16, generator=noise),
        "pooled_prompt_embeds": torch.randn(1, 8, generator=noise),
        "prompt_attention_mask": (torch.arange(16) < 12).long()[None],
    }


FAMILIES = (
    Family(
        name="hunyuan_video",
        build=hunyuan_video,
        layers=3,
        text=16,
        call=TEXT | VIDEO | {"prompt_template": {"template": "{}", "crop_start": 0}},
    ),
    Family(
        name="hunyuan_i2v",
        build=hunyuan_i2v,
        layers=3,
        text=16,
        each=(*_read_prompt(), "image"),
        call=VIDEO | _read_prompt() | {"image": picture(64, 64)},
    ),
)
