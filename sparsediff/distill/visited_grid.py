"""The levels that a diffusers scheduler visits, once its timesteps are set."""

from __future__ import annotations

from typing import Any

from sparsediff.distill.scheduler_kinds import is_flow


def visited_grid(scheduler: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Timesteps, one a step, and sigmas, one more: the share of noise, 0 at the end."""
    timesteps = tuple(float(t) for t in scheduler.timesteps)
    if is_flow(scheduler):
        return timesteps, tuple(float(sigma) for sigma in scheduler.sigmas)
    table = scheduler.alphas_cumprod
    levels = [table[int(t)] for t in scheduler.timesteps] + [scheduler.final_alpha_cumprod]
    return timesteps, tuple(float((1 - level) ** 0.5) for level in levels)
