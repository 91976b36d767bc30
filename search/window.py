"""Window: a band around the diagonal, the baseline that looks at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask, block_count
from sparsediff.kernels.errors import SparseError
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory, Method
from sparsediff.search.patterns.token_reorder import periods
from sparsediff.search.selection import video_mask
from sparsediff.search.token_grid import TokenGrid
from sparsediff.search.token_order import RASTER


@dataclass(frozen=True, kw_only=True, slots=True)
class Window(Method):
    """Every query block computes the key blocks nearest to it in the sequence, the same for all heads.

    ``temporal``: nearest to its own place in any frame (in any row of an image) instead; the two are
    the spatial and the temporal window of Sparse VideoGen (arXiv 2502.01776). In another
    ``token_order`` than the model's, near means near in the grid: the distance between the middles of
    two blocks, for ``temporal`` that within a frame. Sparse from the first call on unless ``warmup``
    says otherwise. Raises SparseError as `Method` does.
    """

    name: ClassVar[str] = "window"

    temporal: bool = False

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not isinstance(self.temporal, bool):
            raise SparseError(f"temporal={self.temporal!r}: needs True or False.")

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense by the schedule, else the fixed band."""
        if self.schedule.is_dense(call.step, call.depth):
            return call.dense()
        if memory.mask is None:
            memory.mask = self.mask(call.grid, call.q.device)
        return call.sparse(memory.mask, compensate=self.compensate)

    def mask(self, grid: TokenGrid, device: torch.device) -> BlockMask:
        """The band for a grid: near blocks first, the earlier one when two are equally near."""
        if grid.order != RASTER:
            nearness = -self._distance(grid).to(device)
            return video_mask(nearness[None, None], self.density, grid, self.block_size)
        blocks = block_count(grid.tokens, self.block_size)
        number = torch.arange(blocks, device=device)
        apart = number[None, :] - number[:, None]
        nearness = -(2 * apart.abs() + (apart > 0)).double()
        if self.temporal:
            period, _ = periods(grid)
            ahead = (apart * self.block_size) % period
            nearness -= 4 * blocks * torch.minimum(ahead, period - ahead)
        return video_mask(nearness[None, None], self.density, grid, self.block_size)

    def _distance(self, grid: TokenGrid) -> Tensor:
        """Squared distance between the middles of every two blocks, in tokens: float64 ``[n, n]``."""
        blocks = block_count(grid.tokens, self.block_size)
        first, video = grid.text_before, grid.positions().double()
        number = torch.arange(first, first + len(video)) // self.block_size
        middle = torch.zeros(blocks, 3, dtype=torch.float64).index_add_(0, number, video)
        middle /= number.bincount(minlength=blocks).clamp(min=1)[:, None]
        if self.temporal:
            middle = middle[:, 1:] if grid.frames > 1 else middle[:, 2:]
        apart = (middle[:, None] - middle[None]).square().sum(dim=-1)
        # Of two that are equally near, the earlier one, on every device.
        return apart + 1e-9 * torch.arange(blocks)
