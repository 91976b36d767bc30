"""The configuration that makes FlowMatchEuler's own grid a trailing one."""

from __future__ import annotations

from math import frexp, isfinite, sqrt
from typing import Any

from sparsediff.kernels.errors import SparseError


def trailing_shift(shift: float, steps: int, count: int = 1000) -> tuple[float, float | None]:
    """``shift`` and ``shift_terminal`` with which set_timesteps(K) makes s u / (1 + (s - 1) u).

    u = 1, (K-1)/K, ..., 1/K, s is `shift`, K `steps`; `count` is num_train_timesteps. The stock
    scheduler spaces u' evenly from 1 to the smallest sigma that it knows, m = s'/(count - 1 + s'),
    takes s' u' / (1 + (s' - 1) u') and stretches it, in 1 - sigma, to end at ``shift_terminal``. With
    a = (s - 1)(K - 1) / (K s) that is the grid asked for where 1 - 1/s' = a (1 + s'/(count - 1)): a
    quadratic equation in s'. It has no solution where more steps and shift are asked for than `count`
    training steps can space (K = 50 at s > 22); then the nearest s' is taken.
    """
    if steps == 1:
        return 1.0, None  # one step has no end to stretch to
    last = count - 1
    a = (shift - 1) * (steps - 1) / (steps * shift)
    root = (last * (1 - a)) ** 2 - 4 * a * last
    made = sqrt(last / a) if root < 0 else 2 * last / (last * (1 - a) + sqrt(root))
    # diffusers computes its largest sigma, s' / (1 + (s' - 1)), in float32: exactly 1 if s' and s' - 1
    # have room in its 24 bits.
    scale = 2.0 ** (24 - frexp(max(made, 1.0))[1])
    return round(made * scale) / scale, shift / (steps + shift - 1)


def positive(shift: Any) -> float:
    """A shift as a number; raises SparseError unless it is positive and finite."""
    usable = isinstance(shift, int | float) and not isinstance(shift, bool)
    if not usable or not isfinite(shift) or shift <= 0:
        raise SparseError(f"shift={shift!r}: needs a positive number, such as 3.0; 1.0 is none.")
    return float(shift)
