"""Wan at toy size."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import letter_tokenizer, t5_encoder


def wan_transformer(*, layers: int = 3) -> diffusers.WanTransformer3DModel:
    torch.manual_seed(0)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()


def wan(*, layers: int = 3, experts: int = 1) -> diffusers.WanPipeline:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    return diffusers.WanPipeline(
        tokenizer=letter_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=wan_transformer(layers=layers),
        transformer_2=wan_transformer(layers=layers) if experts == 2 else None,
        boundary_ratio=0.8 if experts == 2 else None,
    )


def wan22() -> diffusers.WanPipeline:
    return wan(experts=2)


_CALL = GUIDED | {"guidance_scale": 4.0}

FAMILIES = (
    Family(name="wan", build=wan, layers=3, forwards=2, guidance="two calls", call=_CALL),
    Family(name="wan22", build=wan22, layers=3, forwards=2, guidance="two calls", call=_CALL),
)
