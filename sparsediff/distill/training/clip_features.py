"""ClipFeatures: what a CLIP image encoder sees, differentiable in the images (MMD-DDM §4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparsediff.kernels.errors import SparseError

# Of OpenAI's CLIP; every CLIP on the Hub that has a projection was trained with these.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_SPREAD = (0.26862954, 0.26130258, 0.27577711)


class ClipFeatures:
    """A CLIP vision model, by folder or Hub id, as the `Features` of `mmd_loss`.

    Raises SparseError when it cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        from transformers import CLIPVisionModelWithProjection

        try:
            model: Any = CLIPVisionModelWithProjection.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise SparseError(
                f"--features {name} could not be loaded: {str(error).strip()}. Needs a CLIP image "
                f"encoder, such as openai/clip-vit-base-patch32, or its folder."
            ) from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.size = int(model.config.image_size)
        self._mean, self._spread = (
            torch.tensor(values, device=device)[:, None, None] for values in (_MEAN, _SPREAD)
        )

    def __call__(self, images: Tensor, /) -> Tensor:
        """Features ``[n, d]`` of images ``[n, 3, h, w]`` in -1..1."""
        sized = functional.interpolate(
            images.float(), size=(self.size, self.size), mode="bicubic", antialias=True
        )
        pixels = ((sized + 1) / 2 - self._mean) / self._spread
        features: Tensor = self.model(pixel_values=pixels).image_embeds
        return features
