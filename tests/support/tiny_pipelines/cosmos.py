"""Cosmos at toy size: text to world (1), video to world (2), and both in one (2.5)."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.parts import (
    chat_tokenizer,
    language_model,
    letter_tokenizer,
    picture,
    t5_encoder,
)
from tiny_pipelines.wan_kin import wan_parts


class _Guard:
    """Stands in for the safety checker, a model of 8 billion parameters."""

    def to(self, device: Any) -> None:
        """Nothing to move."""

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def _transformer(**config: Any) -> diffusers.CosmosTransformer3DModel:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 2,
        "mlp_ratio": 2,
        "text_embed_dim": 32,
        "adaln_lora_dim": 4,
        "max_size": (4, 32, 32),
        "concat_padding_mask": False,  # resizing it needs torchvision
    }
    return diffusers.CosmosTransformer3DModel(**(shape | config)).eval()


def cosmos() -> diffusers.CosmosTextToWorldPipeline:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLCosmos(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        patch_size=4,
        patch_type="haar",
        scaling_factor=1.0,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    ).eval()
    return diffusers.CosmosTextToWorldPipeline(
        text_encoder=t5_encoder(),
        tokenizer=letter_tokenizer(),
        transformer=_transformer(in_channels=4),
        vae=vae,
        scheduler=diffusers.EDMEulerScheduler(
            sigma_min=0.002,
            sigma_max=80,
            sigma_data=0.5,
            sigma_schedule="karras",
            num_train_timesteps=1000,
            prediction_type="epsilon",
            rho=7.0,
            final_sigmas_type="sigma_min",
        ),
        safety_checker=_Guard(),
    )


def cosmos2() -> diffusers.Cosmos2VideoToWorldPipeline:
    parts = wan_parts() | {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        "transformer": _transformer(in_channels=17, out_channels=16, extra_pos_embed_type=None),
    }
    return diffusers.Cosmos2VideoToWorldPipeline(**parts, safety_checker=_Guard())


def cosmos25() -> diffusers.Cosmos2_5_PredictBasePipeline:
    parts = wan_parts() | {
        "text_encoder": language_model(),
        "tokenizer": chat_tokenizer(),
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True
        ),
        "transformer": _transformer(in_channels=17, out_channels=16, extra_pos_embed_type=None),
    }
    return diffusers.Cosmos2_5_PredictBasePipeline(**parts, safety_checker=_Guard())


_CALL = GUIDED | {"guidance_scale": 3.0}

FAMILIES = (
    Family(
        name="cosmos",
        build=cosmos,
        layers=2,
        forwards=2,
        guidance="two calls",
        call=_CALL | {"height": 32, "width": 32},
    ),
    Family(
        name="cosmos2",
        build=cosmos2,
        layers=2,
        forwards=2,
        guidance="two calls",
        each=("prompt", "negative_prompt", "image"),
        call=_CALL | {"image": picture(64, 64)},
    ),
    Family(name="cosmos25", build=cosmos25, layers=2, forwards=2, guidance="two calls", call=_CALL),
)
