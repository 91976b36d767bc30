"""Buckets: the parts of a run, by the timestep that the model is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

from torch import Tensor

from sparsediff.kernels.errors import SparseError

MOST = 64  # buckets; each is a model of its own


@dataclass(frozen=True, kw_only=True, slots=True)
class Buckets:
    """Bucket 0 is the noisiest; the next begins below each of the ``boundaries``, which fall.

    Boundaries are timesteps as the model is told them: 0..1000 for most, 0..1 for Flux. A timestep
    that is a boundary belongs to the noisier side. Raises SparseError unless they fall.
    """

    boundaries: tuple[float, ...]

    def __post_init__(self) -> None:
        values = tuple(self.boundaries)
        numbers = all(isinstance(v, int | float) and isfinite(v) for v in values)
        if not numbers or not all(a > b for a, b in pairwise(values)) or len(values) >= MOST:
            raise SparseError(
                f"boundaries={values}: needs timesteps that fall, fewer than {MOST}, such as (500.0,)."
            )
        object.__setattr__(self, "boundaries", tuple(float(v) for v in values))

    @property
    def count(self) -> int:
        """How many buckets there are."""
        return len(self.boundaries) + 1

    @classmethod
    def even(cls, count: int, *, first: float = 1000.0) -> Buckets:
        """Buckets of equal width between the timestep of pure noise and 0."""
        _check_count(count, "timesteps")
        return cls(boundaries=tuple(first * (count - n) / count for n in range(1, count)))

    @classmethod
    def of_run(cls, timesteps: Sequence[float], count: int) -> Buckets:
        """Buckets of as many steps each, of a run whose model is told these timesteps, falling."""
        times = [float(t) for t in timesteps]
        _check_count(count, "timesteps")
        if count > len(times):
            raise SparseError(f"{len(times)} steps cannot be {count} buckets; take fewer.")
        starts = [round(n * len(times) / count) for n in range(1, count)]
        return cls(boundaries=tuple((times[n - 1] + times[n]) / 2 for n in starts))

    def place(self, timestep: Tensor) -> int:
        """The bucket of a timestep: a scalar, ``[b]``, or ``[b, tokens]``, whose largest counts.

        Raises SparseError for samples of different buckets.
        """
        each = timestep.detach().float()
        each = each.flatten(1).amax(dim=1) if each.ndim > 1 else each.reshape(-1)
        places = {sum(time < bound for bound in self.boundaries) for time in each.tolist()}
        if len(places) != 1:
            raise SparseError(
                f"A batch has timesteps {each.tolist()}, which are of the buckets {sorted(places)}: "
                f"each has a model of its own. Call the model with one bucket at a time."
            )
        return int(places.pop())


def _check_count(count: object, of: str) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST:
        raise SparseError(f"count={count!r}: needs a whole number of buckets of {of}, 1 to {MOST}.")
