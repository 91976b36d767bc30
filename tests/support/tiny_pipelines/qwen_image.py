"""Qwen-Image at toy size."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import Family
from tiny_pipelines.parts import language_model, letter_tokenizer


def _parts(**config: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
        **config,
    ).eval()
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
        "vae": vae,
        "text_encoder": language_model(),
        "tokenizer": letter_tokenizer(end=False),
        "transformer": transformer,
    }


def _short(pipe: Any) -> Any:
    """Without the letters that wrap a prompt."""
    pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx = "{}", 0
    return pipe


def qwen_image() -> diffusers.QwenImagePipeline:
    return _short(diffusers.QwenImagePipeline(**_parts()))


def qwen_image_edit_plus(**config: Any) -> diffusers.QwenImageEditPlusPipeline:
    """Editing of several pictures; prompts have to be embeddings."""
    return diffusers.QwenImageEditPlusPipeline(processor=None, **_parts(**config))


FAMILIES = (
    Family(
        name="qwen_image",
        build=qwen_image,
        layers=2,
        forwards=2,
        text=12,
        guidance="two calls",
        call={
            "prompt": "a red circle",
            "negative_prompt": "blurry",
            "true_cfg_scale": 3.0,
            "height": 48,
            "width": 48,
        },
    ),
)
