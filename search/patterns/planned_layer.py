"""PlannedLayer: the patterns of one layer's heads, ready to be computed in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory
from sparsediff.search.patterns.online_heads import OnlineHeads
from sparsediff.search.patterns.pattern import Pattern, Skip
from sparsediff.search.patterns.pattern_mask import pattern_mask, reordered_heads
from sparsediff.search.patterns.token_reorder import Reordering
from sparsediff.search.token_grid import TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlannedLayer:
    """``mask`` of the fixed patterns, ``[1, h, m, n]``; ``online`` heads that are searched, if any.

    ``reordering`` of the heads whose tokens are ordered place by place while they are computed, if any.
    ``skipped`` int64 heads that give 0, also where left-out blocks take part as means; None without.
    """

    mask: BlockMask
    online: OnlineHeads | None
    reordering: Reordering | None
    skipped: Tensor | None

    @classmethod
    def of(
        cls, patterns: Sequence[Pattern], grid: TokenGrid, block: int, device: torch.device
    ) -> PlannedLayer:
        """For one pattern per head; raises SparseError without any."""
        skipped = [head for head, pattern in enumerate(patterns) if isinstance(pattern, Skip)]
        return cls(
            mask=pattern_mask(patterns, grid, block, device),
            online=OnlineHeads.of(patterns, grid, block),
            reordering=Reordering.of(reordered_heads(patterns), grid, device),
            skipped=torch.tensor(skipped, device=device) if skipped else None,
        )

    def run(
        self, call: AttentionCall, memory: Memory, *, bucket: int, marks: int, compensate: bool
    ) -> Tensor:
        """Compute a call, ``[b, s, h, d]``; online heads are searched anew in a new bucket or mark."""
        mask = self.mask
        if self.online is not None:
            mask = self.online.mask(call, memory, mask, bucket, marks)
        if self.reordering is None:
            out = call.sparse(mask, compensate=compensate)
        else:
            out = self.reordering.sparse(call, mask, compensate=compensate)
        if self.skipped is None or not compensate:
            return out
        return out.index_fill(2, self.skipped, 0)
