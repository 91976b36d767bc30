"""Stable Diffusion 3.5, HiDream, Lumina 2 and PixArt at toy size."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import TEXT, Family
from tiny_pipelines.image_parts import (
    image_vae,
    make_attention_count,
    projected_clip_encoder,
)
from tiny_pipelines.parts import clip_tokenizer, language_model, letter_tokenizer, t5_encoder


def _clips() -> dict[str, Any]:
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 16
    return {
        "text_encoder": projected_clip_encoder(),
        "tokenizer": tokenizer,
        "text_encoder_2": projected_clip_encoder(),
        "tokenizer_2": tokenizer,
    }


def sd3() -> diffusers.StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 medium: its first block attends to the image a second time."""
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=24,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=32,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).eval()
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=image_vae(4),
        text_encoder_3=t5_encoder(),
        tokenizer_3=letter_tokenizer(),
        **_clips(),
    )


def hidream() -> diffusers.HiDreamImagePipeline:
    torch.manual_seed(0)
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[32, 16],
        text_emb_dim=64,
        num_routed_experts=4,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=(0, 1),
        force_inference_output=True,
    ).eval()
    pipe = diffusers.HiDreamImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=image_vae(4),
        text_encoder_3=t5_encoder(),
        tokenizer_3=letter_tokenizer(),
        text_encoder_4=language_model(),
        tokenizer_4=letter_tokenizer(end=False),
        transformer=transformer,
        **_clips(),
    )
    pipe.default_sample_size = 24  # images are scaled to the area of a square of so many latents
    return pipe


def lumina2() -> diffusers.Lumina2Pipeline:
    torch.manual_seed(0)
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=24,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=(4, 2, 2),
        cap_feat_dim=16,
    ).eval()
    return diffusers.Lumina2Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=image_vae(4, levels=4),
        text_encoder=language_model(),
        tokenizer=letter_tokenizer(end=False),
    )


def _pixart(pipeline: Any) -> Any:
    torch.manual_seed(0)
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=24,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        cross_attention_dim=32,
        caption_channels=32,
    ).eval()
    make_attention_count(transformer, 20.0)
    return pipeline(
        tokenizer=letter_tokenizer(),
        text_encoder=t5_encoder(),
        vae=image_vae(4),
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def pixart_alpha() -> diffusers.PixArtAlphaPipeline:
    return _pixart(diffusers.PixArtAlphaPipeline)


def pixart_sigma() -> diffusers.PixArtSigmaPipeline:
    return _pixart(diffusers.PixArtSigmaPipeline)


_SQUARE = {"height": 24, "width": 24}
_CALL = TEXT | _SQUARE | {"negative_prompt": "blurry", "guidance_scale": 3.0}
_PIXART = _CALL | {"use_resolution_binning": False, "clean_caption": False}

FAMILIES = (
    Family(name="sd3", build=sd3, layers=3, text=32, guidance="one batch", call=_CALL),
    Family(
        name="lumina2",
        build=lumina2,
        layers=3,
        forwards=2,
        text=30,
        guidance="two calls",
        call=_CALL
        | {"height": 192, "width": 192, "max_sequence_length": 40, "system_prompt": "draw"},
    ),
    Family(
        name="hidream",
        build=hidream,
        layers=2,
        text=48,
        guidance="one batch",
        call=_CALL,
        graphs="its experts loop over token counts that only the device knows",
    ),
    Family(name="pixart_alpha", build=pixart_alpha, layers=2, guidance="one batch", call=_PIXART),
    Family(name="pixart_sigma", build=pixart_sigma, layers=2, guidance="one batch", call=_PIXART),
)
