"""Fitting multi-diagonals to a head: how wide around its own place, in each neighbouring period."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.search.patterns.pattern import Diagonal, MultiDiagonal
from sparsediff.search.patterns.token_reorder import periods
from sparsediff.search.token_grid import TokenGrid


def fitted_diagonals(
    mass: Tensor, densities: Sequence[float], grid: TokenGrid, block: int
) -> list[Diagonal | MultiDiagonal]:
    """The widths that hold the most mass, one pattern per density, in ascending order of density.

    ``mass`` ``[2 n - 1]`` as in `AttentionProfile.diagonals`. Greedy: a diagonal is widened by a block,
    or the next distance begun, wherever a computed block pair then holds the most mass; so each
    pattern contains the ones before it.
    """
    growth = _Growth(mass.numpy(), grid, block)
    found = []
    for density in densities:
        while growth.density < density and growth.widen(density):
            pass
        found.append(growth.pattern())
    return found


class _Growth:
    """A growing set of diagonals: for every distance its half width in blocks."""

    def __init__(self, mass: np.ndarray, grid: TokenGrid, block: int) -> None:
        self.period, self.count = periods(grid)
        self.block = block
        self.blocks = block_count(grid.tokens, block)
        video = grid.video_blocks(block)
        apart = np.abs(np.arange(1 - self.blocks, self.blocks))
        self.pairs = np.maximum(video - apart, 0).astype(np.float64)  # left to take
        self.mass = np.where(self.pairs > 0, mass, 0.0)
        self.density = 1 - video**2 / self.blocks**2
        self.widths: list[int] = []
        self._take(0, 0)
        self.widths.append(0)

    def pattern(self) -> Diagonal | MultiDiagonal:
        """The set as a pattern."""
        widths = tuple(width * self.block / self.period for width in self.widths)
        if len(widths) == 1:
            return Diagonal(half_width=widths[0])
        return MultiDiagonal(half_widths=widths)

    def widen(self, limit: float) -> bool:
        """Take the best next step; False when none is left or the best goes too far beyond `limit`."""
        steps = [(distance, width + 1) for distance, width in enumerate(self.widths)]
        if len(self.widths) < self.count:
            steps.append((len(self.widths), 0))
        worth = [self._worth(*step) for step in steps]
        best = max(range(len(steps)), key=lambda place: worth[place][0])
        gain, pairs = worth[best]
        if gain < 0:  # nothing is left
            return False
        if self.density + pairs / self.blocks**2 - limit > limit - self.density:
            return False  # stopping here is nearer
        distance, width = steps[best]
        self._take(distance, width)
        if distance == len(self.widths):
            self.widths.append(width)
        else:
            self.widths[distance] = width
        return True

    def _worth(self, distance: int, width: int) -> tuple[float, float]:
        """Mass per new block pair, and how many those are; -1 where there are none."""
        mass = pairs = 0.0
        for place in self._intervals(distance, width):
            mass += float(self.mass[place].sum())
            pairs += float(self.pairs[place].sum())
        return (mass / pairs if pairs else -1.0), pairs

    def _take(self, distance: int, width: int) -> None:
        for place in self._intervals(distance, width):
            self.density += float(self.pairs[place].sum()) / self.blocks**2
            self.pairs[place] = self.mass[place] = 0.0

    def _intervals(self, distance: int, width: int) -> list[slice]:
        """The block differences within a half width of a diagonal, on both sides."""
        reach = (width + 1) * self.block - 1
        middle, found = self.blocks - 1, []
        for offset in {distance * self.period, -distance * self.period}:
            low = -((reach - offset) // self.block)
            high = (offset + reach) // self.block
            found.append(slice(max(0, middle + low), max(0, middle + high + 1)))
        return found
