"""HunyuanVideo FramePack at toy size: one section of video behind its history."""

from __future__ import annotations

import diffusers
import torch
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.hunyuan import hunyuan_vae
from tiny_pipelines.parts import (
    clip_encoder,
    clip_tokenizer,
    language_model,
    letter_tokenizer,
    picture,
)


def framepack() -> diffusers.HunyuanVideoFramepackPipeline:
    torch.manual_seed(0)
    transformer = diffusers.HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        has_image_proj=True,
        image_proj_dim=16,
        has_clean_x_embedder=True,
    ).eval()
    eyes = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=8,
            patch_size=4,
        )
    ).eval()
    return diffusers.HunyuanVideoFramepackPipeline(
        transformer=transformer,
        vae=hunyuan_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder=language_model(),
        text_encoder_2=clip_encoder(8),
        tokenizer=letter_tokenizer(end=False),
        tokenizer_2=clip_tokenizer(),
        image_encoder=eyes,
        feature_extractor=SiglipImageProcessor(size={"height": 8, "width": 8}),
    )


FAMILIES = (
    Family(
        name="framepack",
        build=framepack,
        layers=2,
        forwards=2,
        text=16,
        guidance="two calls",
        each=("prompt", "negative_prompt", "image"),
        call=GUIDED
        | {
            "negative_prompt": "a red square",  # as long as the prompt: one shape to compile for
            "image": picture(64, 64),
            "latent_window_size": 9,
            "true_cfg_scale": 3.0,
            "prompt_template": {"template": "{}", "crop_start": 0},
        },
    ),
)
