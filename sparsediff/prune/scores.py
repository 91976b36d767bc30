"""Scores: how much every unit matters, from which `choose` makes masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.structures import Structure


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scores:
    """``values``: for each structure's key, fp32 ``[units]`` on the CPU; more matters more.

    Scores of one kind are comparable among its structures. ``shifts``: by how much more (or less) than
    the average share of its units a structure should keep, where a criterion says so (OWL).

    Raises SparseError for values that are not 1-D or not finite: a NaN has no order.
    """

    values: Mapping[str, Tensor]
    shifts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in self.values.items():
            if not isinstance(value, Tensor) or value.ndim != 1:
                found = list(value.shape) if isinstance(value, Tensor) else value
                raise SparseError(f"scores[{key!r}] is {found}: needs a tensor [units].")
            if bad := int((~value.isfinite()).sum()):
                raise SparseError(
                    f"scores[{key!r}] has {bad} of {value.numel()} values that are not finite: "
                    f"nothing can be chosen by them. Look for NaN in the model's weights and "
                    f"activations; float16 overflows, use bfloat16 or float32."
                )
        for key, shift in self.shifts.items():
            if not isfinite(shift):
                raise SparseError(f"shifts[{key!r}]={shift}: needs a finite number.")
        plain = {k: v.detach().to("cpu", torch.float32) for k, v in self.values.items()}
        object.__setattr__(self, "values", plain)

    def check(self, structures: Sequence[Structure]) -> None:
        """Raises SparseError unless there is a score for every unit of the structures."""
        for one in structures:
            found = self.values.get(one.key)
            if found is None or found.numel() != one.units:
                had = "none" if found is None else str(found.numel())
                raise SparseError(
                    f"{one.key} has {one.units} units and {had} scores; needs as many."
                )


def alike(score: Tensor) -> Tensor:
    """Scores ``[units]`` of a layer over their mean, so that layers of any scale are comparable."""
    mean = score.double().mean()
    return (score.double() / mean).float() if mean > 0 else torch.zeros_like(score)
