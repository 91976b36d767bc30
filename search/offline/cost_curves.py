"""CostCurves: the time of each kind of kernel by density, in units of one dense call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any

# One kind of kernel each; the last is what the heads of the kind before cost when their tokens are
# reordered. Online heads' lists are timed without the search for them.
KINDS = ("full", "diagonal", "stripe", "online", "multi-diagonal", "multi-diagonal by place")


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Times at some densities, as shares of the dense call's.

    ``points`` are (density in (0, 1], share > 0), by ascending density. Raises ValueError otherwise.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError("a curve needs at least one point")
        for density, share in self.points:
            if not (_is_number(density) and 0 < density <= 1 and _is_number(share) and share > 0):
                raise ValueError(f"({density!r}, {share!r}) is no density with its share of time")
        if any(b[0] <= a[0] for a, b in pairwise(self.points)):
            raise ValueError("the densities of a curve need to ascend")

    def at(self, density: float) -> float:
        """The share at a density: on the line between its neighbours, and on the outer ones beyond.

        More density never costs less, whatever noise said, and nothing costs less than 0. A single
        point stands for costs in proportion.
        """
        densities = [point[0] for point in self.points]
        shares = list(accumulate((point[1] for point in self.points), max))
        if len(shares) == 1:
            return shares[0] * density / densities[0]
        right = next((i for i, d in enumerate(densities) if d >= density), len(shares) - 1)
        right = max(1, right)
        low, high = densities[right - 1], densities[right]
        slope = (shares[right] - shares[right - 1]) / (high - low)
        return max(0.0, shares[right - 1] + slope * (density - low))


@dataclass(frozen=True, kw_only=True, slots=True)
class CostCurves:
    """What was measured for one case.

    ``curves`` one per kind of `KINDS`; ``search_pass`` the share of one measurement of the block mass;
    ``words``: device and case, for reports. Raises ValueError when a kind is missing or unknown, or
    the search pass has no time.
    """

    curves: Mapping[str, Curve]
    search_pass: float
    words: str

    def __post_init__(self) -> None:
        if set(self.curves) != set(KINDS):
            raise ValueError(f"it has curves for {sorted(self.curves)}, not for {sorted(KINDS)}")
        if not (_is_number(self.search_pass) and self.search_pass > 0):
            raise ValueError(f"{self.search_pass!r} is no time of a search pass")
        if not isinstance(self.words, str):
            raise ValueError(f"{self.words!r} does not say what was measured")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        curves = {kind: [list(point) for point in self.curves[kind].points] for kind in KINDS}
        return {"curves": curves, "search_pass": self.search_pass, "words": self.words}

    @classmethod
    def from_dict(cls, plain: Any) -> CostCurves:
        """The inverse of `to_dict`; ValueError or TypeError for anything else."""
        if not isinstance(plain, dict) or set(plain) != {"curves", "search_pass", "words"}:
            raise ValueError("it has other fields than curves, search_pass and words")
        if not isinstance(plain["curves"], dict):
            raise ValueError("its curves are no table")
        curves = {
            kind: Curve(points=tuple((density, share) for density, share in points))
            for kind, points in plain["curves"].items()
        }
        return cls(curves=curves, search_pass=plain["search_pass"], words=plain["words"])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
