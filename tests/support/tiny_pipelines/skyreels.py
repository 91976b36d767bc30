"""SkyReels V2 at toy size: text to video, and diffusion forcing with a timestep for every frame."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tiny_pipelines.family import GUIDED, Family
from tiny_pipelines.wan_kin import SIZES, wan_parts


def _parts(**config: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    transformer = diffusers.SkyReelsV2Transformer3DModel(**SIZES, in_channels=16, **config).eval()
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", flow_shift=8.0, use_flow_sigmas=True
    )
    return wan_parts() | {"transformer": transformer, "scheduler": scheduler}


def skyreels() -> diffusers.SkyReelsV2Pipeline:
    return diffusers.SkyReelsV2Pipeline(**_parts())


def skyreels_forcing(*, block: int = 1) -> diffusers.SkyReelsV2DiffusionForcingPipeline:
    """Diffusion forcing; frames in blocks of more than one see only the blocks before them."""
    parts = _parts(num_frame_per_block=block)
    return diffusers.SkyReelsV2DiffusionForcingPipeline(**parts)


_CALL = GUIDED | {"guidance_scale": 4.0}

FAMILIES = (
    Family(name="skyreels", build=skyreels, layers=2, forwards=2, guidance="two calls", call=_CALL),
    Family(
        name="skyreels_forcing",
        build=skyreels_forcing,
        layers=2,
        forwards=2,
        guidance="two calls",
        call=_CALL,
    ),
)
