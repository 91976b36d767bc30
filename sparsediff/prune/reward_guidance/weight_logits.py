"""WeightLogits: a logit for every masked weight of a UNet's decoder, alike for all images of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.prune.mask_unet.decoder_linears import decoder_linears
from sparsediff.prune.mask_unet.drawn_mask import drawn_mask
from sparsediff.prune.mask_unet.masked_linears import masked_linears
from sparsediff.prune.reward_guidance.reward_settings import RewardSettings


class WeightLogits:
    """fp32 logits by layer path, with an AdamW of their own: 12 bytes for each masked weight.

    Raises UnsupportedModelError for anything but a UNet2DConditionModel.
    """

    def __init__(self, unet: nn.Module, settings: RewardSettings) -> None:
        self.settings = settings
        self.paths = [path for paths in decoder_linears(unet).values() for path in paths]
        self.logits = {path: _like(unet.get_submodule(path)) for path in self.paths}
        device = next(iter(self.logits.values())).device
        self._generator = torch.Generator(device).manual_seed(settings.seed)
        self.reset()

    def reset(self) -> None:
        """All logits at the start, and the optimiser without a past."""
        with torch.no_grad():
            for logits in self.logits.values():
                logits.fill_(self.settings.start)
        self._optimizer = torch.optim.AdamW(self.logits.values(), lr=self.settings.learning_rate)

    @contextmanager
    def applied(self, unet: nn.Module) -> Iterator[None]:
        """Inside, the UNet runs with one draw of the masks."""
        drawn = {path: self._drawn(logits) for path, logits in self.logits.items()}
        with masked_linears(unet, self.paths, lambda path, x: drawn[path]):
            yield

    def rise(self, reward: Tensor) -> None:
        """One step towards more of a reward, a scalar that follows from an applied draw."""
        found = torch.autograd.grad(-reward, list(self.logits.values()), allow_unused=True)
        for logits, gradient in zip(self.logits.values(), found, strict=True):
            logits.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _drawn(self, logits: Tensor) -> Tensor:
        settings = self.settings
        return drawn_mask(
            logits,
            settings.noise,
            temperature=settings.temperature,
            generator=self._generator,
        )


def _like(layer: Any) -> Tensor:
    return torch.empty_like(layer.weight, dtype=torch.float32).requires_grad_()
