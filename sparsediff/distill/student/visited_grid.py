"""The levels that a diffusers scheduler visits, once its timesteps are set."""

from __future__ import annotations

from typing import Any

from sparsediff.distill.student.scheduler_kinds import is_flow
from sparsediff.distill.student.student_card import StudentCard
from sparsediff.kernels.errors import PlanError

_SAME_LEVEL = 1e-6  # share of noise: rounding of float32, on another machine


def visited_grid(scheduler: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Timesteps, one a step, and sigmas, one more: the share of noise, 0 at the end."""
    timesteps = tuple(float(t) for t in scheduler.timesteps)
    if is_flow(scheduler):
        return timesteps, tuple(float(sigma) for sigma in scheduler.sigmas)
    table = scheduler.alphas_cumprod
    levels = [table[int(t)] for t in scheduler.timesteps] + [scheduler.final_alpha_cumprod]
    return timesteps, tuple(float((1 - level) ** 0.5) for level in levels)


def check_grid(scheduler: Any, card: StudentCard, source: str) -> None:
    """Raise PlanError, naming the file `source`, unless the scheduler visits the grid of a card."""
    timesteps, sigmas = visited_grid(scheduler)
    whole = int(scheduler.config.num_train_timesteps)
    pairs = [*zip(sigmas, card.sigmas, strict=False)]
    pairs += [(a / whole, b / whole) for a, b in zip(timesteps, card.timesteps, strict=False)]
    if len(timesteps) != card.steps or not all(abs(a - b) <= _SAME_LEVEL for a, b in pairs):
        raise PlanError(
            f"{source} makes timesteps {[round(t, 1) for t in timesteps]}, but the student was "
            f"trained at {[round(t, 1) for t in card.timesteps]}: one of the files was changed."
        )
