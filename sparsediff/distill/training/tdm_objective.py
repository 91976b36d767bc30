"""TdmObjective: trajectory distribution matching as a trainer's objective (Video-BLADE §3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.training.actors import Actors
from sparsediff.distill.training.objective import Samples, Update
from sparsediff.distill.training.roles import TRAINED, Role
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import Setup
from sparsediff.distill.training.student_steps import StudentSteps
from sparsediff.distill.trajectory import State


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RolledOut:
    """Steps of the student's trajectories, with a seed for what is drawn at each."""

    state: State
    conditions: Conditions
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TdmObjective:
    """The fake learns the student's samples, then the student follows teacher minus fake."""

    setup: Setup
    settings: DistillSettings
    device: torch.device

    @property
    def learners(self) -> Sequence[Role]:
        """Student and fake."""
        return TRAINED

    def prepare(self, samples: Samples) -> RolledOut:
        """Roll the student out, and pick the steps to learn from."""
        settings = self.settings
        steps = StudentSteps.of(self.setup, settings, samples, self.device)
        seeds = [
            seed_of(settings.seed, "state", number, place)
            for number in samples.numbers
            for place in range(settings.segments)
        ]
        return RolledOut(state=steps.state, conditions=steps.conditions, seeds=tuple(seeds))

    def updates(self) -> Sequence[Update]:
        """The fake as often as the settings say, then the student."""
        fakes: list[Update] = [
            ("fake", partial(self._fake_loss, number))
            for number in range(self.settings.fake_updates)
        ]
        return [*fakes, ("student", self._student_loss)]

    def _fake_loss(self, number: int, part: RolledOut) -> Tensor:
        actors = Actors(setup=self.setup, conditions=part.conditions)
        draws = Draws([seed_of(seed, "fake", number) for seed in part.seeds])
        return self.setup.matching.fake_loss(
            part.state, actors.fake(), draws, teacher=actors.teacher(guidance=1.0)
        )

    def _student_loss(self, part: RolledOut) -> Tensor:
        actors = Actors(setup=self.setup, conditions=part.conditions)
        draws = Draws([seed_of(seed, "student") for seed in part.seeds])
        teacher = actors.teacher(guidance=self.setup.guidance)
        return self.setup.matching.student_loss(
            part.state, actors.student(), teacher, actors.fake(), draws
        )
