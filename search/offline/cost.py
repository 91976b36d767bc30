"""Cost: what a head's pattern costs, as a share of the dense call's time (Sparse-vDiT §2.2).

The paper counts operations; here the kernels are timed where they run.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any, Protocol

import torch

from sparsediff.kernels.errors import SparseError
from sparsediff.search.offline.cost_case import CostCase
from sparsediff.search.offline.cost_curves import CostCurves
from sparsediff.search.offline.cost_file import curves_of
from sparsediff.search.patterns.pattern import MODES, MultiDiagonal


class Cost(Protocol):
    """Says what a pattern costs, and where it knows that from."""

    @property
    def source(self) -> str:
        """Where the figures come from, in words."""

    def share(self, mode: str, density: float, *, by_place: bool = False) -> float:
        """Time of a head of that mode and density, text included, over that of a dense head: >= 0.

        ``by_place``: a multi-diagonal computed with reordered tokens. Raises SparseError for an
        unknown mode, a density outside [0, 1] and `by_place` of another mode.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopsCost:
    """The share of the operations, which is the density: what the paper uses.

    ``reason``: why nothing was measured.
    """

    reason: str = ""

    @property
    def source(self) -> str:
        """Says that nothing was measured."""
        return "FLOPs, nothing was timed" + (f" ({self.reason})" if self.reason else "")

    def share(self, mode: str, density: float, *, by_place: bool = False) -> float:
        """The density itself; 0 for a skipped head."""
        _check(mode, density, by_place)
        return 0.0 if mode == "skip" else density


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredCost:
    """Times of the kernels on a device; see `measured_cost`.

    ``searches_per_call``: how many measurements of the block mass an online head makes for each of its
    sparse calls, such as 2 / 40 for two searches in 40 sparse steps. Raises SparseError for a number
    below 0.
    """

    curves: CostCurves
    searches_per_call: float

    def __post_init__(self) -> None:
        found = self.searches_per_call
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise SparseError(f"searches_per_call={found!r}: needs a number >= 0.")
        if not (isfinite(found) and found >= 0):
            raise SparseError(f"searches_per_call={found!r}: needs a number >= 0.")

    @property
    def source(self) -> str:
        """The device and the case that was timed."""
        return f"measured on {self.curves.words}"

    def share(self, mode: str, density: float, *, by_place: bool = False) -> float:
        """From the curve of the mode's kernel; 0 for a skipped head."""
        _check(mode, density, by_place)
        if mode == "skip":
            return 0.0
        kind = "multi-diagonal by place" if by_place else mode
        found = self.curves.curves[kind].at(density)
        if mode == "online":
            found += self.searches_per_call * self.curves.search_pass
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values, so that a search that is resumed counts with the same costs."""
        return {"curves": self.curves.to_dict(), "searches_per_call": self.searches_per_call}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> MeasuredCost:
        """The inverse of `to_dict`; raises SparseError for anything else."""
        try:
            return cls(
                curves=CostCurves.from_dict(plain["curves"]),
                searches_per_call=plain["searches_per_call"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise SparseError(f"These are no measured costs: {error}.") from error


def measured_cost(case: CostCase, *, searches_per_call: float) -> MeasuredCost | FlopsCost:
    """The kernels' times for a case, read from this machine's file or measured now, in seconds.

    Where nothing can be timed, or the device has too little free memory, the FLOPs instead; `source`
    says so. Raises BackendError when the backend that the case names cannot run it.
    """
    reason = case.unmeasurable()
    if reason is not None:
        return FlopsCost(reason=reason)
    try:
        curves = curves_of(case)
    except (torch.OutOfMemoryError, MemoryError):
        return FlopsCost(reason=f"{case.device} has too little free memory")
    return MeasuredCost(curves=curves, searches_per_call=searches_per_call)


def _check(mode: str, density: float, by_place: bool) -> None:
    names = sorted(MODES.values())
    if mode not in names:
        near = get_close_matches(mode, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SparseError(f"Mode {mode!r} is unknown; there are {', '.join(names)}.{hint}")
    if by_place and mode != MultiDiagonal.mode:
        raise SparseError(f"by_place=True with mode {mode!r}; only multi-diagonal is reordered.")
    if not 0 <= density <= 1:
        raise SparseError(f"density={density!r}: needs a share in [0, 1].")
