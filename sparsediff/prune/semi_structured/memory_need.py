"""MemoryNeed: what learning masks takes, known before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.candidates import CANDIDATES, GROUP

# Bytes for each weight: six fp32 gates for four weights.
GATES = 4 * len(CANDIDATES) // GROUP
GRADIENTS, MOMENTS = GATES, 2 * GATES
# The layer whose mask is being computed: three more of the size of its gates.
WORKING = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryNeed:
    """Of ``weights`` that get masks, the ``largest`` layer having so many of them.

    The model itself and its activations come on top.
    """

    weights: int
    largest: int

    @classmethod
    def of(cls, layers: Mapping[str, nn.Linear]) -> MemoryNeed:
        """What the masks of these layers take."""
        sizes = [layer.weight.numel() for layer in layers.values()]
        return cls(weights=sum(sizes), largest=max(sizes))

    @property
    def kept(self) -> int:
        """Bytes of gates, their gradients and AdamW's two moments: 24 for each weight."""
        return (GATES + GRADIENTS + MOMENTS) * self.weights

    @property
    def total(self) -> int:
        """Bytes at most, with those that the largest layer needs while its mask is computed."""
        return self.kept + WORKING * self.largest

    def words(self) -> str:
        """For people, before a training."""
        return (
            f"Masks for {self.weights:,} weights: {self.kept / 1e9:.2f} GB for gates ({GATES} bytes a "
            f"weight), gradients ({GRADIENTS}) and moments ({MOMENTS}), and up to "
            f"{WORKING * self.largest / 1e9:.2f} GB while the largest layer is computed; the model and "
            f"its activations come on top."
        )

    def check(self, limit_gb: float | None) -> None:
        """Raises SparseError where it is more than a limit in GB (10⁹ bytes); None is no limit."""
        if limit_gb is not None and self.total > 1e9 * limit_gb:
            raise SparseError(
                f"{self.words()} That is {self.total / 1e9:.2f} GB, more than the limit of "
                f"{limit_gb:g} GB. Name fewer layers by a pattern, such as 'blocks.1*.ffn.*', and "
                f"learn the masks group by group: each from the model with the earlier masks applied."
            )
