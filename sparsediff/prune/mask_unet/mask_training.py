"""Training decoder masks by the plain diffusion loss: settings, and a small loop for one process."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.noise import noise_of
from sparsediff.distill.recording.conditions import Conditions, Inputs
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.kernels.errors import SparseError
from sparsediff.plans.misfit import Reader, check
from sparsediff.plans.values import number, whole
from sparsediff.prune.denoising_loss import denoising_loss
from sparsediff.prune.mask_unet.decoder_masks import DecoderMasks


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskTraining:
    """``iterations`` updates of ``batch`` samples by AdamW; gradients are cut at the norm ``clip``.

    The rate is MaskUNet's for Stable Diffusion 1.5 (batch 32). Raises SparseError out of range.
    """

    iterations: int = 1000
    batch: int = 4
    learning_rate: float = 1e-5
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, _SETTINGS)


def unet_denoiser(unet: Any, scheduler: Any) -> Denoiser:
    """A UNet as `denoising_loss` calls it; `scheduler` says what its output means.

    Conditions are the UNet's other arguments by name. Those of a pipeline's prompts come from a
    ConditionRecorder, those at hand from ``Conditions.of_batch({"encoder_hidden_states": text})``.
    """
    side = unet.config.sample_size
    sides = tuple(side) if isinstance(side, list | tuple) else (side, side)
    inputs = Inputs(
        shape=(unet.config.in_channels, *sides),
        noisy_name="sample",
        time_name="timestep",
        time_scale=1.0,
        dtype=unet.dtype,
    )
    return Denoiser(model=unet, inputs=inputs, levels=noise_of(scheduler))


def train_masks(
    masks: DecoderMasks,
    denoiser: Denoiser,
    latents: Tensor,
    conditions: Conditions,
    settings: MaskTraining,
    *,
    tell: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train masks on latents ``[n, c, h, w]`` fp32 and the conditions of the same n; gives the losses.

    Only masks change; they end in evaluation mode. ``tell`` hears of every iteration and its loss. For
    a loop of your own (accelerate, several GPUs): ``with masks.applied(unet)``, `denoising_loss`, and
    an optimiser of ``masks.parameters()``. Raises SparseError when the loss is not finite.
    """
    device = next(masks.parameters()).device
    optimizer = torch.optim.AdamW(masks.parameters(), lr=settings.learning_rate)
    noise_of_masks = torch.Generator().manual_seed(seed_of("masks", settings.seed))
    losses: list[float] = []
    masks.train()
    try:
        with masks.applied(denoiser.model, generator=noise_of_masks):
            for iteration in range(settings.iterations):
                first = iteration * settings.batch
                seeds = [
                    seed_of("mask sample", settings.seed, first + n) for n in range(settings.batch)
                ]
                loss = _loss(denoiser, latents, conditions, Draws(seeds), device)
                losses.append(_update(loss, optimizer, masks, settings))
                if tell is not None:
                    tell(iteration, losses[-1])
    finally:
        masks.eval()
    return losses


def _loss(
    denoiser: Denoiser,
    latents: Tensor,
    conditions: Conditions,
    draws: Draws,
    device: torch.device,
) -> Tensor:
    rows = (draws.uniform() * len(latents)).long()
    time = (draws.uniform() * denoiser.levels.steps).floor() + 1
    clean = latents[rows.to(latents.device)].to(device).float()
    told = conditions.select(rows).to(device)
    return denoising_loss(denoiser, clean, draws.normal(clean), time.to(device), told).mean()


def _update(
    loss: Tensor, optimizer: torch.optim.Optimizer, masks: nn.Module, settings: MaskTraining
) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise SparseError(
            f"The denoising loss is {value}: latents or conditions hold values that are not finite, or "
            f"the UNet overflows in its dtype. Look at the data, or train in float32."
        )
    parameters = list(masks.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value


_SETTINGS: dict[str, Reader[Any]] = {
    "iterations": whole(1, 10**9),
    "batch": whole(1, 10**6),
    "learning_rate": number(0, 1, above=True),
    "clip": number(0, 1e8, above=True),
    "seed": whole(0, 2**53),
}
