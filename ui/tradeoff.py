"""Points of speed against fidelity: all sparse runs that share one dense run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsediff.kernels.errors import SparseError
from sparsediff.ui.comparison import Compared
from sparsediff.ui.run_document import run_document

_MOST_RUNS, _MOST_POINTS = 50, 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One sparse run: ``speedup`` over its dense run, ``psnr`` in dB, None where equal to dense.

    ``run`` is its document, from which somebody else can make it again.
    """

    method: str
    density: float
    realised: float
    seconds: float
    speedup: float
    psnr: float | None
    ssim: float
    run: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, compared: Compared) -> Point:
        """The point of a comparison; raises SparseError when it has no dense half."""
        result, q = compared.result, compared.result.quality
        if q is None or result.speedup is None:
            raise SparseError("This run has no dense half to be measured against.")
        return cls(
            method=compared.settings.method,
            density=float(str(result.report.method.get("density", compared.settings.density))),
            realised=result.report.density,
            seconds=result.sparse.median,
            speedup=result.speedup,
            psnr=None if q.identical else q.psnr,
            ssim=q.ssim,
            run=run_document(compared),
        )

    def beats(self, other: Point) -> bool:
        """Whether this is at least as fast and as close, and better in one of the two."""
        mine, theirs = self._merits, other._merits
        return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))

    @property
    def _merits(self) -> tuple[float, float]:
        return self.speedup, float("inf") if self.psnr is None else self.psnr


class History:
    """The points of every dense run, those used last; a run of the same choices replaces its own."""

    def __init__(self) -> None:
        self._by_run: OrderedDict[Hashable, OrderedDict[tuple[str, float], Point]] = OrderedDict()

    def add(self, compared: Compared) -> tuple[Point, ...]:
        """Note a comparison; all points that share its dense run, its own last."""
        key, point = compared.settings.dense_key, Point.of(compared)
        points = self._by_run.setdefault(key, OrderedDict())
        self._by_run.move_to_end(key)
        points[point.method, point.density] = point
        points.move_to_end((point.method, point.density))
        for kept, most in ((self._by_run, _MOST_RUNS), (points, _MOST_POINTS)):
            while len(kept) > most:
                kept.popitem(last=False)
        return tuple(points.values())


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats, the fastest last."""
    best = [point for point in points if not any(other.beats(point) for other in points)]
    return sorted(best, key=lambda point: point.speedup)
