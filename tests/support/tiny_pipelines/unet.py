"""Stable Diffusion's UNets at toy size."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import Family
from tiny_pipelines.image_parts import image_vae, make_attention_count, projected_clip_encoder
from tiny_pipelines.parts import clip_encoder, clip_tokenizer


def sdxl(pipeline: Any = diffusers.StableDiffusionXLPipeline) -> Any:
    """Attention at the second of two levels, two blocks deep."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64,
    ).eval()
    make_attention_count(unet, 8.0)
    return pipeline(
        vae=image_vae(4, levels=4),
        text_encoder=clip_encoder(),
        text_encoder_2=projected_clip_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
        add_watermarker=False,
    )


def _unet() -> diffusers.UNet2DConditionModel:
    """Attention at both levels."""
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=2,
        cross_attention_dim=32,
    ).eval()


def stable_diffusion() -> diffusers.StableDiffusionPipeline:
    return diffusers.StableDiffusionPipeline(
        vae=image_vae(4, levels=4),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        unet=_unet(),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def animatediff() -> diffusers.AnimateDiffPipeline:
    """Stable Diffusion with attention along time between its own."""
    torch.manual_seed(0)
    adapter = diffusers.MotionAdapter(
        block_out_channels=(16, 32),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=2,
    ).eval()
    pipe = diffusers.AnimateDiffPipeline(
        vae=image_vae(4, levels=4),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        unet=_unet(),
        motion_adapter=adapter,
        scheduler=diffusers.DDIMScheduler(
            beta_schedule="linear", steps_offset=1, clip_sample=False
        ),
    )
    pipe.unet.eval()
    return pipe


_CALL = {
    "prompt": "a red circle",
    "negative_prompt": "blurry",
    "guidance_scale": 3.0,
    "height": 192,
    "width": 192,
}

FAMILIES = (
    Family(name="sdxl", build=sdxl, layers=8, guidance="one batch", call=_CALL),
    Family(
        name="stable_diffusion",
        build=stable_diffusion,
        layers=7,
        guidance="one batch",
        call=_CALL | {"height": 128, "width": 128},
    ),
    Family(
        name="animatediff",
        build=animatediff,
        layers=7,
        rows=2,
        guidance="one batch",
        call=_CALL | {"height": 128, "width": 128, "num_frames": 2},
    ),
)
