"""StandInBlock: what a transformer block computes beside self-attention, with as many weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsediff.gain.case import GainCase
from sparsediff.gain.trial import Dense, trial_tensors, turns_on
from sparsediff.kernels.turns import aside, least

# Operations of the block that is timed: by CPU thread, and on a GPU.
PER_THREAD, ON_A_GPU = 1e10, 1.5e13
_LEAST_TOKENS = 128
_ALIGNED = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class StandInBlock:
    """Projections, normalised queries and keys, a rotation, and a feed-forward layer.

    Each with the norm, modulation and residual of a diffusion transformer; ``x`` ``[1, s, width]``. The
    feed-forward layer is as wide as makes the weights of all.
    """

    x: Tensor
    square: Tensor
    up: Tensor
    down: Tensor
    angles: Tensor
    head_dim: int

    @classmethod
    def of(cls, case: GainCase, *, width: int, weights: int) -> StandInBlock:
        """For so many weights a layer; fewer tokens than the case has where those would take long."""
        limit = ON_A_GPU if case.device.type == "cuda" else PER_THREAD * torch.get_num_threads()
        tokens = min(case.timed.grid.tokens, max(_LEAST_TOKENS, int(limit / (2 * weights))))
        # As wide as models are: a matrix product of a crooked width takes half as long again.
        hidden = max(1, round((weights - 4 * width**2) / (2 * width * _ALIGNED))) * _ALIGNED

        def full(*shape: int, value: float) -> Tensor:
            return torch.full(shape, value, device=case.device, dtype=case.dtype)

        position = torch.arange(tokens, device=case.device)[:, None]
        return cls(
            x=full(1, tokens, width, value=0.5) + position[None].to(case.dtype) / tokens,
            square=full(width, width, value=1 / width),
            up=full(hidden, width, value=1 / width),
            down=full(width, hidden, value=1 / hidden),
            angles=position / torch.arange(1, case.head_dim // 2 + 1, device=case.device),
            head_dim=case.head_dim,
        )

    def run(self) -> Tensor:
        """All of it, with the values standing in for attention's output."""
        normed = self._modulated(self.x)
        q, k, v = (F.linear(normed, self.square) for _ in range(3))
        q, k = (self._rotated(F.rms_norm(y, y.shape[-1:])) for y in (q, k))
        x = self._added(self.x, F.linear(v, self.square))
        hidden = F.gelu(F.linear(self._modulated(x), self.up), approximate="tanh")
        return self._added(x, F.linear(hidden, self.down))

    def _modulated(self, x: Tensor) -> Tensor:
        return (F.layer_norm(x.float(), x.shape[-1:]) * 1.1 + 0.1).to(x.dtype)

    def _added(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.float() + y.float() * 0.5).to(x.dtype)

    def _rotated(self, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (-1, self.head_dim))
        even, odd = heads.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = self.angles.cos()[:, None], self.angles.sin()[:, None]
        out = torch.empty_like(heads)
        out[..., 0::2] = even * cos - odd * sin
        out[..., 1::2] = even * sin + odd * cos
        return out


def rest_over_attention(
    case: GainCase,
    dense: Dense,
    *,
    width: int,
    weights: int,
    clock: Callable[[], float] | None = None,
) -> float:
    """Time of a layer's rest over that of its dense attention, from a stand-in timed in turns with it.

    ``width`` of all heads together and ``weights`` that every token of a layer is multiplied with;
    `clock` as in `Turns`.
    """
    share, tokens = aside(lambda: _timed(case, dense, width, weights, clock))
    batch = case.streams * case.head_dim / width
    return share * (batch * case.tokens / tokens) / case.scale


def _timed(
    case: GainCase, dense: Dense, width: int, weights: int, clock: Callable[[], float] | None
) -> tuple[float, int]:
    block = StandInBlock.of(case, width=width, weights=weights)
    tensors = trial_tensors(case, case.timed)
    with torch.no_grad():
        turns = turns_on(case.device, clock)
        attention, rest = least(turns.rounds([lambda: dense(*tensors), block.run]))
    return rest / attention, block.x.shape[1]
