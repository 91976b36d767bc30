"""AuraFlow and CogView4 at toy size: text, then the image."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import TEXT, Family
from tiny_pipelines.image_parts import image_vae, make_attention_count
from tiny_pipelines.parts import language_model, letter_tokenizer, t5_encoder


def auraflow() -> diffusers.AuraFlowPipeline:
    torch.manual_seed(0)
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=24,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=20 * 20,
    ).eval()
    make_attention_count(transformer, 60.0)
    tokenizer = letter_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return diffusers.AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(),
        vae=image_vae(4),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def cogview4() -> diffusers.CogView4Pipeline:
    torch.manual_seed(0)
    transformer = diffusers.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
    ).eval()
    return diffusers.CogView4Pipeline(
        tokenizer=letter_tokenizer(end=False),
        text_encoder=language_model(32),
        vae=image_vae(4, levels=4),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


_CALL = TEXT | {"negative_prompt": "blurry", "guidance_scale": 3.0}

FAMILIES = (
    Family(
        name="auraflow",
        build=auraflow,
        layers=2,
        text=8 + 16,
        guidance="one batch",
        call=_CALL | {"height": 24, "width": 24},
    ),
    Family(
        name="cogview4",
        build=cogview4,
        layers=2,
        forwards=2,
        text=16,
        guidance="two calls",
        call=_CALL | {"height": 192, "width": 192},
    ),
)
