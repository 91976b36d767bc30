"""Window: a band around the diagonal, the baseline that looks at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory, Method
from sparsediff.search.selection import keys_per_row, mask_of, top_blocks, video_columns, with_text
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
        video = video_columns(grid, self.block_size, device)
        number = torch.arange(len(video), device=device)
        distance = (number[None, :] - number[:, None]).abs()
        nearness = -(2 * distance + (number[None, :] > number[:, None])).float()
        nearness = nearness.masked_fill(~video, -torch.inf)[None, None]
        chosen = top_blocks(nearness, keys_per_row(self.density, max(1, int(video.sum()))))
        return mask_of(with_text(chosen, grid, self.block_size), grid, self.block_size)
