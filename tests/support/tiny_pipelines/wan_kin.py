"""Wan's image-to-video, VACE and Animate pipelines at toy size."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import (
    clip_image_processor,
    clip_vision,
    letter_tokenizer,
    picture,
    t5_encoder,
)

SIZES: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}


def wan_parts() -> dict[str, Any]:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    return {
        "tokenizer": letter_tokenizer(),
        "text_encoder": t5_encoder(),
        "vae": vae,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def wan_i2v() -> diffusers.WanImageToVideoPipeline:
    """Wan 2.1 image to video: the picture is in the channels and, by CLIP, in cross-attention."""
    torch.manual_seed(0)
    transformer = diffusers.WanTransformer3DModel(
        **SIZES, in_channels=36, image_dim=4, added_kv_proj_dim=24
    ).eval()
    return diffusers.WanImageToVideoPipeline(
        **wan_parts(),
        transformer=transformer,
        image_encoder=clip_vision(4),
        image_processor=clip_image_processor(),
    )


def wan_ti2v() -> diffusers.WanImageToVideoPipeline:
    """Wan 2.2 TI2V: the picture is the first frame, whose tokens have a timestep of their own."""
    torch.manual_seed(0)
    transformer = diffusers.WanTransformer3DModel(**SIZES, in_channels=16).eval()
    return diffusers.WanImageToVideoPipeline(
        **wan_parts(), transformer=transformer, expand_timesteps=True
    )


def wan_vace() -> diffusers.WanVACEPipeline:
    torch.manual_seed(0)
    transformer = diffusers.WanVACETransformer3DModel(
        **SIZES, in_channels=16, vace_layers=[0, 1], vace_in_channels=96
    ).eval()
    return diffusers.WanVACEPipeline(**wan_parts(), transformer=transformer)


def wan_animate() -> diffusers.WanAnimatePipeline:
    torch.manual_seed(0)
    transformer = diffusers.WanAnimateTransformer3DModel(
        **SIZES,
        in_channels=36,
        image_dim=4,
        added_kv_proj_dim=24,
        motion_encoder_channel_sizes={"4": 4, "8": 4, "16": 4},
        motion_encoder_size=16,
        motion_style_dim=4,
        motion_dim=2,
        motion_encoder_dim=4,
        face_encoder_hidden_dim=8,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
    ).eval()
    return diffusers.WanAnimatePipeline(
        **wan_parts(),
        transformer=transformer,
        image_encoder=clip_vision(4),
        image_processor=clip_image_processor(),
    )


def chronoedit() -> diffusers.ChronoEditPipeline:
    """ChronoEdit: the last frame is the edited picture, the ones between show the way to it."""
    torch.manual_seed(0)
    transformer = diffusers.ChronoEditTransformer3DModel(
        **SIZES, in_channels=36, image_dim=4, added_kv_proj_dim=24
    ).eval()
    return diffusers.ChronoEditPipeline(
        **wan_parts(),
        transformer=transformer,
        image_encoder=clip_vision(4),
        image_processor=clip_image_processor(),
    )


_CALL = GUIDED | {"guidance_scale": 4.0}
_ANIMATE = {name: value for name, value in GUIDED.items() if name != "num_frames"} | {
    "image": picture(64, 64),
    "pose_video": [picture(64, 64)] * 9,
    "face_video": [picture(16, 16)] * 9,
    "segment_frame_length": 9,
}


FAMILIES = (
    Family(
        name="wan_i2v",
        build=wan_i2v,
        layers=2,
        forwards=2,
        guidance="two calls",
        call=_CALL | {"image": picture(64, 64)},
    ),
    Family(
        name="wan_ti2v",
        build=wan_ti2v,
        layers=2,
        forwards=2,
        guidance="two calls",
        call=_CALL | {"image": picture(64, 64)},
    ),
    Family(
        name="wan_vace",
        build=wan_vace,
        layers=4,
        forwards=2,
        guidance="two calls",
        alone="WanVACEPipeline refuses several prompts and several videos of one",
        call=_CALL,
    ),
    Family(name="wan_animate", build=wan_animate, layers=2, call=_ANIMATE),
    Family(
        name="chronoedit",
        build=chronoedit,
        layers=2,
        forwards=2,
        guidance="two calls",
        call=_CALL
        | {
            "image": picture(64, 64),
            "enable_temporal_reasoning": True,
            "num_temporal_reasoning_steps": 9,
        },
    ),
)
