"""GainCase: what the times of dense and sparse attention depend on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsediff.kernels.ranked_call import device_name
from sparsediff.kernels.ranking import SWITCH, enabled
from sparsediff.search import TokenGrid
from sparsediff.search.offline.cost_case import CostCase

# Operations of the dense call that is timed: a few hundredths of a second, on a CPU with any number of
# threads.
PER_THREAD, ON_A_GPU = 1.25e9, 1.5e13


@dataclass(frozen=True, kw_only=True, slots=True)
class GainCase:
    """Self-attention of ``streams`` (batch items times heads), each over ``tokens``.

    ``dense``: name of the user's attention function, ``masked`` whether it gets a mask; ``moved``
    whether sparse calls reorder their tokens. ``backend`` as in `block_sparse_attention`.
    """

    tokens: int
    streams: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    block_size: int
    backend: str = "auto"
    dense: str = "native"
    masked: bool = False
    compensate: bool = False
    moved: bool = False

    @property
    def whole(self) -> CostCase:
        """The call in full, as one batch item."""
        return CostCase(
            grid=TokenGrid(frames=1, height=self.tokens, width=1),
            heads=self.streams,
            head_dim=self.head_dim,
            dtype=self.dtype,
            device=self.device,
            block_size=self.block_size,
            backend=self.backend,
        )

    @property
    def timed(self) -> CostCase:
        """What is timed in its place: fewer streams, and fewer tokens where one is too many still."""
        limit = ON_A_GPU if self.device.type == "cuda" else PER_THREAD * torch.get_num_threads()
        return self.whole.within(limit)

    @property
    def scale(self) -> float:
        """Operations of the whole call in units of the timed one's."""
        whole, timed = self.whole, self.timed
        tokens = whole.grid.tokens / timed.grid.tokens
        return tokens**2 * whole.heads / timed.heads

    def untimed(self) -> str | None:
        """Why nothing is timed for such a case; None when it can be."""
        if not enabled():
            return f"{SWITCH}=off"
        return self.whole.unmeasurable()

    def key(self, kernel: str) -> str:
        """Its name in the file of measured times; cases that are timed alike share it."""
        words = [self.dense + " with a mask" * self.masked]
        words += ["with mean keys"] * self.compensate + ["tokens reordered"] * self.moved
        return ", ".join([self.timed.key(kernel), *words])

    def words(self) -> str:
        """Device and shape, for people."""
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.tokens:,} tokens, {self.streams} heads of {self.head_dim}, {dtype}, on "
            f"{device_name(self.device)}"
        )
