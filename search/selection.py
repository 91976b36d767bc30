"""Selection: from a score for every block pair to the BlockMask that is computed."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search.token_grid import TokenGrid


def keys_per_row(density: float, columns: int) -> int:
    """How many of `columns` key blocks a query block computes at `density`: rounded, at least one."""
    return min(columns, max(1, floor(density * columns + 0.5)))


def budget_change(keep: int, columns: int) -> int:
    """By how many blocks a head's budget may differ from `keep`: half of it, and no more than fit."""
    return min(keep - max(1, floor(keep / 2 + 0.5)), columns - keep)


def head_budgets(recall: Tensor, keep: int, columns: int, threshold: float) -> Tensor:
    """Three budgets by recall, with the mean over heads kept (AdaSpa §1.5).

    The n heads of highest recall compute half as many blocks and the n of lowest recall as many more
    as that frees, where n counts the heads with recall above `threshold`, at most half of them (the
    paper leaves n > H/2 open). recall ``[b, h]`` in [0, 1]; returns int64 ``[b, h]``.
    """
    heads = recall.shape[1]
    n = (recall > threshold).sum(dim=1, keepdim=True).clamp(max=heads // 2)
    rank = recall.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    change = (rank >= heads - n).long() - (rank < n).long()
    return keep + budget_change(keep, columns) * change


def energy_budgets(scores: Tensor, total: Tensor, energy: float, least: int) -> Tensor:
    """How many of the best blocks hold `energy` of a row's total score (Video-BLADE, arXiv 2508.10774).

    scores ``[b, h, m, most]``, best first and none below 0; total ``[b, h, m]``. The fewest that reach
    it, at least `least` and at most all that are listed: int64 ``[b, h, m]``.
    """
    short = scores.cumsum(dim=-1) < energy * total[..., None]
    return (short.sum(dim=-1) + 1).clamp(min(least, scores.shape[-1]), scores.shape[-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedBlocks:
    """The best key blocks of the video for every query block, best first.

    ``blocks`` int64 and ``scores`` ``[b, h, m, most]``. Made and read without a host synchronisation:
    how long the lists can get is known before any score is.
    """

    blocks: Tensor
    scores: Tensor
    grid: TokenGrid
    block_size: int

    @classmethod
    def of(cls, score: Tensor, most: int, grid: TokenGrid, block: int) -> RankedBlocks:
        """The `most` highest of the scores ``[b, h, m, n]``, text columns left out."""
        lead, trail = grid.text_edges(block)
        best = score[..., lead : score.shape[-1] - trail].topk(most, dim=-1)
        return cls(blocks=best.indices + lead, scores=best.values, grid=grid, block_size=block)

    def recall(self, mass: Tensor, keep: int) -> Tensor:
        """Share of the attention mass that the best `keep` and the text hold: ``[b, h]`` (AdaSpa §1.1).

        `mass` holds the scores that were ranked.
        """
        lead, trail = self.grid.text_edges(self.block_size)
        text = torch.cat([mass[..., :lead], mass[..., mass.shape[-1] - trail :]], dim=-1)
        held = self.scores[..., :keep].sum(dim=(-2, -1)) + text.sum(dim=(-2, -1))
        return held / mass.sum(dim=(-2, -1)).clamp(min=torch.finfo(mass.dtype).tiny)

    def mask(self, keep: Tensor | int) -> BlockMask:
        """BlockMask of the best `keep` and of all that touches text (§1.6).

        `keep` an int, or int64 ``[b, h]`` by head or ``[b, h, m]`` by row.
        """
        lead, trail = self.grid.text_edges(self.block_size)
        device, rows = self.blocks.device, self.blocks.shape[2]
        chosen = self.blocks.to(torch.int32)  # half the bytes to sort
        if isinstance(keep, int):
            counts = torch.full(chosen.shape[:3], keep, dtype=torch.int32, device=device)
            chosen = chosen[..., :keep]
        else:
            by_row = keep if keep.ndim == 3 else keep[..., None]
            counts = by_row.to(torch.int32).expand(chosen.shape[:3])
            rank = torch.arange(chosen.shape[3], device=device)
            chosen = chosen.where(rank < counts[..., None], rows)  # behind every block
        edges = torch.arange(rows, dtype=torch.int32, device=device)
        text = torch.cat([edges[:lead], edges[rows - trail :]]).expand(*chosen.shape[:3], -1)
        text_row = (edges < lead) | (edges >= rows - trail)
        return BlockMask.from_lists(
            torch.cat([chosen, text], dim=-1),
            torch.where(text_row, rows, counts + (lead + trail)),
            block_size=self.block_size,
            q_len=self.grid.tokens,
            kv_len=self.grid.tokens,
            implied_full=lead + trail > 0,
        )


def mask_density(density: float, grid: TokenGrid, block: int) -> float:
    """Share of all block pairs that `video_mask` computes, text included, in (0, 1]."""
    columns = grid.video_blocks(block)
    if columns == 0:
        return 1.0
    blocks = columns + sum(grid.text_edges(block))
    left_out = columns * (columns - keys_per_row(density, columns))
    return (blocks**2 - left_out) / blocks**2


def video_mask(score: Tensor, density: float, grid: TokenGrid, block: int) -> BlockMask:
    """The best `density` of the video's blocks in every row by score ``[b, h, m, n]``, and all text."""
    columns = grid.video_blocks(block)
    if columns == 0:  # everything touches text
        tokens = grid.tokens
        return BlockMask.full(block_size=block, q_len=tokens, kv_len=tokens, device=score.device)
    keep = keys_per_row(density, columns)
    return RankedBlocks.of(score, keep, grid, block).mask(keep)
