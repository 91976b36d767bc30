"""From the patterns of a layer's heads to the one BlockMask that computes them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask, block_count
from sparsediff.kernels.block_rules import Diagonals, Listed, Rule, rule_mask
from sparsediff.kernels.errors import SparseError
from sparsediff.search.patterns.block_offsets import block_offsets, offsets_density
from sparsediff.search.patterns.pattern import (
    Diagonal,
    Full,
    MultiDiagonal,
    Online,
    Pattern,
    Skip,
    Stripe,
)
from sparsediff.search.patterns.token_reorder import periods
from sparsediff.search.selection import keys_per_row
from sparsediff.search.token_grid import TokenGrid


def pattern_mask(
    patterns: Sequence[Pattern], grid: TokenGrid, block: int, device: torch.device | str = "cpu"
) -> BlockMask:
    """The blocks of one pattern per head, ``[1, h, m, n]``; what touches text is dense but for Skip.

    A block pair is computed if any of its token pairs belongs to the pattern. Heads whose pattern is a
    rule keep it for kernels that compute blocks. `MultiDiagonal.by_place` heads have their blocks in
    the reordered sequence; `Online` heads have their text only, until they are searched.

    Raises SparseError without patterns.
    """
    if not patterns:
        raise SparseError("pattern_mask needs one pattern per head; found none.")
    blocks = block_count(grid.tokens, block)
    rules: list[Rule] = [_rule(pattern, grid) for pattern in patterns]
    listed = None
    if any(isinstance(rule, Listed) for rule in rules):
        listed = torch.zeros(1, len(rules), blocks, blocks, dtype=torch.bool, device=device)
        for head, (pattern, rule) in enumerate(zip(patterns, rules, strict=True)):
            if isinstance(rule, Listed):
                _mark(listed[0, head], pattern, grid, block)
    return rule_mask(
        rules,
        block_size=block,
        q_len=grid.tokens,
        kv_len=grid.tokens,
        text_before=grid.text_before,
        text_after=grid.text_after,
        listed=listed,
        device=device,
    )


def video_density(pattern: Pattern, grid: TokenGrid, block: int) -> float:
    """Share of the video's block pairs that a pattern computes, in [0, 1]; 1 without such pairs."""
    columns = grid.video_blocks(block)
    if isinstance(pattern, Full | Skip) or not columns:
        return 1.0 - isinstance(pattern, Skip)
    if isinstance(pattern, Diagonal | MultiDiagonal):
        return offsets_density(block_offsets(pattern, grid, block), columns)
    if isinstance(pattern, Online):
        return keys_per_row(pattern.density, columns) / columns
    lead, _ = grid.text_edges(block)
    return sum(lead <= column < lead + columns for column in pattern.columns) / columns


def pattern_density(pattern: Pattern, grid: TokenGrid, block: int) -> float:
    """Share of all block pairs that a pattern computes, text included, in [0, 1]."""
    if isinstance(pattern, Skip):
        return 0.0
    video = (grid.video_blocks(block) / block_count(grid.tokens, block)) ** 2
    return 1 - video * (1 - video_density(pattern, grid, block))


def reordered_heads(patterns: Sequence[Pattern]) -> tuple[int, ...]:
    """Numbers of the heads whose blocks are in the order place by place."""
    return tuple(
        head
        for head, pattern in enumerate(patterns)
        if isinstance(pattern, MultiDiagonal) and pattern.by_place
    )


def _rule(pattern: Pattern, grid: TokenGrid) -> Rule:
    period, count = periods(grid)
    if isinstance(pattern, Full | Skip):
        return pattern
    if isinstance(pattern, Diagonal):
        return Diagonals(half_width=min(round(pattern.half_width * period), grid.tokens))
    if isinstance(pattern, MultiDiagonal) and pattern.by_place:
        places = round(pattern.half_widths[0] * period)
        # No wider than the sequence: the kernels count in 32 bits.
        return Diagonals(half_width=min(places * count + count - 1, grid.tokens))
    if isinstance(pattern, MultiDiagonal) and pattern.everywhere and len(pattern.half_widths) == 1:
        width = min(round(pattern.half_widths[0] * period), grid.tokens)
        return Diagonals(half_width=width, period=period)
    return Listed()


def _mark(taken: Tensor, pattern: Pattern, grid: TokenGrid, block: int) -> None:
    """Set the blocks of a pattern without a rule in its map, bool ``[n, n]``, where the map is."""
    if isinstance(pattern, MultiDiagonal):
        number = torch.arange(len(taken), device=taken.device)
        apart = number[None, :] - number[:, None] + len(taken) - 1
        taken.copy_(block_offsets(pattern, grid, block).to(taken.device)[apart])
    elif isinstance(pattern, Stripe):
        taken[:, list(pattern.columns)] = True
