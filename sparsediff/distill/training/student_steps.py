"""StudentSteps: the student rolled out from noise, and the steps of it that are learnt from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.training.actors import Actors
from sparsediff.distill.training.objective import Samples
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import Setup
from sparsediff.distill.trajectory import State


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StudentSteps:
    """``settings.segments`` picked steps of each sample's trajectory, and what it was told."""

    state: State
    conditions: Conditions

    @classmethod
    def of(
        cls, setup: Setup, settings: DistillSettings, samples: Samples, device: torch.device
    ) -> StudentSteps:
        """Roll the student out; noise and picks follow from the samples' numbers."""
        draws = Draws([seed_of(settings.seed, "sample", number) for number in samples.numbers])
        x = draws.normal(torch.empty(len(samples.numbers), *setup.inputs.shape, device=device))
        picks = draws.picks(settings.segments, setup.grid.steps)
        student = Actors(setup=setup, conditions=samples.conditions).student()
        state = setup.matching.states(student, x, picks, draws)
        items = torch.arange(len(samples.numbers)).repeat_interleave(settings.segments)
        return cls(state=state, conditions=samples.conditions.select(items))
