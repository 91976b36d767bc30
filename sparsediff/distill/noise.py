"""Noise levels of a diffusion model: how clean and noise are mixed, and what its output means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Level:
    """Noise levels of a batch, each ``[b]`` fp32: x = alpha * clean + sigma * noise.

    ``timestep`` is what the scheduler calls the level, which is what the model is told.
    """

    alpha: Tensor
    sigma: Tensor
    timestep: Tensor


class Noise(Protocol):
    """The noise levels of one kind of model. Times are in the scheduler's training steps.

    0 is the time of the clean end.
    """

    @property
    def steps(self) -> int:
        """The time of pure noise."""

    def at(self, time: Tensor) -> Level:
        """The levels at times ``[b]`` in 0..steps."""

    def split(self, x: Tensor, output: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Clean and noise that a model means by its output at `level`, both as x ``[b, ...]``."""

    def target(self, clean: Tensor, noise: Tensor, level: Level) -> Tensor:
        """The output of a perfect model for `clean` and `noise` mixed at `level`: ``[b, ...]``."""

    def gain(self, level: Level) -> Tensor:
        """How much the clean sample changes with the model's output: ``[b]``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowNoise:
    """Flow matching: x = (1 - s) clean + s noise, and the model gives noise - clean."""

    steps: int = 1000

    def at(self, time: Tensor) -> Level:
        """The levels at times ``[b]`` in 0..steps."""
        sigma = time.float() / self.steps
        return Level(alpha=1 - sigma, sigma=sigma, timestep=time.float())

    def split(self, x: Tensor, output: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Clean x - s v and noise x + (1 - s) v of the velocity v."""
        velocity = output.float()
        clean = x - over(level.sigma, x) * velocity
        return clean, x + over(level.alpha, x) * velocity

    def target(self, clean: Tensor, noise: Tensor, level: Level) -> Tensor:
        """The velocity, at every level."""
        return noise - clean

    def gain(self, level: Level) -> Tensor:
        """Sigma: the clean sample is x - s v."""
        return level.sigma


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TableNoise:
    """Variance preserving: alpha² + sigma² = 1 from a table, alpha² being ``signal`` ``[steps + 1]``.

    ``signal[0]`` is the level that the last step of a sampler ends at, ``signal[t + 1]`` that of
    timestep t. ``prediction``: what the model gives: "epsilon", "v_prediction" or "sample".
    """

    signal: Tensor
    prediction: str

    def __post_init__(self) -> None:
        if self.prediction not in {"epsilon", "v_prediction", "sample"}:
            raise SparseError(
                f"prediction={self.prediction!r}: needs epsilon, v_prediction or sample."
            )

    @property
    def steps(self) -> int:
        """The time of pure noise."""
        return len(self.signal) - 1

    def at(self, time: Tensor) -> Level:
        """The levels at times ``[b]`` in 0..steps, rounded to whole ones."""
        whole = time.round().long()
        signal = self.signal.to(time.device)[whole].float()
        return Level(
            alpha=signal.sqrt(), sigma=(1 - signal).sqrt(), timestep=(whole - 1).clamp(min=0)
        )

    def split(self, x: Tensor, output: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Clean and noise, by the kind of prediction."""
        alpha, sigma, given = over(level.alpha, x), over(level.sigma, x), output.float()
        if self.prediction == "v_prediction":
            return alpha * x - sigma * given, alpha * given + sigma * x
        if self.prediction == "sample":
            return given, (x - alpha * given) / sigma
        # At pure noise (zero terminal SNR) epsilon says nothing of the clean sample.
        return (x - sigma * given) / alpha.clamp(min=1e-6), given

    def target(self, clean: Tensor, noise: Tensor, level: Level) -> Tensor:
        """Noise, v = alpha noise - sigma clean, or the clean sample."""
        if self.prediction == "v_prediction":
            return over(level.alpha, clean) * noise - over(level.sigma, clean) * clean
        return clean if self.prediction == "sample" else noise

    def gain(self, level: Level) -> Tensor:
        """Sigma of v; of epsilon sigma / alpha, which at Stable Diffusion's noisiest is 15."""
        if self.prediction == "epsilon":
            return level.sigma / level.alpha.clamp(min=1e-6)
        return torch.ones_like(level.sigma) if self.prediction == "sample" else level.sigma


def noise_of(scheduler: Any) -> Noise:
    """The noise levels that a diffusers scheduler stands for.

    Raises SparseError for one of another kind, such as a consistency model's.
    """
    config = scheduler.config
    flow = "FlowMatch" in type(scheduler).__name__ or config.get("use_flow_sigmas", False)
    if flow or config.get("prediction_type") == "flow_prediction":
        return FlowNoise(steps=int(config.num_train_timesteps))
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        raise SparseError(
            f"{type(scheduler).__name__} is neither a flow-matching scheduler nor has a table of "
            f"alphas_cumprod. Training knows these two; give the pipeline such a scheduler."
        )
    final = getattr(scheduler, "final_alpha_cumprod", table[0])
    signal = torch.cat([torch.as_tensor(final).reshape(1).to(table), table])
    return TableNoise(signal=signal, prediction=config.get("prediction_type", "epsilon"))


def over(values: Tensor, x: Tensor) -> Tensor:
    """Values ``[b]`` shaped to multiply x ``[b, ...]``."""
    return values.to(x.device).view(-1, *[1] * (x.ndim - 1))
