"""The orders in which the video tokens of a grid can be computed: raster, tile, gilbert."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.errors import SparseError
from sparsediff.search.gilbert import gilbert

TOKEN_ORDERS = ("raster", "tile", "gilbert")
RASTER = "raster"
_TILE = "tile-"  # and the tokens of a tile

Size = tuple[int, int, int]


def check_token_order(name: object) -> None:
    """Raise SparseError unless `name` is one of TOKEN_ORDERS."""
    if name not in TOKEN_ORDERS:
        raise SparseError(
            f"token_order={name!r}: needs one of {', '.join(map(repr, TOKEN_ORDERS))}; "
            f'"raster" is the order that models use.'
        )


def grid_order(token_order: str, block: int) -> str:
    """The `TokenGrid.order` that a method's token order is for blocks of `block` tokens."""
    return f"{_TILE}{block}" if token_order == "tile" else token_order


def tile_tokens(order: object) -> int | None:
    """Tokens of a tile of a `TokenGrid.order`; None for an order without tiles.

    Raises SparseError for what is no such order.
    """
    if order in {RASTER, "gilbert"}:
        return None
    number = order.removeprefix(_TILE) if isinstance(order, str) else ""
    if order != f"{_TILE}{number}" or not number.isdecimal() or int(number) < 1:
        raise SparseError(
            f"TokenGrid.order={order!r}: needs 'raster', 'gilbert', or 'tile-64' for tiles of 64 "
            f"tokens."
        )
    return int(number)


@lru_cache(maxsize=16)
def video_order(size: Size, order: str) -> Tensor:
    """Which raster place of a (frames, height, width) grid comes at each position: int64 ``[n]``.

    On the CPU, shared by all who ask: not to be written to. Raises SparseError as `tile_tokens` does.
    """
    tokens = tile_tokens(order)
    with torch.inference_mode(False):  # kept, and some day perhaps part of a training
        if tokens is not None:
            return _tiled(size, tile_shape(size, tokens))
        return torch.arange(prod(size)) if order == RASTER else gilbert(size)


def tile_shape(size: Size, tokens: int) -> Size:
    """Frames, rows and columns of a tile of `tokens` tokens, compact and cutting little at the edges.

    Of all ways to write `tokens` as a product, the one that leaves the fewest neighbouring tokens of
    the grid in different tiles: near cubes, and among those the ones that fit the grid's edges.
    """
    divisors = [n for n in range(1, tokens + 1) if tokens % n == 0]
    shapes = [
        (f, h, tokens // (f * h)) for f in divisors for h in divisors if tokens % (f * h) == 0
    ]

    def cut(shape: Size) -> int:
        parts = [block_count(edge, step) for edge, step in zip(size, shape, strict=True)]
        return sum(prod(size) // edge * part for edge, part in zip(size, parts, strict=True))

    return min(shapes, key=lambda shape: (cut(shape), max(shape), shape))


def _tiled(size: Size, tile: Size) -> Tensor:
    """Tile after tile, back and forth so that the next one is a neighbour; raster inside a tile.

    Tiles at the far edges are smaller where the tile does not divide the grid; nothing is padded.
    """
    _, rows, columns = (block_count(edge, step) for edge, step in zip(size, tile, strict=True))
    axes = [torch.arange(edge) for edge in size]
    f, h, w = torch.meshgrid(*axes, indexing="ij")
    row = torch.where(f // tile[0] % 2 == 0, h // tile[1], rows - 1 - h // tile[1])
    line = f // tile[0] * rows + row
    column = torch.where(line % 2 == 0, w // tile[2], columns - 1 - w // tile[2])
    within = (f % tile[0] * tile[1] + h % tile[1]) * tile[2] + w % tile[2]
    return ((line * columns + column) * prod(tile) + within).flatten().argsort()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Permutation:
    """Tokens in another order: ``order``, which one comes at each position, and ``back``, its inverse.

    int64 ``[s]``, made once and kept: made in every call they would make a GPU wait.
    """

    order: Tensor
    back: Tensor

    @classmethod
    def of(cls, order: Tensor) -> Permutation:
        """With the inverse made here, on the order's device."""
        return cls(order=order, back=order.argsort())

    def moved(self, x: Tensor, dim: int = 1) -> Tensor:
        """A copy of `x` with its tokens, along `dim`, in the new order."""
        return x.index_select(dim, self.order)

    def restored(self, x: Tensor, dim: int = 1) -> Tensor:
        """A copy of `x` with its tokens back in the order of the sequence."""
        return x.index_select(dim, self.back)
