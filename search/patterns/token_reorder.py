"""Reordering tokens so that one place's frames lie side by side (Sparse-vDiT §2.1, mode M3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search.call import AttentionCall
from sparsediff.search.token_grid import TokenGrid


def periods(grid: TokenGrid) -> tuple[int, int]:
    """Tokens of a period and how many periods the video has: frames, or the rows of an image."""
    if grid.frames > 1:
        return grid.height * grid.width, grid.frames
    if grid.height > 1:
        return grid.width, grid.height
    return grid.width, 1


def by_place(grid: TokenGrid, device: torch.device | str = "cpu") -> Tensor:
    """Which token comes at each position when the video is ordered place by place: int64 ``[s]``.

    ``x[:, by_place(grid)]`` reorders; text stays where it is.
    """
    period, count = periods(grid)
    video = torch.arange(grid.video_tokens, device=device).view(count, period).T.reshape(-1)
    everything = torch.arange(grid.tokens, device=device)
    first = grid.text_before
    everything[first : first + grid.video_tokens] = video + first
    return everything


def reordered_sparse(
    call: AttentionCall, mask: BlockMask, heads: Sequence[int], *, compensate: bool = False
) -> Tensor:
    """`call.sparse` with the tokens of some heads ordered place by place: ``[b, s, h, d]``.

    `mask` holds those heads' blocks in the new order, the others' in the order of the sequence, so one
    launch computes all. The output is in the order of the sequence.
    """
    if not heads:
        return call.sparse(mask, compensate=compensate)
    order = by_place(call.grid, call.q.device)
    chosen = torch.tensor(heads, device=call.q.device)
    q, k, v = (_permuted(x, order, chosen) for x in (call.q, call.k, call.v))
    out = replace(call, q=q, k=k, v=v).sparse(mask, compensate=compensate)
    return _permuted(out, order.argsort(), chosen)


def _permuted(x: Tensor, order: Tensor, heads: Tensor) -> Tensor:
    """A copy of ``[b, s, h, d]`` with the tokens of some heads in another order."""
    if len(heads) == x.shape[2]:
        return x.index_select(1, order)
    moved = x.index_select(2, heads).index_select(1, order)
    return x.index_copy(2, heads, moved)
