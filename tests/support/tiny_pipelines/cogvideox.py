"""CogVideoX at toy size."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import letter_tokenizer, picture, t5_encoder


def _parts(*, frames_in_token: int | None = None, channels: int = 4) -> dict[str, Any]:
    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=32,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        patch_size=2,
        patch_size_t=frames_in_token,
        patch_bias=frames_in_token is None,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    ).eval()
    vae = diffusers.AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return {
        "tokenizer": letter_tokenizer(),
        "text_encoder": t5_encoder(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": diffusers.CogVideoXDDIMScheduler(),
    }


def cogvideox(*, frames_in_token: int | None = None) -> diffusers.CogVideoXPipeline:
    """CogVideoX, or with two latent frames in a token CogVideoX 1.5."""
    return diffusers.CogVideoXPipeline(**_parts(frames_in_token=frames_in_token))


def cogvideox_i2v() -> diffusers.CogVideoXImageToVideoPipeline:
    """CogVideoX that is given a picture, in channels of their own."""
    return diffusers.CogVideoXImageToVideoPipeline(**_parts(channels=8))


def cogvideox15() -> diffusers.CogVideoXPipeline:
    return cogvideox(frames_in_token=2)


_CALL = GUIDED | {"guidance_scale": 3.0}

_FAMILY: dict[str, Any] = {"layers": 2, "text": 16, "guidance": "one batch"}

FAMILIES = (
    Family(name="cogvideox", build=cogvideox, call=_CALL, **_FAMILY),
    Family(name="cogvideox15", build=cogvideox15, call=_CALL, **_FAMILY),
    Family(
        name="cogvideox_i2v",
        build=cogvideox_i2v,
        each=("prompt", "negative_prompt", "image"),
        call=_CALL | {"image": picture(64, 64)},
        **_FAMILY,
    ),
)
