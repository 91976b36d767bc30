"""ImitationObjective: the student gives, on its own trajectory, what the guided teacher gives there.

Guidance distillation (Meng et al., arXiv 2210.03142 §3.1), but data-free: the places are those that the
student itself comes to. One target for every place, so far less noise than matching distributions; the
student can become as good as the teacher in as many steps, or in ``teacher_steps`` times as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.distill.finer_steps import clean_of_steps
from sparsediff.distill.noise import over
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.training.actors import Actors
from sparsediff.distill.training.objective import Samples, Update
from sparsediff.distill.training.roles import Role
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import Setup
from sparsediff.distill.training.student_steps import StudentSteps
from sparsediff.distill.trajectory import State

# Below this root mean square an error counts as its square.
_LEAST = 0.03


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shown:
    """Places on the student's trajectories, and the clean sample ``[b, ...]`` to see there."""

    state: State
    clean: Tensor
    conditions: Conditions


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImitationObjective:
    """The student alone learns; its error is that of the model's output, velocity or epsilon.

    Of every place the root mean square counts, not the square: in the first step, out of pure noise,
    guidance moves the output by as much as the output is large, and ten times further than later.
    """

    setup: Setup
    settings: DistillSettings
    device: torch.device

    @property
    def learners(self) -> Sequence[Role]:
        """The student alone: nobody has to know what its samples look like."""
        return ("student",)

    @torch.no_grad()
    def prepare(self, samples: Samples) -> Shown:
        """Roll the student out, and ask the teacher at some of the places."""
        setup = self.setup
        steps = StudentSteps.of(setup, self.settings, samples, self.device)
        teacher = Actors(setup=setup, conditions=steps.conditions).teacher(guidance=setup.guidance)
        count = self.settings.teacher_steps
        clean = clean_of_steps(teacher, setup.levels, steps.state, steps=count)
        return Shown(state=steps.state, clean=clean, conditions=steps.conditions)

    def updates(self) -> Sequence[Update]:
        """The student, once."""
        return [("student", self._loss)]

    def _loss(self, part: Shown) -> Tensor:
        level = self.setup.levels.at(part.state.start)
        student = Actors(setup=self.setup, conditions=part.conditions).student()
        clean, _ = student(part.state.x, level)
        error = (clean - part.clean) / over(self.setup.levels.gain(level), clean)
        return (error.square().flatten(1).mean(dim=1) + _LEAST**2).sqrt().mean()
