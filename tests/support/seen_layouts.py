"""Which token grids the attention calls of a run were given, and which blocks a mask computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sparsediff.session
from sparsediff.kernels.block_mask import BlockMask
from sparsediff.search import TokenGrid


def image(height: int, width: int, before: int = 0, after: int = 0) -> TokenGrid:
    """The grid of an image with text or reference pictures beside it."""
    return TokenGrid(frames=1, height=height, width=width, text_before=before, text_after=after)


def watch_grids(patch: pytest.MonkeyPatch) -> set[TokenGrid | None]:
    """The grids that sessions take for their calls, from now on; None for a call without one."""
    seen: set[TokenGrid | None] = set()
    original = sparsediff.session.grid_of

    def watched(*arguments: Any) -> TokenGrid | None:
        grid = original(*arguments)
        seen.add(grid)
        return grid

    patch.setattr(sparsediff.session, "grid_of", watched)
    return seen


def always_computed(mask: BlockMask, tokens: range) -> bool:
    """Whether every block with one of these tokens is computed, as queries and as keys."""
    chosen = mask.to_dense()  # [b, h, query blocks, key blocks]
    size = mask.block_size[0]
    blocks = torch.arange(tokens.start // size, (tokens.stop - 1) // size + 1)
    return bool(chosen[:, :, blocks].all() and chosen[:, :, :, blocks].all())
