"""PlanSweep: the plans that other prices would have given, from the errors and costs of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError
from sparsediff.search.offline.choice import Choice, Chooser, LayerChoices
from sparsediff.search.patterns.pattern import Full, Skip

PRICES = torch.logspace(-5, 3, 60, dtype=torch.float64).tolist()
_FIGURES = ("errors", "costs", "densities")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanPoint:
    """A plan: mean ``error`` over the output's variance, ``cost`` share of dense attention's time.

    ``density`` of its sparse calls; ``price`` (lambda) that it was chosen at, None without one.
    """

    cost: float
    error: float
    density: float
    price: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSweep:
    """``points`` by rising cost, the ``chosen`` one, and ``alike``: one candidate for every head."""

    points: tuple[PlanPoint, ...]
    alike: tuple[PlanPoint, ...]
    chosen: PlanPoint | None = None

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], steps: Sequence[int], price: float | None
    ) -> PlanSweep:
        """From the figures ``[s, c, h]`` of every layer; `steps` of every part, `price` of the plan.

        Raises SparseError when they are not as a search writes them.
        """
        layers = _layers(tensors, parts=len(steps))
        chooser = Chooser(layers, steps)
        found = {_point(choice := chooser.at_price(p), choice.price) for p in PRICES}
        cheapest: dict[float, PlanPoint] = {}  # prices that choose the same are one plan
        for point in sorted(found, key=lambda p: (p.cost, p.error, p.price or 0)):
            cheapest.setdefault(point.cost, point)
        count = min(layer.errors.shape[1] for layer in layers)
        alike = [_alike(layers, chooser.weights, candidate) for candidate in range(count)]
        return cls(
            points=tuple(cheapest.values()),
            alike=tuple(alike),
            chosen=None if price is None else _point(chooser.at_price(price), price),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)


def _layers(tensors: Mapping[str, Tensor], *, parts: int) -> list[LayerChoices]:
    numbers = sorted({int(name.partition(".")[0]) for name in tensors if name[:1].isdigit()})
    layers = []
    for number in numbers:
        try:
            errors, costs, densities = (tensors[f"{number}.{name}"] for name in _FIGURES)
        except KeyError as error:
            raise SparseError(f"The trials lack {error}.") from None
        if errors.ndim != 3 or len(errors) != parts or errors.shape[1] < 1:
            raise SparseError(
                f"The trials of layer {number} are {tuple(errors.shape)}; needs parts of the run "
                f"({parts}), candidates and heads."
            )
        if not errors.shape == costs.shape == densities.shape:
            raise SparseError(f"The trials of layer {number} have figures of different shapes.")
        layers.append(
            LayerChoices(rows=_rows(densities), errors=errors, costs=costs, densities=densities)
        )
    if not layers:
        raise SparseError("The trials hold no layer.")
    return layers


def _rows(densities: Tensor) -> Any:
    """Stand-ins for the patterns: a choice only asks which of them are skipped heads."""
    return tuple(
        tuple(tuple(Full() if share > 0 else Skip() for share in row) for row in part)
        for part in densities.tolist()
    )


def _point(choice: Choice, price: float) -> PlanPoint:
    return PlanPoint(
        cost=choice.cost, error=choice.error, density=choice.density, price=float(price)
    )


def _alike(layers: Sequence[LayerChoices], weights: Tensor, candidate: int) -> PlanPoint:
    def mean(name: str) -> float:
        figures = [getattr(layer, name)[:, candidate] for layer in layers]
        return float((weights * torch.cat(figures, dim=1).mean(dim=1)).sum())

    return PlanPoint(cost=mean("costs"), error=mean("errors"), density=mean("densities"))
