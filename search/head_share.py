"""HeadShare: the heads of a layer that this process computes, where several processes divide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeadShare:
    """Which heads of a layer a call holds, and the way to the figures of the others.

    ``shares`` the head numbers of every process, equally many each, in the order in which its tensors
    hold them; ``rank`` which of them is this process's. ``order`` int64 ``[heads]``: all shares one
    after the other; ``back`` its inverse. ``collect`` takes a tensor of any shape and gives
    ``[processes, *shape]``, what every process handed in; all of them have to call it.
    """

    shares: tuple[tuple[int, ...], ...]
    rank: int
    order: Tensor
    back: Tensor
    collect: Callable[[Tensor], Tensor]

    @classmethod
    def of(
        cls,
        shares: Sequence[Sequence[int]],
        rank: int,
        device: torch.device | str,
        collect: Callable[[Tensor], Tensor],
    ) -> HeadShare:
        """For the head numbers of every process.

        Raises SparseError unless every head is in one share, and all shares are as long.
        """
        numbers = [head for share in shares for head in share]
        uneven = len({len(share) for share in shares}) != 1
        if uneven or sorted(numbers) != list(range(len(numbers))) or not 0 <= rank < len(shares):
            raise SparseError(
                f"shares={shares!r}, rank={rank!r}: needs every head number from 0 on once, equally "
                f"many in each share, and the number of one of the shares."
            )
        order = torch.tensor(numbers, device=device)
        return cls(
            shares=tuple(tuple(share) for share in shares),
            rank=rank,
            order=order,
            back=order.argsort(),
            collect=collect,
        )

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of this process's heads."""
        return self.shares[self.rank]

    @property
    def total(self) -> int:
        """Heads of the layer."""
        return len(self.order)

    def gather(self, values: Tensor) -> Tensor:
        """From figures of this process's heads, ``[b, h, ...]``, to all: ``[b, heads, ...]``."""
        return self.collect(values).movedim(0, 1).flatten(1, 2).index_select(1, self.back)

    def own(self, values: Tensor) -> Tensor:
        """From figures of all heads, ``[b, heads, ...]``, to those of this process: ``[b, h, ...]``."""
        h = len(self.numbers)
        return values.index_select(1, self.order[self.rank * h : (self.rank + 1) * h])
