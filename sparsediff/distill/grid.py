"""StepGrid: the noise levels that a few-step sampler visits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sparsediff.distill.noise import FlowNoise, Noise
from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepGrid:
    """Times of a run's steps, falling to 0; step n goes from ``times[n]`` to ``times[n + 1]``.

    Raises SparseError unless they fall.
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in pairwise(self.times))
        if len(self.times) < 2 or not falling or self.times[-1] != 0:
            raise SparseError(
                f"times={self.times}: needs at least one step, and times that fall to 0."
            )

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.times) - 1

    @classmethod
    def of(cls, scheduler: Any, noise: Noise) -> StepGrid:
        """The grid of a diffusers scheduler whose timesteps are set, as its own steps go."""
        if isinstance(noise, FlowNoise):
            times = [float(sigma) * noise.steps for sigma in scheduler.sigmas]
            return cls(times=(*times[:-1], 0.0))
        times = [float(t) + 1 for t in scheduler.timesteps]
        stride = noise.steps // len(times)
        if any(start - end != stride for start, end in pairwise([*times, 0.0])):
            raise SparseError(
                f"{type(scheduler).__name__} steps by {stride} of {noise.steps} training steps, but "
                f"its timesteps are {[int(t) - 1 for t in times]}. Take a number of steps that divides "
                f"{noise.steps}, with timestep_spacing='trailing'."
            )
        return cls(times=(*times, 0.0))
