"""RandomBlocks: key blocks drawn by lot, the floor that every method must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask, block_count
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory, Method
from sparsediff.search.selection import video_mask
from sparsediff.search.token_grid import TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomBlocks(Method):
    """Every query block of every head computes key blocks drawn by lot, kept for the whole run.

    The draw depends only on ``seed`` and the layer. Sparse from the first call on unless ``warmup``
    says otherwise.
    """

    name: ClassVar[str] = "random"

    seed: int = 0

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense by the schedule, else the drawn blocks."""
        if self.schedule.is_dense(call.step, call.depth):
            return call.dense()
        if memory.mask is None:
            mask = self.mask(call.grid, call.layer_heads, call.layer, call.heads)
            memory.mask = mask.to(call.q.device)
        return call.sparse(memory.mask, compensate=self.compensate)

    def mask(
        self, grid: TokenGrid, heads: int, layer: int, own: Sequence[int] | None = None
    ) -> BlockMask:
        """The blocks drawn for a layer, or for its heads with the numbers `own` only."""
        blocks = block_count(grid.tokens, self.block_size)
        generator = torch.Generator().manual_seed(self.seed * 100_003 + layer)
        score = torch.rand((1, heads, blocks, blocks), generator=generator)
        if own is not None:
            score = score[:, list(own)]
        return video_mask(score, self.density, grid, self.block_size)
