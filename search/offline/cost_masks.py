"""The masks that each kind of kernel is timed on."""

from __future__ import annotations

import torch

from sparsediff.kernels.block_mask import BlockMask, block_count
from sparsediff.search.offline.cost_case import CostCase
from sparsediff.search.patterns.pattern import Diagonal, Full, MultiDiagonal, Pattern, Stripe
from sparsediff.search.patterns.pattern_mask import pattern_mask
from sparsediff.search.patterns.token_reorder import periods
from sparsediff.search.selection import video_mask
from sparsediff.search.token_grid import TokenGrid

DENSITIES = (0.1, 0.25, 0.5, 0.8)
# Masks nearer than this in density say nothing new: on a small grid, a band has few widths.
APART = 0.03


def masks(kind: str, case: CostCase) -> list[BlockMask]:
    """Masks of a kind of `KINDS` near the densities to measure, those that differ, ascending."""
    if kind == "full":
        return [_mask(Full(), case)]
    found = sorted((_near(kind, density, case) for density in DENSITIES), key=lambda m: m.density)
    kept = found[:1]
    for mask in found[1:]:
        if mask.density - kept[-1].density >= APART:
            kept.append(mask)
    return kept


def _near(kind: str, density: float, case: CostCase) -> BlockMask:
    if kind != "online":
        return _mask(_pattern(kind, density, case.grid, case.block_size), case)
    blocks = block_count(case.grid.tokens, case.block_size)
    noise = torch.Generator(device=case.device).manual_seed(1)
    scores = torch.rand(1, case.heads, blocks, blocks, generator=noise, device=case.device)
    return video_mask(scores, density, case.grid, case.block_size)


def _mask(pattern: Pattern, case: CostCase) -> BlockMask:
    return pattern_mask([pattern] * case.heads, case.grid, case.block_size, case.device)


def _pattern(kind: str, density: float, grid: TokenGrid, block: int) -> Pattern:
    """A pattern of about that density, text aside; its mask tells the true one."""
    if kind == "stripe":
        blocks = block_count(grid.tokens, block)
        count = max(1, round(density * blocks))
        return Stripe(columns=tuple(number * blocks // count for number in range(count)))
    period, _ = periods(grid)
    if kind == "multi-diagonal":  # a block reaches as far again as it is long
        return MultiDiagonal(half_widths=(max(0.0, density / 2 - block / period),), everywhere=True)
    # A band of half width w leaves two triangles of (tokens - w)^2 / 2 out.
    width = max(0.0, grid.video_tokens * (1 - (1 - density) ** 0.5) - block)
    if kind == "diagonal":
        return Diagonal(half_width=width / period)
    places = width / grid.video_tokens  # of the reordered sequence, the same share
    return MultiDiagonal(half_widths=(places,), everywhere=True, by_place=True)
