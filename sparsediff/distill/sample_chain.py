"""The whole few-step sampler as one differentiable function (MMD-DDM, arXiv 2301.07969 §3)."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import Noise
from sparsediff.distill.trajectory import Denoise, step_down


def sample_chain(
    denoise: Denoise, levels: Noise, grid: StepGrid, x: Tensor, *, keep: bool = False
) -> Tensor:
    """Samples ``[b, ...]`` of all steps of the grid from noise `x`, without fresh noise between them.

    The steps are those of DDIM with eta 0, and of Euler for flow matching. A gradient flows through
    every step into what `denoise` was made of, and into `x`. Each step is computed again in the
    backward pass, so that memory grows by one latent a step; `keep` keeps the activations instead.
    Whatever `denoise` switches on (an adapter, sparse attention) it must switch on in every call.
    """

    def step(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        clean, noise = denoise(x, levels.at(start))
        return step_down(clean, noise, levels.at(end), 0.0, noise)

    for times in pairwise(grid.times):
        start, end = (torch.full((len(x),), time, device=x.device) for time in times)
        if keep or not torch.is_grad_enabled():
            x = step(x, start, end)
        else:
            x = cast(Tensor, checkpoint(step, x, start, end, use_reentrant=False))
    return x
