"""Flux at toy size."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import TEXT, Family
from tiny_pipelines.parts import clip_encoder, clip_tokenizer, letter_tokenizer, t5_encoder


def flux() -> diffusers.FluxPipeline:
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
    ).eval()
    vae = diffusers.AutoencoderKL(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=clip_encoder(),
        text_encoder_2=t5_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=letter_tokenizer(),
        transformer=transformer,
        vae=vae,
    )


FAMILIES = (
    Family(name="flux", build=flux, layers=3, text=16, call=TEXT | {"height": 24, "width": 24}),
)
