"""Arrangement: the token order in which a call's blocks are chosen and computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from sparsediff.search.token_grid import TokenGrid
from sparsediff.search.token_order import RASTER, Permutation, video_order


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Arrangement:
    """A sequence in another order: ``grid`` of the tokens as arranged, ``tokens`` the permutation.

    Masks, block masses, LSEs and ``kv_lens`` of an arranged call are in this order; queries, keys,
    values and outputs come and go in the model's own.
    """

    grid: TokenGrid
    tokens: Permutation


@lru_cache(maxsize=32)
def arrangements(
    grid: TokenGrid, order: str, device: torch.device
) -> tuple[Arrangement | None, ...]:
    """The arrangements of a model's sequence, the preferred one first; None is the model's own order.

    `grid` as the model lays it out, in raster order; `order` as `TokenGrid.order`. Text before the
    video stays there in the model's own order only. Else it comes after the video, so that tiles
    begin where blocks do and padded text can be the end of the sequence: before the text that was
    there already, or behind it. The tensors are made once and kept.
    """
    first, last = grid.text_before, grid.text_before + grid.video_tokens
    with torch.inference_mode(False):
        everything = torch.arange(grid.tokens)
        before, after = everything[:first], everything[last:]
        video = video_order((grid.frames, grid.height, grid.width), order) + first
        layouts = [(video, before, after), (video, after, before)]
        arranged = replace(grid, order=order, text_before=0, text_after=grid.text_tokens)
        found: list[Arrangement | None] = [
            Arrangement(grid=arranged, tokens=Permutation.of(torch.cat(parts).to(device)))
            for parts in layouts[: 1 if first == 0 or last == grid.tokens else 2]
        ]
    if order != RASTER:
        return tuple(found)
    return (None, *found) if first else (None,)


def order_of(arrangement: Arrangement | None) -> Tensor | None:
    """Which token comes at each position: int64 ``[s]``; None where nothing moves."""
    return None if arrangement is None else arrangement.tokens.order
