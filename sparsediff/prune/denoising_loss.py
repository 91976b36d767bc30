"""The plain loss of a diffusion model: how far its output is from that of a perfect one."""

from __future__ import annotations

from torch import Tensor

from sparsediff.distill.noise import over
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.denoiser import Denoiser


def denoising_loss(
    denoiser: Denoiser, clean: Tensor, noise: Tensor, time: Tensor, conditions: Conditions
) -> Tensor:
    """Mean squared error of each sample, fp32 ``[b]``, differentiable in the model.

    ``clean``, ``noise`` ``[b, ...]`` fp32 in the model's own space (latents as the pipeline scales
    them); ``time`` ``[b]`` in the training steps of ``denoiser.levels``, 0 being clean. The error is
    that of what the model was trained to give: noise, velocity or sample.
    """
    level = denoiser.levels.at(time)
    x = over(level.alpha, clean) * clean + over(level.sigma, clean) * noise
    error = denoiser.output(x, level, conditions).float() - denoiser.levels.target(
        clean, noise, level
    )
    return error.square().flatten(1).mean(dim=1)
