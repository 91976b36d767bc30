"""LayerUnits: the units of one layer in the order in which they go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import Structure


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerUnits:
    """Units that compete, counted in chunks of ``multiple``: between ``fewest`` and ``most`` stay."""

    parts: tuple[tuple[str, int], ...]  # key and units
    order: Tensor  # units by falling score
    chunks: Tensor  # what the score of the next chunk would add, fp64 [most]
    shift: float
    multiple: int
    fewest: int
    most: int

    @classmethod
    def of(cls, part: Sequence[Structure], scores: Scores, multiple: int, least: int) -> LayerUnits:
        """The units of structures that count as one layer; SparseError where too few can stay."""
        score = torch.cat([scores.values[one.key] for one in part]).double()
        fewest, most = -(-least // multiple), len(score) // multiple
        if fewest > most:
            raise SparseError(
                f"{part[0].key} has {len(score)} units, too few to keep at least {least} in multiples "
                f"of {multiple}. Lower heads_multiple_of or least."
            )
        falling, order = score.sort(descending=True, stable=True)
        chunks = falling[: most * multiple].view(most, multiple).sum(1)
        return cls(
            parts=tuple((one.key, one.units) for one in part),
            order=order,
            chunks=chunks,
            shift=scores.shifts.get(part[0].key, 0.0),
            multiple=multiple,
            fewest=fewest,
            most=most,
        )

    @property
    def units(self) -> int:
        """How many there are."""
        return len(self.order)

    def kept(self, count: int) -> Iterator[tuple[str, Tensor]]:
        """The masks where so many chunks stay."""
        stay = torch.zeros(self.units, dtype=torch.bool)
        stay[self.order[: count * self.multiple]] = True
        parts = stay.split([units for _, units in self.parts])
        return ((key, part.clone()) for (key, _), part in zip(self.parts, parts, strict=True))
