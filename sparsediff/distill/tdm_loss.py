"""Losses of trajectory distribution matching (Video-BLADE, arXiv 2508.10774 §3.2; TDM, ICCV 2025).

Functions of tensors: what a model sees as clean at the noisier place x_t, ``[b, ...]`` fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.distill.noise import over


def guided(positive: Tensor, negative: Tensor | None, scale: float) -> Tensor:
    """Classifier-free guidance as diffusers means it: negative + scale (positive - negative).

    DMD2 and Self-Forcing write positive + w (positive - negative): their w is scale - 1.
    """
    return positive if negative is None else negative + scale * (positive - negative)


def fake_loss(fake: Tensor, student: Tensor, gain: Tensor) -> Tensor:
    """How far the fake score is from the student's samples: mean of ((fake - student) / gain)².

    With `gain` ``[b]`` of `Noise.gain` that is the squared error of what the model gives, velocity or
    epsilon, as it was pretrained. With the teacher's clean sample in place of the student's it is
    BLADE's regulariser.
    """
    error = (fake - student.detach()) / over(gain, fake)
    return error.square().mean()


def student_loss(
    clean: Tensor,
    real: Tensor,
    fake: Tensor,
    *,
    huber: float = 1e-3,
    normalise: bool = True,
    weight: Tensor | None = None,
) -> Tensor:
    """Moves the student's clean sample along real - fake, the difference of two scores.

    ``clean`` carries the gradient; ``real`` the teacher's with guidance and ``fake`` the fake's, at
    the same place. The target is clean + (real - fake) / w, where w = mean |clean - real| of each
    sample (`normalise`); the distance to it the pseudo-Huber sqrt(d² + huber²) - huber, or half the
    squared error with huber=0. `weight` ``[b]`` of the samples, 1 by default.
    """
    with torch.no_grad():
        pull = real - fake
        if normalise:
            pull = pull / over(mean_distance(clean, real).clamp(min=1e-3), clean)
        target = clean + pull
    squared = (clean - target).square()
    loss = (squared + huber**2).sqrt() - huber if huber else 0.5 * squared
    return (loss if weight is None else over(weight, clean) * loss).mean()


def mean_distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of every sample: ``[b]``."""
    return (one - other).abs().flatten(1).mean(dim=1)
