"""A 2-D distribution whose teacher is known exactly: eight Gaussians on a ring, at any noise level."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sparsediff.distill.grid import StepGrid
from sparsediff.distill.matching import TrajectoryMatching
from sparsediff.distill.noise import FlowNoise, Level, Noise, TableNoise
from sparsediff.distill.trajectory import roll_out

CENTRES = 1.5 * torch.tensor(
    [[math.cos(n * math.pi / 4), math.sin(n * math.pi / 4)] for n in range(8)]
)
WIDTH = 0.12
STEPS = 2
GRID = StepGrid(times=(1000.0, 500.0, 0.0))


def stable_diffusion_levels(prediction: str) -> TableNoise:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = torch.cat([torch.ones(1), (1 - betas).cumprod(0)])
    return TableNoise(signal=signal, prediction=prediction)


def levels_of(kind: str) -> Noise:
    return FlowNoise() if kind == "flow" else stable_diffusion_levels(kind)


def samples(count: int) -> Tensor:
    return CENTRES[torch.randint(8, (count,))] + WIDTH * torch.randn(count, 2)


def posterior_mean(x: Tensor, level: Level) -> Tensor:
    """E[clean | x], what a perfect teacher sees."""
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    variance = alpha**2 * WIDTH**2 + sigma**2
    away = x[:, None] - alpha[:, None] * CENTRES
    belief = (-away.square().sum(-1) / (2 * variance)).softmax(dim=1)
    shrink = alpha * WIDTH**2 / variance
    return (belief[..., None] * (CENTRES + shrink[:, None] * away)).sum(1)


class Net(nn.Module):
    """What a model gives, velocity or epsilon, from x ``[b, 2]`` and the timestep."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        sizes = (18, width, width, width)
        layers = [(nn.Linear(a, b), nn.SiLU()) for a, b in pairwise(sizes)]
        self.net = nn.Sequential(*[part for pair in layers for part in pair], nn.Linear(width, 2))
        self.frequencies = 2.0 ** torch.arange(8) * 0.5 * math.pi

    def forward(self, x: Tensor, level: Level) -> Tensor:
        angles = level.timestep[:, None] / 1000 * self.frequencies
        return self.net(torch.cat([x, angles.sin(), angles.cos()], dim=1))


def denoise(net: Net, levels: Noise) -> Any:
    return lambda x, level: levels.split(x, net(x, level), level)


class BatchDraws:
    """Draws of a whole batch: a generator for each of 256 samples takes most of the time."""

    def __init__(self, count: int) -> None:
        self.count = count

    def normal(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)

    def uniform(self, device: Any = "cpu") -> Tensor:
        return torch.rand(self.count, device=device)


def pretrained(levels: Noise, iterations: int = 400) -> Net:
    """A net regressed on the perfect teacher's output."""
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, iterations)
    for _ in range(iterations):
        level = levels.at(1 + 999 * torch.rand(256))
        x = level.alpha[:, None] * samples(256) + level.sigma[:, None] * torch.randn(256, 2)
        clean = denoise(net, levels)(x, level)[0]
        loss = ((clean - posterior_mean(x, level)) / levels.gain(level)[:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return net


def distilled(
    teacher: Net,
    levels: Noise,
    iterations: int,
    *,
    pull: float = 1.0,
    settings: dict[str, Any] | None = None,
) -> Net:
    """The student of the library's own losses; `pull` scales real - fake, 1 is the objective."""
    student, fake = copy.deepcopy(teacher), copy.deepcopy(teacher)
    optimizers = [
        torch.optim.AdamW(net.parameters(), rate, betas=(0.0, 0.95))
        for net, rate in ((student, 2e-4), (fake, 1e-3))
    ]
    falling = [torch.optim.lr_scheduler.LinearLR(one, 1.0, 0.05, iterations) for one in optimizers]
    matching = TrajectoryMatching(levels=levels, grid=GRID, **(settings or {}))
    draws: Any = BatchDraws(256)

    def fakely(x: Tensor, level: Level) -> Tensor:
        return denoise(fake, levels)(x, level)[0]

    def pulled(x: Tensor, level: Level) -> Tensor:
        seen = fakely(x, level)
        return seen + pull * (posterior_mean(x, level) - seen)

    for _ in range(iterations):
        picks = torch.randint(0, STEPS, (256, 1))
        state = matching.states(denoise(student, levels), torch.randn(256, 2), picks, draws)
        _step(optimizers[1], matching.fake_loss(state, fakely, draws))
        seen = denoise(student, levels)
        _step(optimizers[0], matching.student_loss(state, seen, pulled, fakely, draws))
        for schedule in falling:
            schedule.step()
    return student


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()


def sampled(clean_of: Any, levels: Noise, count: int = 4000) -> Tensor:
    """The end of two-step trajectories."""
    return roll_out(clean_of, levels, GRID, torch.randn(count, 2))[-1].clean


def perfect(levels: Noise) -> Any:
    """The perfect teacher as a denoiser."""

    def seen(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        clean = posterior_mean(x, level)
        return clean, (x - level.alpha[:, None] * clean) / level.sigma[:, None]

    return seen


def sliced_wasserstein(one: Tensor, other: Tensor) -> float:
    """Mean distance of the two along 64 directions."""
    angles = torch.arange(64) / 64 * math.pi
    along = torch.stack([angles.cos(), angles.sin()])
    apart = (one @ along).sort(0).values - (other @ along).sort(0).values
    return float(apart.abs().mean())
