"""LTX at toy size."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import letter_tokenizer, picture, t5_encoder


def _parts() -> dict[str, Any]:
    torch.manual_seed(0)
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=32,
    ).eval()
    vae = diffusers.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    return {
        "tokenizer": letter_tokenizer(),
        "text_encoder": t5_encoder(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
    }


def ltx() -> diffusers.LTXPipeline:
    return diffusers.LTXPipeline(**_parts())


def frame_at(index: int) -> LTXVideoCondition:
    """A picture given as the frame of this number; the first one replaces tokens of the video."""
    return LTXVideoCondition(image=picture(32, 32), frame_index=index)


def ltx_condition() -> diffusers.LTXConditionPipeline:
    """LTX that is given a frame, whose tokens stand in front of the video's."""
    return diffusers.LTXConditionPipeline(**_parts())


FAMILIES = (
    Family(
        name="ltx",
        build=ltx,
        layers=2,
        guidance="one batch",
        call=GUIDED | {"guidance_scale": 3.0},
    ),
    Family(
        name="ltx_condition",
        build=ltx_condition,
        layers=2,
        guidance="one batch",
        alone="LTXConditionPipeline cannot put a frame in front of several videos",
        call=GUIDED
        | {
            "guidance_scale": 3.0,
            "height": 32,
            "width": 32,
            "conditions": [frame_at(8)],
        },
    ),
)
