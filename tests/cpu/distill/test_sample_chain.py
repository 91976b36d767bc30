"""The differentiable chain: diffusers' own steps, exact gradients, and a toy that it improves."""

from __future__ import annotations

import math
from collections.abc import Callable

import diffusers
import pytest
import torch
from torch import Tensor, nn

from sparsediff.distill.grid import StepGrid
from sparsediff.distill.mmd_loss import mmd_squared
from sparsediff.distill.noise import FlowNoise, Level, Noise, TableNoise, noise_of, over
from sparsediff.distill.sample_chain import sample_chain

FLOAT32 = 2.0**-23


class Toy(nn.Module):
    """A model of points that is told the level; counts its calls."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )
        self.calls = 0

    def forward(self, x: Tensor, level: Level) -> Tensor:
        self.calls += 1
        told = torch.stack([level.alpha, level.sigma], dim=1).to(x)
        out: Tensor = self.layers(torch.cat([x, told], dim=1))
        return out


def denoiser(model: Toy, levels: Noise) -> Callable[[Tensor, Level], tuple[Tensor, Tensor]]:
    return lambda x, level: levels.split(x, model(x, level), level)


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_it_is_ddim_without_fresh_noise(toy: Toy, prediction: str) -> None:
    scheduler = diffusers.DDIMScheduler(
        timestep_spacing="trailing", prediction_type=prediction, clip_sample=False
    )
    scheduler.set_timesteps(5)
    levels = noise_of(scheduler)
    x = torch.randn(6, 2)
    chain = sample_chain(denoiser(toy, levels), levels, StepGrid.of(scheduler, levels), x)
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = toy(x, levels.at(torch.full((6,), float(t) + 1)))
            x = scheduler.step(output, t, x, eta=0.0).prev_sample
    assert chain.requires_grad
    # Five steps of a few float32 operations each; epsilon is divided by alpha, least at pure noise.
    scale = float(levels.at(torch.tensor([1000.0])).alpha) ** -1
    torch.testing.assert_close(chain.detach(), x, rtol=64 * FLOAT32, atol=64 * FLOAT32 * scale)


def test_it_is_euler_for_flow_matching(toy: Toy) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    levels = noise_of(scheduler)
    x = torch.randn(6, 2)
    chain = sample_chain(denoiser(toy, levels), levels, StepGrid.of(scheduler, levels), x)
    with torch.no_grad():
        for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
            output = toy(x, levels.at(sigma.expand(6) * 1000))
            x = scheduler.step(output, t, x).prev_sample
    torch.testing.assert_close(chain.detach(), x, rtol=64 * FLOAT32, atol=64 * FLOAT32)


def test_computing_steps_again_changes_no_gradient(toy: Toy) -> None:
    levels, grid = FlowNoise(), StepGrid(times=(1000.0, 600.0, 250.0, 0.0))
    gradients = []
    for keep, calls in ((True, 3), (False, 6)):
        toy.calls = 0
        x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        sample_chain(denoiser(toy, levels), levels, grid, x, keep=keep).square().sum().backward()
        assert toy.calls == calls
        gradients.append(
            [x.grad, *(p.grad.clone() for p in toy.parameters() if p.grad is not None)]
        )
        toy.zero_grad()
    assert len(gradients[0]) == 1 + len(list(toy.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_without_gradients_each_step_runs_once(toy: Toy) -> None:
    levels = FlowNoise()
    with torch.no_grad():
        sample_chain(
            denoiser(toy, levels), levels, StepGrid(times=(1000.0, 500.0, 0.0)), torch.randn(3, 2)
        )
    assert toy.calls == 2


def test_the_gradient_is_that_of_the_chain() -> None:
    """By finite differences, through every step."""
    torch.manual_seed(1)
    toy = Toy(4).double()
    signal = torch.linspace(0.99, 0.05, 11, dtype=torch.float64)
    levels = TableNoise(signal=signal, prediction="v_prediction")
    grid = StepGrid(times=(10.0, 5.0, 0.0))

    def split(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        # Noise.split computes in fp32, which finite differences do not bear.
        given, alpha, sigma = toy(x, level), over(level.alpha, x), over(level.sigma, x)
        return alpha * x - sigma * given, alpha * given + sigma * x

    x = torch.randn(2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sample_chain(split, levels, grid, x), (x,))


class Corrected(nn.Module):
    """The exact denoiser of eight points on a circle (scale 0.1), and a correction that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(8) * math.pi / 4
        self.centers = torch.stack([angles.cos(), angles.sin()], dim=1)
        self.correction = Toy(64)
        nn.init.zeros_(self.correction.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.correction.layers[-1].bias)  # type: ignore[arg-type]

    def points(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        chosen = self.centers[torch.randint(0, 8, (count,), generator=generator)]
        return chosen + 0.1 * torch.randn(count, 2, generator=generator)

    def forward(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        variance = (0.1 * alpha) ** 2 + sigma**2
        means = alpha[:, None] * self.centers
        nearness = -(x[:, None] - means).square().sum(-1) / (2 * variance)
        center = nearness.softmax(1) @ self.centers
        clean = center + 0.01 * alpha / variance * (x - alpha * center)
        clean = clean + self.correction(x, level)
        return clean, (x - alpha * clean) / sigma


def sliced_distance(x: Tensor, y: Tensor) -> float:
    """Mean absolute difference of sorted projections onto 32 directions."""
    angles = torch.arange(32) * math.pi / 32
    directions = torch.stack([angles.cos(), angles.sin()])
    return float(((x @ directions).sort(0).values - (y @ directions).sort(0).values).abs().mean())


def test_fine_tuning_two_steps_brings_them_to_the_data() -> None:
    """In two steps the exact denoiser falls short of the circle; judged by what was not trained on."""
    torch.manual_seed(0)
    model, levels, grid = Corrected(), FlowNoise(), StepGrid(times=(1000.0, 500.0, 0.0))
    optimizer = torch.optim.Adam(model.correction.parameters(), lr=3e-3)
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(7))

    def distances() -> tuple[float, float]:
        with torch.no_grad():
            samples = sample_chain(model, levels, grid, noise)
        real = model.points(2000, seed=8)
        return sliced_distance(samples, real), float(mmd_squared(samples, real))

    before = distances()
    for step in range(60):
        samples = sample_chain(model, levels, grid, torch.randn(256, 2))
        loss = mmd_squared(samples, model.points(256, seed=100 + step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = distances()
    assert after[0] < 0.5 * before[0]
    assert after[1] < 0.2 * before[1]
