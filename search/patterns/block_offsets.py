"""Diagonals in blocks: which differences of key and query block a pattern passes."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.search.patterns.pattern import Diagonal, MultiDiagonal
from sparsediff.search.patterns.token_reorder import periods
from sparsediff.search.token_grid import TokenGrid


def block_offsets(pattern: Diagonal | MultiDiagonal, grid: TokenGrid, block: int) -> Tensor:
    """Whether blocks so far apart share a token pair of the pattern: bool ``[2 n - 1]``.

    Difference 0 is in the middle. For `MultiDiagonal.by_place` the blocks are those of the reordered
    sequence.
    """
    blocks = block_count(grid.tokens, block)
    apart = torch.arange(1 - blocks, blocks) * block
    taken = torch.zeros(len(apart), dtype=torch.bool)
    for offset, half_width in _diagonals(pattern, grid):
        # Two blocks share a token pair if their first tokens differ by less than a block from it.
        taken |= (apart - offset).abs() <= half_width + block - 1
    return taken


def _diagonals(pattern: Diagonal | MultiDiagonal, grid: TokenGrid) -> list[tuple[int, int]]:
    """Offset and half width in tokens of every diagonal of a pattern."""
    period, count = periods(grid)
    if isinstance(pattern, Diagonal):
        return [(0, round(pattern.half_width * period))]
    widths = [round(width * period) for width in pattern.half_widths]
    if pattern.by_place:
        return [(0, widths[0] * count + count - 1)]
    if pattern.everywhere:  # a wide diagonal of a period after the last one still reaches in
        reach = min(round(pattern.half_widths[-1]), count)
        widths += [widths[-1]] * (count + 2 + reach - len(widths))
    else:
        widths = widths[:count]
    return [
        (sign * distance * period, width)
        for distance, width in enumerate(widths)
        for sign in ((1, -1) if distance else (1,))
    ]


def offsets_density(taken: Tensor, columns: int) -> float:
    """Share of the pairs of `columns` blocks whose difference is in ``taken [2 n - 1]``."""
    apart = (torch.arange(len(taken)) - len(taken) // 2).abs()
    return int((columns - apart).clamp(min=0)[taken].sum()) / columns**2
