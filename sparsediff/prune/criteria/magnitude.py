"""Magnitude: units with small weights matter little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsediff.prune.criteria.weight_criterion import WeightCriterion, unit_weights
from sparsediff.prune.layer_inputs import LayerInputs
from sparsediff.prune.scores import alike
from sparsediff.prune.structures import Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Magnitude(WeightCriterion):
    """The norm of all weights of a unit, over the mean of its layer; biases are not looked at.

    Of a block, the root mean square of all its weights.
    """

    name: ClassVar[str] = "magnitude"

    def metric(self, model: nn.Module, one: Structure, inputs: LayerInputs | None) -> Tensor:
        """|W| of the rows and columns of every unit."""
        if one.kind == "blocks":
            found = [
                p.detach().float().flatten() for p in model.get_submodule(one.path).parameters()
            ]
            return torch.cat(found).abs()[None]
        return torch.cat(
            [unit_weights(_weight(model, c.module), c, one.units) for c in one.cuts], 1
        )

    def unit_scores(self, model: nn.Module, one: Structure, inputs: LayerInputs | None) -> Tensor:
        """Norms ``[units]``."""
        metric = self.metric(model, one, inputs)
        if one.kind == "blocks":
            return metric.square().mean(1).sqrt()
        return alike(metric.norm(dim=1))


def _weight(model: nn.Module, path: str) -> Tensor:
    layer: Any = model.get_submodule(path)
    weight: Tensor = layer.weight.detach().float().abs()
    return weight
