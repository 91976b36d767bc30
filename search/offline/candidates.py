"""Candidates: the patterns that a search tries for every head, fitted to its attention profile."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.errors import SparseError
from sparsediff.search.offline.diagonal_fit import fitted_diagonals
from sparsediff.search.offline.profile import AttentionProfile
from sparsediff.search.patterns.pattern import (
    Diagonal,
    Full,
    MultiDiagonal,
    Online,
    Pattern,
    Skip,
    Stripe,
)
from sparsediff.search.patterns.pattern_mask import pattern_density
from sparsediff.search.patterns.token_reorder import periods
from sparsediff.search.selection import keys_per_row
from sparsediff.search.token_grid import TokenGrid

_Diagonals = TypeVar("_Diagonals", Diagonal, MultiDiagonal)
Row = tuple[Pattern, ...]  # one pattern per head
LEVELS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the density asked for
_MOST = 0.85  # beyond it a pattern saves nothing worth its name
_LEAST = 1e-4  # as the others are rounded


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSettings:
    """What to try: ``densities`` of the patterns, and whether heads may be skipped or searched online.

    Raises SparseError for a density outside (0, 1).
    """

    densities: tuple[float, ...]
    allow_skip: bool = False
    online: bool = False

    def __post_init__(self) -> None:
        if not self.densities or not all(0 < density < 1 for density in self.densities):
            raise SparseError(f"densities={self.densities!r}: needs shares in (0, 1).")

    @classmethod
    def around(
        cls, density: float, *, allow_skip: bool = False, online: bool = False
    ) -> CandidateSettings:
        """Densities below and above the one that a plan is to have on average."""
        if not 0 < density < 1:
            raise SparseError(f"density={density!r}: needs a share of the blocks in (0, 1).")
        levels = sorted({max(_LEAST, round(min(_MOST, density * x), 4)) for x in LEVELS})
        return cls(densities=tuple(levels), allow_skip=allow_skip, online=online)


def candidates(
    profile: AttentionProfile, bucket: int, grid: TokenGrid, block: int, settings: CandidateSettings
) -> list[Row]:
    """What to try for the heads of one layer in one bucket: rows of one pattern per head.

    Row i is of the same kind for every layer and bucket. The first row is full attention; skip, if it
    is allowed, the second. Raises SparseError when no block is without text.
    """
    if not grid.video_blocks(block):
        raise SparseError(
            f"{grid} in blocks of {block} tokens: text touches every block, so there is nothing to "
            f"leave out. Use a larger size or smaller blocks."
        )
    heads = profile.columns.shape[1]
    rows: list[Row] = [(pattern,) * heads for pattern in _alike(grid, block, settings)]
    for density in settings.densities:
        columns = profile.columns[bucket]
        rows.append(tuple(_stripe(column, density, grid, block) for column in columns))
    if periods(grid)[1] > 1:
        fitted = [
            fitted_diagonals(mass, settings.densities, grid, block)
            for mass in profile.diagonals[bucket]
        ]
        rows += [tuple(per_head) for per_head in zip(*fitted, strict=True)]
    return rows


def _alike(grid: TokenGrid, block: int, settings: CandidateSettings) -> list[Pattern]:
    """The patterns that are tried for every head, each once."""
    found: list[Pattern] = [Full()]
    if settings.allow_skip:
        found.append(Skip())
    for density in settings.densities:
        found.append(_window(density, grid, block))
        if periods(grid)[1] > 1:
            found += [_everywhere(density, grid, block, by_place=order) for order in (False, True)]
        if settings.online:
            found.append(Online(density=density))
    return list(dict.fromkeys(found))


def densities(rows: Sequence[Row], grid: TokenGrid, block: int) -> Tensor:
    """Share of all block pairs that every pattern of every row computes: float64 ``[c, h]``."""
    known: dict[Pattern, float] = {}
    for row in rows:
        for pattern in row:
            if pattern not in known:
                known[pattern] = pattern_density(pattern, grid, block)
    return torch.tensor([[known[p] for p in row] for row in rows], dtype=torch.float64)


def _window(density: float, grid: TokenGrid, block: int) -> Diagonal:
    period, _ = periods(grid)
    limit = block_count(grid.tokens, block)
    return _nearest(
        [Diagonal(half_width=i * block / period) for i in range(limit)], density, grid, block
    )


def _everywhere(density: float, grid: TokenGrid, block: int, *, by_place: bool) -> MultiDiagonal:
    """The same width in every period; in units of a block, or of the places that fill one."""
    period, count = periods(grid)
    unit = max(1, block // count) if by_place else block
    tried = [
        MultiDiagonal(half_widths=(i * unit / period,), everywhere=True, by_place=by_place)
        for i in range(block_count(period, unit) + 1)
    ]
    return _nearest(tried, density, grid, block)


def _nearest(
    tried: Sequence[_Diagonals], density: float, grid: TokenGrid, block: int
) -> _Diagonals:
    """The one of ever denser patterns that is nearest to a density."""

    def found(place: int) -> float:
        return pattern_density(tried[place], grid, block)

    after = bisect_left(range(len(tried)), density, key=found)
    around = [place for place in (after - 1, after) if 0 <= place < len(tried)]
    return tried[min(around, key=lambda place: abs(found(place) - density))]


def _stripe(columns: Tensor, density: float, grid: TokenGrid, block: int) -> Stripe:
    """The heaviest key blocks of the video."""
    lead, trail = grid.text_edges(block)
    video = columns[lead : len(columns) - trail]
    keep = keys_per_row(density, len(video))
    best = video.topk(keep).indices.sort().values + lead
    return Stripe(columns=tuple(best.tolist()))
