"""LayerSpeed: a dense linear layer and its 2:4 form, timed in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from sparsediff.gain.trial import turns_on
from sparsediff.kernels.turns import aside, least, shares

# Two layers that are equally fast: one wins nine of nine rounds once in 500 times.
WINS = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """``tokens`` ``[tokens, inputs]`` into ``outputs``; what layers may share one measurement."""

    tokens: int
    inputs: int
    outputs: int
    dtype: torch.dtype
    bias: bool

    @classmethod
    def of(cls, layer: nn.Linear, tokens: int) -> LayerShape:
        """The shape of a layer's calls."""
        return cls(
            tokens=tokens,
            inputs=layer.in_features,
            outputs=layer.out_features,
            dtype=layer.weight.dtype,
            bias=layer.bias is not None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpeed:
    """Seconds are the least of all rounds; ``share`` is the median of sparse over dense time.

    ``won``: share of the ``rounds`` in which the sparse layer was faster.
    """

    shape: LayerShape
    dense_seconds: float
    sparse_seconds: float
    share: float
    won: float
    rounds: int

    @property
    def pays(self) -> bool:
        """Whether the sparse layer was faster in nine of ten rounds, and so in its median."""
        return self.won >= WINS and self.share < 1

    def words(self) -> str:
        """For people."""
        return (
            f"{self.share:.2f} of the dense time, faster in {self.won:.0%} of {self.rounds} rounds "
            f"({self.shape.tokens} tokens)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        plain = asdict(self)
        plain["shape"]["dtype"] = str(self.shape.dtype).removeprefix("torch.")
        return plain | {"pays": self.pays}


def layer_speed(
    dense: nn.Linear, sparse: nn.Module, tokens: int, *, clock: Callable[[], float] | None = None
) -> LayerSpeed:
    """Time both on the same random tokens, about a second long; `clock` as in `Turns`."""
    device = dense.weight.device
    noise = torch.Generator(device).manual_seed(0)
    size = (tokens, dense.in_features)
    x = torch.randn(size, generator=noise, device=device).to(dense.weight.dtype)

    def timed() -> list[list[float]]:
        with torch.inference_mode():
            return turns_on(device, clock).rounds([lambda: dense(x), lambda: sparse(x)])

    rounds = aside(timed)
    best = least(rounds)
    return LayerSpeed(
        shape=LayerShape.of(dense, tokens),
        dense_seconds=best[0],
        sparse_seconds=best[1],
        share=shares(rounds)[1],
        won=sum(sparse < dense for dense, sparse in rounds) / len(rounds),
        rounds=len(rounds),
    )
