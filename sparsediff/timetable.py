"""Timetable: where a run is, by the scheduler of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

_ROUNDING = 2.0**-8  # of a timestep that a pipeline casts to bfloat16 before the model sees it


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Timetable:
    """What a scheduler says of the run in progress.

    ``timesteps`` the noise levels of its steps ``[n]``, a new tensor for every run; ``position`` the
    step that comes next, or None where the scheduler does not count and before its first step;
    ``begin`` the step at which image-to-image starts, None where nobody told the scheduler.
    """

    timesteps: Tensor
    position: int | None = None
    begin: int | None = None

    @classmethod
    def of(cls, scheduler: Any, *, spent: Tensor | None) -> Self | None:
        """The timetable of a scheduler; None when it does not count here.

        A model that two pipelines share may be called by the other one: this scheduler then stands
        where its own last run left it (`spent` is that run's timesteps), or was never started.
        """
        timesteps = getattr(scheduler, "timesteps", None)
        if timesteps is None or not getattr(scheduler, "num_inference_steps", None):
            return None
        position = getattr(scheduler, "step_index", None)
        if position is None and not hasattr(scheduler, "step_index"):
            position = getattr(scheduler, "counter", None)  # PNDM, whose timesteps repeat
        if timesteps is spent or (position is not None and position >= len(timesteps)):
            return None
        begin = getattr(scheduler, "begin_index", None)
        return cls(timesteps=timesteps, position=position, begin=begin)

    def first_step(self, noise: float | None) -> int:
        """The step at which the run begins, whose first forward is at the noise level `noise`.

        Video-to-video leaves out the first timesteps without telling the scheduler. A noise level that
        is in another unit than the timesteps, or unknown, says nothing: the run begins at 0.
        """
        if self.begin is not None or noise is None:
            return self.begin or 0
        apart = (self.timesteps.double() - noise).abs()
        nearest = apart.argmin()
        step, distance = torch.stack([nearest.double(), apart[nearest]]).tolist()
        return int(step) if distance <= abs(noise) * _ROUNDING else 0
