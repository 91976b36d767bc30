"""SampledSteps: the parts of the run that share patterns, and the steps at which they are looked at."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from sparsediff.kernels.errors import SparseError
from sparsediff.search.schedule import Schedule, Step


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledSteps:
    """Step buckets: ``starts`` as in `PatternTable`, ``per_bucket`` steps of each looked at.

    The first step of a bucket is always one of them. Raises SparseError for starts that do not ascend
    within [0, 1), and for less than one step.
    """

    starts: tuple[float, ...] = (0.2, 0.45, 0.7)
    per_bucket: int = 2

    def __post_init__(self) -> None:
        starts = self.starts
        if (
            not starts
            or list(starts) != sorted(set(starts))
            or not 0 <= starts[0] <= starts[-1] < 1
        ):
            raise SparseError(f"starts={starts!r}: needs ascending shares of the run in [0, 1).")
        if not isinstance(self.per_bucket, int) or self.per_bucket < 1:
            raise SparseError(f"per_bucket={self.per_bucket!r}: needs at least one step.")

    def bounds(self, total: int) -> list[tuple[int, int]]:
        """First step and end of every bucket in a run of `total` steps; a bucket may be empty."""
        begins = [Schedule(warmup=share).dense_steps(total) for share in self.starts]
        return list(zip(begins, [*begins[1:], total], strict=True))

    def steps(self, total: int) -> list[int]:
        """How many steps of a run of `total` each bucket has."""
        return [max(0, end - begin) for begin, end in self.bounds(total)]

    def bucket(self, step: Step) -> int:
        """The bucket of a sparse step."""
        begins = [begin for begin, _ in self.bounds(_total(step))]
        return max(0, bisect_right(begins, step.index) - 1)

    def is_sampled(self, step: Step) -> bool:
        """Whether this step is looked at."""
        begin, end = self.bounds(_total(step))[self.bucket(step)]
        count = min(self.per_bucket, end - begin)
        return step.index in {begin + place * (end - begin) // count for place in range(count)}


def _total(step: Step) -> int:
    if step.total is None:
        raise SparseError(
            "A search needs a pipeline that says how many steps it runs; a bare model does not."
        )
    return step.total
