"""OnlineHeads: the heads of a planned layer whose blocks are searched while generating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory
from sparsediff.search.patterns.pattern import Online, Pattern
from sparsediff.search.selection import RankedBlocks, keys_per_row
from sparsediff.search.token_grid import TokenGrid


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineHeads:
    """Which heads are searched, and how many video blocks each of their rows keeps.

    The search is AdaSpa's (arXiv 2502.21079 §1.4): the exact log-sum-exp once, then the block mass from
    it whenever the blocks are chosen anew.
    """

    heads: tuple[int, ...]
    keep: tuple[int, ...]
    block_size: int

    @classmethod
    def of(cls, patterns: Sequence[Pattern], grid: TokenGrid, block: int) -> OnlineHeads | None:
        """The online heads of a layer, or None when there is none."""
        columns = grid.video_blocks(block)
        found = {
            head: keys_per_row(pattern.density, columns)
            for head, pattern in enumerate(patterns)
            if isinstance(pattern, Online)
        }
        if not found:
            return None
        return cls(heads=tuple(found), keep=tuple(found.values()), block_size=block)

    def search(self, call: AttentionCall, memory: Memory, bucket: int, marks: int) -> BlockMask:
        """Choose the blocks by their mass under the remembered LSE; measures one if there is none."""
        if memory.lse is None:
            memory.lse = call.lse()
        chosen = torch.tensor(self.heads, device=call.q.device)
        part = replace(call, q=call.q[:, :, chosen], k=call.k[:, :, chosen], v=call.v[:, :, chosen])
        mass = part.mass(memory.lse[:, chosen].contiguous(), self.block_size)
        keep = torch.tensor(self.keep, device=mass.device).expand(len(mass), -1)
        ranked = RankedBlocks.of(mass, max(self.keep), call.grid, self.block_size)
        memory.mask = ranked.mask(keep)
        memory.extra["searched"] = (bucket, marks, self)
        return memory.mask

    def mask(
        self, call: AttentionCall, memory: Memory, fixed: BlockMask, bucket: int, marks: int
    ) -> BlockMask:
        """`fixed` with the online heads' blocks, searched again in a new bucket or after a mark."""
        found = memory.mask
        if found is None or memory.extra.get("searched") != (bucket, marks, self):
            found = self.search(call, memory, bucket, marks)
        joined: tuple[BlockMask, BlockMask, BlockMask] | None = memory.extra.get("joined")
        if joined is None or joined[0] is not fixed or joined[1] is not found:
            joined = memory.extra["joined"] = (fixed, found, self._join(fixed, found))
        return joined[2]

    def _join(self, fixed: BlockMask, found: BlockMask) -> BlockMask:
        batch = found.counts.shape[0]
        heads = torch.tensor(self.heads, device=found.device)
        longest = max(fixed.indices.shape[-1], found.indices.shape[-1])
        counts = fixed.counts.expand(batch, -1, -1).index_copy(1, heads, found.counts)
        lists = _padded(fixed.indices, longest).expand(batch, -1, -1, -1)
        return replace(
            fixed,
            counts=counts,
            indices=lists.index_copy(1, heads, _padded(found.indices, longest)),
            implied_full=True,
        )


def _padded(lists: Tensor, longest: int) -> Tensor:
    """Lists with their last entry repeated up to a common length."""
    beyond = longest - lists.shape[-1]
    return torch.cat([lists, lists[..., -1:].expand(*lists.shape[:-1], beyond)], dim=-1)
