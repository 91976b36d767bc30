"""Several steps as one: the one clean sample leads where they lead, for every kind of noise."""

from __future__ import annotations

import pytest
import torch
from gaussian_ring import levels_of
from torch import Tensor

from sparsediff.distill.finer_steps import clean_of_steps
from sparsediff.distill.noise import Level, Noise, over
from sparsediff.distill.trajectory import State, step_down

KINDS = ["flow", "epsilon", "v_prediction", "sample"]
WIDTH = 0.5  # of the clean samples, which are N(0, WIDTH²)


def perfect(x: Tensor, level: Level) -> Tensor:
    """The mean of the clean samples that x may come from."""
    spread = (level.alpha * WIDTH) ** 2 + level.sigma**2
    return over(level.alpha * WIDTH**2 / spread, x) * x


def spread_at(level: Level) -> Tensor:
    return ((level.alpha * WIDTH) ** 2 + level.sigma**2).sqrt()


def state_of(levels: Noise, start: float, end: float) -> State:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    times = [torch.full((2,), share * levels.steps).round() for share in (start, end)]
    return State(x=x, start=times[0], end=times[1], clean=x, noise=x)


def end_of(levels: Noise, state: State, steps: int) -> Tensor:
    """Where one step with the clean sample of `steps` leads."""
    clean = clean_of_steps(perfect, levels, state, steps=steps)
    start = levels.at(state.start)
    noise = (state.x - over(start.alpha, clean) * clean) / over(start.sigma, clean)
    return step_down(clean, noise, levels.at(state.end), 0.0, noise)


@pytest.mark.parametrize("ends", [(0.9, 0.4), (0.5, 0.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_many_steps_follow_the_ode(kind: str, ends: tuple[float, float]) -> None:
    """Of Gaussian samples the ODE is known: x keeps its share of the spread."""
    levels = levels_of(kind)
    state = state_of(levels, *ends)
    start, end = levels.at(state.start), levels.at(state.end)
    exact = over(spread_at(end) / spread_at(start), state.x) * state.x
    errors = [float((end_of(levels, state, n) - exact).abs().max()) for n in (1, 2, 8, 32)]
    # First order: four times the steps leave a quarter of the error, once the steps are small.
    assert errors[0] > errors[1] > 2 * errors[2] > 2 * 3 * errors[3]


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_is_what_the_teacher_sees(kind: str) -> None:
    levels = levels_of(kind)
    state = state_of(levels, 0.9, 0.4)
    seen = clean_of_steps(perfect, levels, state, steps=1)
    assert torch.equal(seen, perfect(state.x, levels.at(state.start)))


def test_the_teacher_is_asked_at_equal_parts_of_the_step() -> None:
    levels, asked = levels_of("flow"), []

    def teacher(x: Tensor, level: Level) -> Tensor:
        asked.append(float(level.timestep[0]))
        return perfect(x, level)

    clean_of_steps(teacher, levels, state_of(levels, 0.8, 0.2), steps=3)
    assert asked == pytest.approx([800, 600, 400])
