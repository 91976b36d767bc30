"""The whole few-step sampler as one differentiable function (MMD-DDM, arXiv 2301.07969 §3)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import Noise
from sparsediff.distill.trajectory import Denoise, step_down

Times = tuple[float, float]


def sample_chain(
    denoise: Denoise,
    levels: Noise,
    grid: StepGrid,
    x: Tensor,
    *,
    keep: bool = False,
    every: int = 1,
) -> Tensor:
    """Samples ``[b, ...]`` of all steps of the grid from noise `x`, without fresh noise between them.

    The steps are those of DDIM with eta 0, and of Euler for flow matching. A gradient flows through
    every step into what `denoise` was made of, and into `x`. Each step is computed again in the
    backward pass, so that memory grows by one latent a step; `keep` keeps the activations instead.
    With `every` n only every n-th latent is kept: memory grows by 1 / n latent a step (and n at once),
    for 1 + (n - 1) / n more calls of `denoise` a step instead of 1.

    Whatever `denoise` switches on (an adapter, a mask, sparse attention) it must switch on in every
    call, or it must stay on until the backward pass is over. What it draws itself is drawn again.
    """

    def step(x: Tensor, times: Times) -> Tensor:
        start, end = (torch.full((len(x),), time, device=x.device) for time in times)
        clean, noise = denoise(x, levels.at(start))
        return step_down(clean, noise, levels.at(end), 0.0, noise)

    def steps(x: Tensor, several: list[Times]) -> Tensor:
        # The last one's backward pass comes next: nothing would be gained by computing it again.
        for times in several[:-1]:
            x = _again(step, x, times)
        return step(x, several[-1])

    pairs: list[Times] = list(pairwise(grid.times))
    if keep or not torch.is_grad_enabled():
        for times in pairs:
            x = step(x, times)
        return x
    for first in range(0, len(pairs), every):
        x = _again(steps, x, pairs[first : first + every])
    return x


def _again(function: Callable[[Tensor, Any], Tensor], x: Tensor, what: Any) -> Tensor:
    """The function of x, which is computed again when its gradient is asked for."""
    return cast(Tensor, checkpoint(function, x, what, use_reentrant=False))
