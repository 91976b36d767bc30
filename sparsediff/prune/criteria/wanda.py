"""Wanda (arXiv 2306.11695): weights times what flows through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.calibration import StepWeights, check_step_weights, layer_inputs
from sparsediff.prune.criteria.weight_criterion import WeightCriterion, unit_weights
from sparsediff.prune.layer_inputs import LayerInputs
from sparsediff.prune.scores import alike
from sparsediff.prune.structures import Structure
from sparsediff.prune.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanda(WeightCriterion):
    """A unit's share of |W| times the norm of its input, in the layers that read what it passes on.

    As Wanda compares weights within each output row, so every row gives its units shares of one, and
    a unit's score is their sum over the rows. ``per_row`` False adds |W| * norm as they are, so that
    large rows count more. ``step_weights``: how much each denoising step counts, see `layer_inputs`.

    Raises SparseError for blocks, which pass on more than they compute.
    """

    name: ClassVar[str] = "wanda"

    per_row: bool = True
    step_weights: StepWeights = "even"

    def __post_init__(self) -> None:
        if not isinstance(self.per_row, bool):
            raise SparseError(f"per_row={self.per_row!r}: needs True or False.")
        check_step_weights(self.step_weights)

    @property
    def needs_prompts(self) -> bool:
        """Always: inputs must be seen."""
        return True

    def inputs(self, subject: Subject) -> LayerInputs | None:
        """Those of the layers that read what units pass on."""
        paths = read_layers(subject.structures)
        subject.check_prompts(self.name)
        return layer_inputs(subject, paths, step_weights=self.step_weights)

    def metric(self, model: nn.Module, one: Structure, inputs: LayerInputs | None) -> Tensor:
        """|W| times input norm of the columns that read every unit."""
        return self._metric(model, one, inputs, per_row=False)

    def unit_scores(self, model: nn.Module, one: Structure, inputs: LayerInputs | None) -> Tensor:
        """Sums over the columns ``[units]``, over the mean of the layer."""
        return alike(self._metric(model, one, inputs, per_row=self.per_row).sum(1))

    def _metric(
        self, model: nn.Module, one: Structure, inputs: LayerInputs | None, *, per_row: bool
    ) -> Tensor:
        if inputs is None:
            raise SparseError("wanda has seen no inputs; please report this.")
        parts = []
        for cut in (cut for cut in one.cuts if cut.side == "in"):
            layer: Any = model.get_submodule(cut.module)
            weight = layer.weight.detach().float().abs() * inputs.norms(cut.module).to(
                layer.weight.device
            )
            if per_row:
                weight /= weight.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            parts.append(unit_weights(weight, cut, one.units))
        return torch.cat(parts, 1)


def read_layers(structures: Sequence[Structure]) -> set[str]:
    """Paths of the layers that read what units pass on; SparseError for blocks."""
    if any(one.kind == "blocks" for one in structures):
        raise SparseError(
            "wanda scores heads and neurons, not blocks: a block's output is mostly its input. Choose "
            "magnitude or ecodiff for blocks; by bucket, loss_scores."
        )
    return {cut.module for one in structures for cut in one.cuts if cut.side == "in"}
