"""Flux, Flux.2 and Chroma at toy size."""

from __future__ import annotations

import diffusers
import torch

from tiny_pipelines.family import TEXT, Family
from tiny_pipelines.image_parts import image_vae
from tiny_pipelines.parts import (
    chat_tokenizer,
    clip_encoder,
    clip_tokenizer,
    language_model,
    letter_tokenizer,
    picture,
    t5_encoder,
)


def _parts() -> dict[str, object]:
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
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
        "text_encoder": clip_encoder(),
        "text_encoder_2": t5_encoder(),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": letter_tokenizer(),
        "transformer": transformer,
        "vae": image_vae(1),
    }


def flux() -> diffusers.FluxPipeline:
    return diffusers.FluxPipeline(**_parts())


def flux_kontext() -> diffusers.FluxKontextPipeline:
    return diffusers.FluxKontextPipeline(**_parts())


def _flux2_parts() -> dict[str, object]:
    torch.manual_seed(0)
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 4, 4),
    ).eval()
    vae = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
        "vae": vae,
        "text_encoder": language_model(),
        "tokenizer": chat_tokenizer(),
        "transformer": transformer,
    }


def flux2() -> diffusers.Flux2Pipeline:
    return diffusers.Flux2Pipeline(**_flux2_parts())


def flux2_klein_kv() -> diffusers.Flux2KleinKVPipeline:
    """Keeps the keys and values of reference images from the first step on."""
    return diffusers.Flux2KleinKVPipeline(**_flux2_parts())


def chroma() -> diffusers.ChromaPipeline:
    torch.manual_seed(0)
    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    ).eval()
    return diffusers.ChromaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=image_vae(1),
        text_encoder=t5_encoder(),
        tokenizer=letter_tokenizer(),
        transformer=transformer,
    )


_CALL = TEXT | {"height": 24, "width": 24}

FAMILIES = (
    Family(name="flux", build=flux, layers=3, text=16, call=_CALL),
    Family(
        name="flux_kontext",
        build=flux_kontext,
        layers=3,
        text=16,
        call=_CALL | {"image": picture(16, 8), "max_area": 24 * 24, "_auto_resize": False},
    ),
    Family(
        name="flux2", build=flux2, layers=3, text=16, call=_CALL | {"text_encoder_out_layers": (1,)}
    ),
    # The prompts are shorter than their room. diffusers adds Chroma's mask of ones and zeros to the
    # scores, so that it weighs the padding instead of hiding it.
    Family(
        name="chroma",
        build=chroma,
        layers=3,
        forwards=2,
        text=16,
        guidance="two calls",
        call=_CALL | {"negative_prompt": "blurry", "guidance_scale": 3.0},
    ),
)
