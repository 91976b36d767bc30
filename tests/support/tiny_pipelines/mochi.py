"""Mochi at toy size."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import letter_tokenizer, t5_encoder


def mochi() -> diffusers.MochiPipeline:
    torch.manual_seed(0)
    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        qk_norm="rms_norm",
        text_embed_dim=32,
        time_embed_dim=4,
        activation_fn="swiglu",
        max_sequence_length=16,
    )
    torch.nn.init.normal_(transformer.pos_frequencies)  # the class leaves them at zero
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12,
        out_channels=3,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    return diffusers.MochiPipeline(
        tokenizer=letter_tokenizer(),
        text_encoder=t5_encoder(),
        vae=vae,
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


FAMILIES = (
    Family(
        name="mochi",
        build=mochi,
        layers=2,
        row_calls=2,
        text=16,
        guidance="one batch",
        call=GUIDED | {"num_frames": 13, "guidance_scale": 3.0},
    ),
)
