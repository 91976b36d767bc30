"""TrajectoryMatching: one round of trajectory distribution matching (Video-BLADE §3.2-3.3; TDM)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws
from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import Level, Noise
from sparsediff.distill.tdm_loss import fake_loss, student_loss
from sparsediff.distill.trajectory import (
    Denoise,
    State,
    diffuse,
    noisier_times,
    roll_out,
    step_down,
)

# The teacher or the fake at a noise level: only the clean sample is asked for.
Clean = Callable[[Tensor, Level], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryMatching:
    """The student's few steps and how they are compared with the teacher.

    ``churn``, ``separate``: as in `step_down` and `noisier_times`; ``huber``, ``normalise``: as in
    `student_loss`; ``nearness``: weight of BLADE's regulariser that keeps the fake near the teacher;
    ``to_the_end``: roll out all steps, also those after the last that is picked: the processes of a
    sharded model must call it equally often, and pick different steps.
    """

    levels: Noise
    grid: StepGrid
    churn: float = 0.0
    separate: bool = True
    huber: float = 1e-3
    normalise: bool = True
    nearness: float = 0.0
    to_the_end: bool = False

    def states(self, student: Denoise, x: Tensor, picks: Tensor, draws: Draws) -> State:
        """Roll the student out from noise ``[b, ...]``; the steps `picks` ``[b, n]`` of it."""
        last = None if self.to_the_end else int(picks.max()) + 1
        rolled = roll_out(
            student, self.levels, self.grid, x, last=last, churn=self.churn, draws=draws
        )
        items = torch.arange(len(x), device=x.device).repeat_interleave(picks.shape[1])
        steps = picks.flatten().to(x.device)

        def picked(name: str) -> Tensor:
            return torch.stack([getattr(state, name) for state in rolled])[steps, items]

        return State(**{name: picked(name) for name in State.__slots__})

    def fake_loss(
        self, state: State, fake: Clean, draws: Draws, teacher: Clean | None = None
    ) -> Tensor:
        """Teach the fake what the student's samples look like through noise; a scalar."""
        x, level = self._compared(state, state.clean, state.noise, draws)
        seen = fake(x, level)
        gain = self.levels.gain(level)
        loss = fake_loss(seen, state.clean, gain)
        if self.nearness and teacher is not None:
            with torch.no_grad():
                real = teacher(x, level)
            loss = loss + self.nearness * fake_loss(seen, real, gain)
        return loss

    def student_loss(
        self, state: State, student: Denoise, teacher: Clean, fake: Clean, draws: Draws
    ) -> Tensor:
        """Only the picked step of the student is differentiated, never the place compared at.

        Each step weighs sigma / gain: as strong a gradient to the model's output as a velocity's has.
        That is 1 with flow matching and v, and alpha with epsilon, whose noisiest step, 15 times the
        next one's in Stable Diffusion, would be all that is learned.
        """
        start = self.levels.at(state.start)
        clean, noise = student(state.x, start)
        with torch.no_grad():
            x, level = self._compared(state, clean, noise, draws)
            real, seen = teacher(x, level), fake(x, level)
        weight = start.sigma / self.levels.gain(start)
        return student_loss(
            clean, real, seen, huber=self.huber, normalise=self.normalise, weight=weight
        )

    def _compared(
        self, state: State, clean: Tensor, noise: Tensor, draws: Draws
    ) -> tuple[Tensor, Level]:
        """The end of the student's step, noised further: where the two scores are compared."""
        clean, noise = clean.detach(), noise.detach()
        end = self.levels.at(state.end)
        fresh = draws.normal(clean) if self.churn else noise
        place = step_down(clean, noise, end, self.churn, fresh)
        share = draws.uniform(clean.device)
        level = self.levels.at(noisier_times(state, self.levels, share, separate=self.separate))
        return diffuse(place, end, level, draws.normal(clean)), level
