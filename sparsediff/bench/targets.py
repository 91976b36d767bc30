"""Targets of the GPU kernels, and whether a table meets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsediff.bench.gpu_row import GpuRow

LONG, DIM = 32768, 128  # the targets are for sequences from here on, at this head dim
NEAR = 0.02  # a realised density this close to the asked one counts as it


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """At least ``least`` times as fast as the fastest dense forward, for one pass at one density."""

    words: str
    of: str
    density: float
    least: float

    def rows(self, rows: Sequence[GpuRow]) -> list[GpuRow]:
        """The rows that it is about."""
        return [
            row
            for row in rows
            if row.of == self.of
            and row.tokens >= LONG
            and row.dim == DIM
            and row.kernel == "triton"
            and (self.of != "forward" or abs(row.density - self.density) <= NEAR)
        ]

    def verdict(self, rows: Sequence[GpuRow]) -> tuple[float | None, bool | None]:
        """The lowest speed-up among its rows and whether it suffices; None where there is none."""
        found = [row.speedup for row in self.rows(rows)]
        if not found:
            return None, None
        lowest = min((0.0 if speed is None else speed for speed in found), default=0.0)
        return lowest, lowest >= self.least


TARGETS = (
    Target(words="density 0.2: at least 3.8 x", of="forward", density=0.2, least=3.8),
    Target(words="density 0.5: at least 1.6 x", of="forward", density=0.5, least=1.6),
    Target(words="density 1.0: at least 75 % of dense", of="forward", density=1.0, least=0.75),
    Target(words="block mass: at most 0.55 of dense", of="mass", density=1.0, least=1 / 0.55),
    Target(words="AdaSpa search: at most 0.7 of dense", of="search", density=0.2, least=1 / 0.7),
)
