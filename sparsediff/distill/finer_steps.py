"""Several steps of a sampler as if they were one (Salimans & Ho, arXiv 2202.00512 §3)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sparsediff.distill.noise import Level, Noise, over
from sparsediff.distill.trajectory import State, step_down


def clean_of_steps(
    teacher: Callable[[Tensor, Level], Tensor], levels: Noise, state: State, *, steps: int
) -> Tensor:
    """The clean sample ``[b, ...]`` that leads in one step to where the teacher comes in `steps`.

    ``teacher`` gives the clean sample at a place; the `steps` are equal parts of the time from
    ``state.start`` to ``state.end``, each an ODE step. With one it is what the teacher sees at
    ``state.x``.
    """
    x, here = state.x, levels.at(state.start)
    clean = teacher(x, here)
    if steps == 1:
        return clean
    for number in range(1, steps + 1):
        there = levels.at(state.start + (state.end - state.start) * (number / steps))
        noise = (x - over(here.alpha, x) * clean) / over(here.sigma, x)
        x, here = step_down(clean, noise, there, 0.0, noise), there
        if number < steps:
            clean = teacher(x, here)
    return clean_between(state.x, x, levels.at(state.start), here)


def clean_between(x: Tensor, end: Tensor, here: Level, there: Level) -> Tensor:
    """The clean sample of an ODE step that goes from `x` at level `here` to `end` at `there`.

    x = a clean + s noise and end = a' clean + s' noise give (s end - s' x) / (s a' - s' a).
    """
    span = here.sigma * there.alpha - there.sigma * here.alpha
    clean: Tensor = (over(here.sigma, x) * end - over(there.sigma, x) * x) / over(span, x)
    return clean
