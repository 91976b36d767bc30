"""Reordering tokens so that one place's frames lie side by side (Sparse-vDiT §2.1, mode M3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search.call import AttentionCall
from sparsediff.search.token_grid import TokenGrid
from sparsediff.search.token_order import Permutation


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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reordering:
    """Some ``heads`` of a layer with their tokens place by place: int64 tensors, made once, then kept.

    ``tokens`` of `by_place`. Made per call they would make a GPU wait.
    """

    heads: Tensor
    tokens: Permutation

    @classmethod
    def of(
        cls, heads: Sequence[int], grid: TokenGrid, device: torch.device | str
    ) -> Reordering | None:
        """For these heads of a layer on a grid; None without any."""
        if not heads:
            return None
        tokens = Permutation.of(by_place(grid, device))
        return cls(heads=torch.tensor(heads, device=device), tokens=tokens)

    def sparse(self, call: AttentionCall, mask: BlockMask, *, compensate: bool = False) -> Tensor:
        """`call.sparse` with the heads' tokens reordered: ``[b, s, h, d]``, in the sequence's order.

        `mask` holds those heads' blocks in the new order, the others' in the order of the call's grid,
        so one launch computes all.
        """
        q, k, v = (self._moved(x, self.tokens.moved) for x in call.arranged("q", "k", "v"))
        out = replace(call, q=q, k=k, v=v, arrangement=None).sparse(mask, compensate=compensate)
        return call.restored(self._moved(out, self.tokens.restored))

    def _moved(self, x: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
        """A copy of ``[b, s, h, d]`` with the tokens of the heads in another order."""
        if len(self.heads) == x.shape[2]:
            return move(x)
        return x.index_copy(2, self.heads, move(x.index_select(2, self.heads)))
