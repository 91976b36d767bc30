"""Selection: from a score for every block pair to the BlockMask that is computed."""

from __future__ import annotations

from math import floor

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search.token_grid import TokenGrid


def keys_per_row(density: float, columns: int) -> int:
    """How many of `columns` key blocks a query block computes at `density`: rounded, at least one."""
    return min(columns, max(1, floor(density * columns + 0.5)))


def head_budgets(recall: Tensor, keep: int, columns: int, threshold: float) -> Tensor:
    """Three budgets by recall, with the mean over heads kept (AdaSpa §1.5).

    The n heads of highest recall compute half as many blocks and the n of lowest recall as many more
    as that frees, where n counts the heads with recall above `threshold`, at most half of them (the
    paper leaves n > H/2 open). recall ``[b, h]`` in [0, 1]; returns int64 ``[b, h]``.
    """
    heads = recall.shape[1]
    low = max(1, floor(keep / 2 + 0.5))
    saved = min(keep - low, columns - keep)
    n = (recall > threshold).sum(dim=1, keepdim=True).clamp(max=heads // 2)
    rank = recall.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    change = (rank >= heads - n).long() - (rank < n).long()
    return keep + saved * change


def top_blocks(score: Tensor, keep: Tensor | int) -> Tensor:
    """The `keep` highest scores of every row: bool ``[b, h, m, n]``; `keep` an int or ``[b, h]``."""
    most = keep if isinstance(keep, int) else int(keep.max())
    order = score.topk(most, dim=-1).indices
    limit = keep if isinstance(keep, int) else keep[..., None, None]
    chosen = (torch.arange(most, device=score.device) < limit).expand_as(order)
    return torch.zeros_like(score, dtype=torch.bool).scatter(-1, order, chosen)


def recall_of(mass: Tensor, chosen: Tensor) -> Tensor:
    """Share of the attention mass that the chosen blocks hold, per head: ``[b, h]`` (AdaSpa §1.1)."""
    total = mass.sum(dim=(-2, -1)).clamp(min=torch.finfo(mass.dtype).tiny)
    return (mass * chosen).sum(dim=(-2, -1)) / total


def video_columns(grid: TokenGrid, block: int, device: torch.device) -> Tensor:
    """Key blocks that hold no text, over which density counts: bool ``[n]``."""
    return ~grid.text_blocks(block, device)


def with_text(chosen: Tensor, grid: TokenGrid, block: int) -> Tensor:
    """Add every block pair that touches text, both ways (AdaSpa §1.6, text sink)."""
    text = grid.text_blocks(block, chosen.device)
    return chosen | text[:, None] | text[None, :]


def mask_of(chosen: Tensor, grid: TokenGrid, block: int) -> BlockMask:
    """BlockMask of a bool map ``[b, h, m, n]`` over the whole sequence of `grid`."""
    return BlockMask.from_dense(chosen, block_size=block, q_len=grid.tokens, kv_len=grid.tokens)
