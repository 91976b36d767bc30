"""Window: a band around the diagonal, the baseline that looks at nothing."""

from __future__ import annotations

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
class Window(Method):
    """Every query block computes the key blocks nearest to it in the sequence, the same for all heads.

    Sparse from the first call on unless ``warmup`` says otherwise.
    """

    name: ClassVar[str] = "window"

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense by the schedule, else the fixed band."""
        if self.schedule.is_dense(call.step, call.depth):
            return call.dense()
        if memory.mask is None:
            memory.mask = self.mask(call.grid, call.q.device)
        return call.sparse(memory.mask, compensate=self.compensate)

    def mask(self, grid: TokenGrid, device: torch.device) -> BlockMask:
        """The band for a grid: near blocks first, the earlier one when two are equally near."""
        blocks = block_count(grid.tokens, self.block_size)
        number = torch.arange(blocks, device=device)
        distance = (number[None, :] - number[:, None]).abs()
        nearness = -(2 * distance + (number[None, :] > number[:, None])).float()[None, None]
        return video_mask(nearness, self.density, grid, self.block_size)
