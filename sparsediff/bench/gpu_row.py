"""GpuRow: what one contestant did; GpuTable: all of them, and what is missing."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from sparsediff.bench.case import spread
from sparsediff.bench.contestant import Contestant
from sparsediff.bench.plan import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuRow:
    """One kernel doing one thing (``of``: forward, backward, mass or search) on one shape.

    ``seconds`` of each round; ``speedups`` the seconds of the fastest ``baseline`` of the same rounds
    over them (forward for forward, mass and search); ``error`` against float64 as a share of what is
    allowed; ``flop`` done; ``failure`` says why there are no times.
    """

    kernel: str
    of: str
    tokens: int
    heads: int
    dim: int
    density: float
    flop: float
    layout: str
    error: float
    seconds: tuple[float, ...] = ()
    speedups: tuple[float, ...] = ()
    baseline: str = ""
    failure: str = ""

    @classmethod
    def of_contestant(cls, one: Contestant, shape: Shape, *, error: float, **found: Any) -> GpuRow:
        """The row of a contestant, with what was found."""
        return cls(
            kernel=one.kernel,
            of=one.of,
            tokens=shape.tokens,
            heads=shape.heads,
            dim=shape.dim,
            density=one.density,
            flop=one.flop,
            layout=one.layout,
            error=error,
            **found,
        )

    @property
    def match(self) -> bool:
        """Whether the result was within its allowance."""
        return not self.failure and self.error <= 1.0

    @property
    def median(self) -> float | None:
        """Median time in seconds; None where nothing was timed."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def iqr(self) -> float:
        """Range of the middle half of the times, in seconds."""
        return spread(self.seconds)

    @property
    def tflops(self) -> float | None:
        """Rate in 10^12 operations per second; None where the result is wrong."""
        return self.flop / self.median / 1e12 if self.median and self.match else None

    @property
    def speedup(self) -> float | None:
        """Median over the rounds of the baseline's time over this one's; None without a match."""
        return statistics.median(self.speedups) if self.speedups and self.match else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; an error that is not finite is None."""
        named = {
            name: getattr(self, name) for name in ("median", "iqr", "tflops", "speedup", "match")
        }
        error = self.error if self.error < float("inf") else None
        return {**asdict(self), **named, "error": error}


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuTable:
    """All ``rows``; ``notes`` of what did not compete, by name; parts ``left_out`` for want of time;
    parts ``failed`` as a whole, with the error; ``minutes`` it took.
    """

    rows: tuple[GpuRow, ...]
    notes: dict[str, str]
    left_out: tuple[str, ...]
    failed: dict[str, str]
    minutes: float

    @property
    def right(self) -> bool:
        """Whether every row that was measured matches."""
        return not self.failed and all(row.match for row in self.rows)
