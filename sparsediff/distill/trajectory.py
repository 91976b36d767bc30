"""The student's own trajectory, and noise added to a place on it (TDM; Video-BLADE §3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws
from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import Level, Noise, over

# A model at a noise level: x [b, ...] to the clean sample and the noise that it sees in x.
Denoise = Callable[[Tensor, Level], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class State:
    """One step of trajectories from ``x`` ``[b, ...]``, at times ``start`` to ``end``, both ``[b]``.

    ``clean`` and ``noise`` are what the student saw in x.
    """

    x: Tensor
    start: Tensor
    end: Tensor
    clean: Tensor
    noise: Tensor


def step_down(clean: Tensor, noise: Tensor, end: Level, churn: float, fresh: Tensor) -> Tensor:
    """The place at the lower end of a step: alpha clean + sigma e.

    e = sqrt(1 - churn²) noise + churn `fresh`: 0 is the ODE step that samplers take (TDM), BLADE
    trains with 0.436, that is eta 0.9.
    """
    mixed = (1 - churn**2) ** 0.5 * noise + churn * fresh
    place: Tensor = over(end.alpha, clean) * clean + over(end.sigma, clean) * mixed
    return place


@torch.no_grad()
def roll_out(
    denoise: Denoise,
    levels: Noise,
    grid: StepGrid,
    x: Tensor,
    *,
    last: int | None = None,
    churn: float = 0.0,
    draws: Draws | None = None,
) -> list[State]:
    """The first `last` steps (all by default) of the student from noise ``[b, ...]``, data-free.

    With `churn`, `draws` has the fresh noise of every step.
    """
    states = []
    for start, end in list(zip(grid.times, grid.times[1:], strict=False))[:last]:
        times = [torch.full((len(x),), time, device=x.device) for time in (start, end)]
        clean, noise = denoise(x, levels.at(times[0]))
        states.append(State(x=x, start=times[0], end=times[1], clean=clean, noise=noise))
        fresh = draws.normal(x) if draws is not None and churn else noise
        x = step_down(clean, noise, levels.at(times[1]), churn, fresh)
    return states


def diffuse(x: Tensor, here: Level, there: Level, fresh: Tensor) -> Tensor:
    """More noise: from x at level `here` to the noisier `there`, with `fresh` standard noise.

    x' = (a' / a) x + sqrt(s'² - (a' / a · s)²) fresh (Video-BLADE §3.3).
    """
    ratio = there.alpha / here.alpha.clamp(min=1e-3)
    variance = there.sigma.square() - (ratio * here.sigma).square()
    return over(ratio, x) * x + over(variance.clamp(min=1e-8).sqrt(), x) * fresh


def noisier_times(
    state: State, levels: Noise, share: Tensor, *, separate: bool, edge: float = 0.02
) -> Tensor:
    """The times ``[b]`` at which student and teacher are compared, `share` ``[b]`` in 0..1 of the way.

    Between the step's lower end and, with `separate`, its own start, so that the segments of
    different steps do not overlap (TDM); without, and in BLADE, pure noise. `edge` keeps clear of
    both ends of all times, where scores say nothing or diverge, but never of more than half of a
    segment: with a shift of 8, the first of 8 steps ends at 0.98 of the noise.
    """
    top = state.start if separate else torch.full_like(state.start, levels.steps)
    middle = (state.end + top) / 2
    low = torch.maximum(state.end, middle.clamp(max=edge * levels.steps))
    high = torch.minimum(top, middle.clamp(min=(1 - edge) * levels.steps))
    return low + (high - low) * share
