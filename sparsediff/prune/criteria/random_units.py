"""RandomUnits: units drawn by lot, the floor that every criterion must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from sparsediff.distill.draws import seed_of
from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.scores import Scores
from sparsediff.prune.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomUnits(Criterion):
    """Scores drawn by lot; the draw of a layer depends on ``seed`` and its name only."""

    name: ClassVar[str] = "random"

    seed: int = 0

    def scores(self, subject: Subject) -> Scores:
        """Uniform in 0..1."""
        values = {}
        for one in subject.structures:
            generator = torch.Generator().manual_seed(seed_of("random units", self.seed, one.key))
            values[one.key] = torch.rand(one.units, generator=generator)
        return Scores(values=values)
