"""MmdObjective: few steps fine-tuned on real samples (MMD-DDM), as a trainer's objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.mmd_loss import Features, mmd_loss
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.sample_chain import sample_chain
from sparsediff.distill.training.actors import Actors
from sparsediff.distill.training.objective import Samples, Update
from sparsediff.distill.training.roles import Role
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import Setup
from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FromNoise:
    """Starting noise ``x`` ``[b, ...]``, and real samples ``[b, ...]`` to compare what comes of it."""

    x: Tensor
    real: Tensor
    conditions: Conditions


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MmdObjective:
    """The whole few-step chain is differentiated; what it ends with must look like ``real``.

    ``real`` ``[n, ...]`` in the form that ``decode`` gives latents; ``features`` compares them. A batch
    needs two samples at least, a useful one dozens.
    """

    setup: Setup
    settings: DistillSettings
    device: torch.device
    real: Tensor
    features: Features
    decode: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        if self.settings.batch < 2 or len(self.real) < 2:
            raise SparseError(
                f"batch={self.settings.batch}, {len(self.real)} real samples: the discrepancy of "
                f"distributions needs two at least of each, and says little below some dozens."
            )

    @property
    def learners(self) -> Sequence[Role]:
        """The student alone: there is no score to keep up with."""
        return ("student",)

    def prepare(self, samples: Samples) -> FromNoise:
        """Noise and real samples of a micro-batch."""
        seeds = [seed_of(self.settings.seed, "sample", number) for number in samples.numbers]
        draws = Draws(seeds)
        shape = (len(seeds), *self.setup.inputs.shape)
        x = draws.normal(torch.empty(shape, device=self.device))
        chosen = (draws.uniform() * len(self.real)).long()
        return FromNoise(x=x, real=self.real[chosen].to(self.device), conditions=samples.conditions)

    def updates(self) -> Sequence[Update]:
        """The student, once."""
        return [("student", self._loss)]

    def _loss(self, part: FromNoise) -> Tensor:
        student = Actors(setup=self.setup, conditions=part.conditions).student()
        latents = sample_chain(student, self.setup.levels, self.setup.grid, part.x)
        return mmd_loss(self.decode(latents), part.real, self.features).float()
