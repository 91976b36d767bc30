"""Latents to images by a pipeline's autoencoder, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sparsediff.kernels.errors import SparseError


def image_decoder(pipe: Any) -> Callable[[Tensor], Tensor]:
    """Latents ``[b, c, h, w]`` to images in -1..1 by a pipeline's autoencoder, differentiable.

    Raises SparseError for a pipeline whose latents are more than scaled.
    """
    scale = getattr(getattr(pipe, "vae", None), "config", {}).get("scaling_factor")
    if scale is None:
        raise SparseError(
            f"{type(pipe).__name__} has no autoencoder with a scaling_factor; give a decode function "
            f"of your own."
        )
    vae = pipe.vae

    def decode(latents: Tensor) -> Tensor:
        shifted = latents / scale + (vae.config.get("shift_factor") or 0.0)
        images: Tensor = vae.decode(shifted.to(vae.dtype), return_dict=False)[0]
        return images.float()

    return decode
