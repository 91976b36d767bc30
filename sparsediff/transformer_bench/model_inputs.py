"""The inputs a family's pipeline passes to its model: their real shapes, random content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparsediff.token_size import Size
from sparsediff.transformer_bench.architectures import Architecture

TRAINING_STEPS = 1000  # timesteps of all these schedulers lie in (0, 1000]

Inputs = dict[str, Any]
Latents = tuple[int, int, int]  # frames, rows, columns
Noise = Callable[..., Tensor]


def model_inputs(
    architecture: Architecture,
    size: Size,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Inputs:
    """Everything but the timestep, for (width, height, frames) in pixels.

    The text is as long as the pipeline allows and none of it is padding. Raises SparseError for a size
    that the pipeline would refuse.
    """
    generator = torch.Generator(device).manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    return _FAMILIES[architecture.model](architecture, architecture.latents(size), noise)


def timestep(architecture: Architecture, value: float, like: Tensor) -> Tensor:
    """The timestep input ``[batch]`` at noise level `value` in (0, 1], beside the latents `like`."""
    where = torch.full((architecture.batch,), value * TRAINING_STEPS, device=like.device)
    if architecture.model == "CogVideoXTransformer3DModel":
        return where.long()
    if architecture.model == "FluxTransformer2DModel":
        return (where / TRAINING_STEPS).to(like.dtype)
    return where


def _wan(architecture: Architecture, latents: Latents, noise: Noise) -> Inputs:
    config = architecture.config
    return {
        "hidden_states": noise(architecture.batch, config["in_channels"], *latents),
        "encoder_hidden_states": noise(architecture.batch, architecture.text, config["text_dim"]),
    }


def _hunyuan_video(architecture: Architecture, latents: Latents, noise: Noise) -> Inputs:
    config, batch, text = architecture.config, architecture.batch, architecture.text
    hidden = noise(batch, config["in_channels"], *latents)
    return {
        "hidden_states": hidden,
        "encoder_hidden_states": noise(batch, text, config["text_embed_dim"]),
        "encoder_attention_mask": torch.ones(batch, text, dtype=torch.bool, device=hidden.device),
        "pooled_projections": noise(batch, config["pooled_projection_dim"]),
        "guidance": hidden.new_full((batch,), 6.0 * TRAINING_STEPS),
    }


def _cogvideox(architecture: Architecture, latents: Latents, noise: Noise) -> Inputs:
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    config, batch, (frames, rows, columns) = architecture.config, architecture.batch, latents
    side, time = config["patch_size"], config["patch_size_t"]
    hidden = noise(batch, frames, config["in_channels"], rows, columns)
    return {
        "hidden_states": hidden,
        "encoder_hidden_states": noise(batch, architecture.text, config["text_embed_dim"]),
        "image_rotary_emb": get_3d_rotary_pos_embed(
            embed_dim=config["attention_head_dim"],
            crops_coords=None,
            grid_size=(rows // side, columns // side),
            temporal_size=frames // time,
            grid_type="slice",
            max_size=(config["sample_height"] // side, config["sample_width"] // side),
            device=hidden.device,
        ),
    }


def _flux(architecture: Architecture, latents: Latents, noise: Noise) -> Inputs:
    config, batch, text = architecture.config, architecture.batch, architecture.text
    _, rows, columns = latents
    rows, columns = rows // 2, columns // 2  # the pipeline packs squares of four latents
    hidden = noise(batch, rows * columns, config["in_channels"])
    places = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns))
    return {
        "hidden_states": hidden,
        "encoder_hidden_states": noise(batch, text, config["joint_attention_dim"]),
        "pooled_projections": noise(batch, config["pooled_projection_dim"]),
        "txt_ids": hidden.new_zeros(text, 3),
        "img_ids": places.to(hidden.device, hidden.dtype),
        "guidance": torch.full((batch,), 3.5, device=hidden.device),
    }


_FAMILIES: dict[str, Callable[..., Inputs]] = {
    "WanTransformer3DModel": _wan,
    "HunyuanVideoTransformer3DModel": _hunyuan_video,
    "CogVideoXTransformer3DModel": _cogvideox,
    "FluxTransformer2DModel": _flux,
}
