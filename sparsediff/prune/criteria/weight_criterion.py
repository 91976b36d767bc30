"""WeightCriterion: criteria that look at each weight, with or without what flows through it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsediff.prune.criteria.criterion import Criterion
from sparsediff.prune.layer_inputs import LayerInputs
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import Cut, Structure
from sparsediff.prune.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightCriterion(Criterion):
    """A metric of every weight, and a unit's score from those of its weights."""

    def inputs(self, subject: Subject) -> LayerInputs | None:
        """What the criterion must have seen flow through the layers; None for nothing."""
        return None

    @abstractmethod
    def metric(self, model: nn.Module, one: Structure, inputs: LayerInputs | None) -> Tensor:
        """How much each weight matters: fp32 ``[units, weights of a unit]``."""

    @abstractmethod
    def unit_scores(self, model: nn.Module, one: Structure, inputs: LayerInputs | None) -> Tensor:
        """How much each unit matters among those of its layer: ``[units]``."""

    @torch.no_grad()
    def scores(self, subject: Subject) -> Scores:
        """The scores of every structure."""
        inputs = self.inputs(subject)
        return Scores(
            values={
                one.key: self.unit_scores(subject.model, one, inputs) for one in subject.structures
            }
        )


def unit_weights(matrix: Tensor, cut: Cut, units: int) -> Tensor:
    """The units' parts of what belongs to a layer's weight ``[out, in]``: ``[units, places]``."""
    places = slice(cut.start, cut.start + units * cut.width)
    part = matrix[places] if cut.side == "out" else matrix[:, places].T
    return part.reshape(units, -1)
