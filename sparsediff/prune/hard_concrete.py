"""HardConcrete: gates in 0..1 that can be learnt (Louizos et al., arXiv 1712.01312; EcoDiff §3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, log
from typing import Literal, get_args

import torch
from torch import Tensor

from sparsediff.kernels.errors import SparseError

Regulariser = Literal["l0", "l1", "bounded-l1"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HardConcrete:
    """From a logit l and a draw u of 0..1 to a gate that often is exactly 0 or 1:

    s = sigmoid((ln(u + d) - ln(1 - u + d) + l) / temperature), gate = clamp(low + (high - low) s, 0, 1)

    d, ``damping``, bounds the noise by ln((1 + d) / d): 0 is the exact hard concrete, 0.5 leaves
    1.1 either way. It is ``masking_eps`` of EcoDiff's code: 0.5 for SDXL, 0.1 for Flux, 1 for SD3.

    Raises SparseError for values that make no such gate.
    """

    damping: float = 0.5
    temperature: float = 0.83
    low: float = -0.1
    high: float = 1.1

    def __post_init__(self) -> None:
        if not all(isfinite(value) for value in (self.damping, self.temperature)):
            raise SparseError(
                f"damping={self.damping}, temperature={self.temperature}: not finite."
            )
        if self.damping < 0 or self.temperature <= 0:
            raise SparseError(
                f"damping={self.damping}, temperature={self.temperature}: needs damping >= 0 and "
                f"temperature > 0."
            )
        if not self.low < 0 or not self.high > 1:
            raise SparseError(
                f"low={self.low}, high={self.high}: gates reach 0 and 1 only with low < 0, high > 1."
            )

    def gates(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Gates of logits ``[units]`` for draws ``[..., units]`` of 0..1, fp32."""
        noise = (uniform + self.damping).log() - (1 - uniform + self.damping).log()
        soft = ((noise + logits.float()) / self.temperature).sigmoid()
        return (self.low + (self.high - self.low) * soft).clamp(0, 1)

    def expected_l0(self, logits: Tensor) -> Tensor:
        """The probability that a gate is not 0, of the exact hard concrete: fp32 ``[units]``.

        sigmoid(l - temperature ln(-low / high)); with the usual values sigmoid(l + 1.99). It does not
        know of damping, with which the probability is min(1, (1 + 2 d) sigmoid(l + 1.99) - d): exactly
        1 where training starts, so that nothing would ever be driven off.
        """
        return (logits.float() - self.temperature * log(-self.low / self.high)).sigmoid()

    def penalty(self, logits: Tensor, regulariser: Regulariser = "l0") -> Tensor:
        """How much the gates of a layer ``[units]`` cost: a scalar.

        "l0": the mean of `expected_l0`, which is the share of units expected to stay. For parity with
        EcoDiff's code, "l1": mean \\|l\\|; "bounded-l1": mean \\|sigmoid(0.4 l + 1)\\| (Flux). The code
        sums expected L0 over units where this takes the mean, as it does for L1.
        """
        if regulariser == "l0":
            return self.expected_l0(logits).mean()
        if regulariser == "l1":
            return logits.float().abs().mean()
        if regulariser == "bounded-l1":
            return (0.4 * logits.float() + 1).sigmoid().mean()
        raise SparseError(
            f"regulariser={regulariser!r}: needs one of {', '.join(get_args(Regulariser))}."
        )

    def likely(self, logits: Tensor) -> Tensor:
        """The gates without noise, at u = 1/2: what `gates` gives in the middle of all draws."""
        return self.gates(logits, torch.full_like(logits, 0.5, dtype=torch.float32))
