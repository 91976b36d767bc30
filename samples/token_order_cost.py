"""What moving the tokens of a sparse call into another order and back costs, by `token_orders.py`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sparsediff.kernels.block_mask import BlockMask
from sparsediff.kernels.turns import Turns, shares
from sparsediff.search import AttentionCall, RandomBlocks, Step, TokenGrid
from sparsediff.search.arrangement import arrangements

HEADS, DIM, BLOCK, DENSITY = 8, 64, 64, 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveCost:
    """Seconds of a sparse call, and as shares of them: the moves alone, the call in another order.

    ``moves``: q, k and v into the order and the output back. ``whole``: that call in whole. Shares are
    medians over rounds in which all were timed.
    """

    tokens: int
    seconds: float
    moves: float
    whole: float
    dense: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values and the shape they were measured at."""
        shape = {"heads": HEADS, "dim": DIM, "block_size": BLOCK, "density": DENSITY}
        return {**asdict(self), **shape, "dtype": "float32"}


class Uncounted:
    """A recorder that keeps nothing."""

    def ran_dense(self, call: AttentionCall) -> None:
        """Nothing."""

    def ran_sparse(self, call: AttentionCall, mask: BlockMask, backend: str) -> None:
        """Nothing."""

    def noted(self, text: str) -> None:
        """Nothing."""


def move_cost(frames: int, height: int, width: int) -> MoveCost:
    """Time a sparse call of a grid of tokens in raster order and along the Hilbert curve, in turns."""
    grid = TokenGrid(frames=frames, height=height, width=width)
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, grid.tokens, HEADS, DIM, generator=noise) for _ in range(3))
    attention = torch.nn.functional.scaled_dot_product_attention

    def dense() -> Tensor:
        return attention(*(x.transpose(1, 2) for x in (q, k, v)))

    plain = AttentionCall(
        q=q,
        k=k,
        v=v,
        grid=grid,
        step=Step(index=0),
        layer=0,
        depth=0,
        scale=DIM**-0.5,
        kv_lens=None,
        backend="auto",
        user_dense=dense,
        recorder=Uncounted(),
    )
    (arrangement,) = arrangements(grid, "gilbert", q.device)
    if arrangement is None:
        raise ValueError("the Hilbert curve is the raster order here")
    mask = RandomBlocks(density=DENSITY, block_size=BLOCK).mask(grid, HEADS, 0)
    tokens = arrangement.tokens

    def moves() -> Tensor:
        for x in (q, k):
            tokens.moved(x)
        return tokens.restored(tokens.moved(v))

    def moved() -> Tensor:  # a call keeps what it has moved, so every round needs a new one
        call = replace(plain, grid=arrangement.grid, arrangement=arrangement)
        return call.sparse(mask)

    turns = Turns(device=q.device, most=11, enough=5, seconds=20.0)
    with torch.no_grad():
        rounds = turns.rounds([lambda: plain.sparse(mask), moves, moved, dense])
    _, share, whole, full = shares(rounds)
    return MoveCost(
        tokens=grid.tokens,
        seconds=median(times[0] for times in rounds),
        moves=share,
        whole=whole,
        dense=full,
    )
