"""PatternTable: the pattern of every head of every layer in every part of the run."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

from sparsediff.kernels.block_mask import block_count
from sparsediff.kernels.errors import SparseError
from sparsediff.search.patterns.pattern import MODES, Pattern, Stripe
from sparsediff.search.schedule import Schedule, Step
from sparsediff.search.token_grid import TokenGrid
from sparsediff.search.token_order import RASTER


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedHead:
    """One head's pattern, and ``error``: its mean squared output error over the output's variance.

    The error is the mean over the calls of the search; None when nobody measured it.
    """

    pattern: Pattern
    error: float | None = None

    def __post_init__(self) -> None:
        error = self.error
        if error is not None and not (isfinite(error) and error >= 0):
            raise SparseError(f"PlannedHead.error={error!r}: needs a number >= 0, or None.")


Heads = tuple[PlannedHead, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PatternTable:
    """Patterns by step bucket, layer and head, for one grid.

    ``starts``: the share of the run at which each bucket begins, ascending, in [0, 1); it lasts until
    the next one. Steps before the first are dense (the warm-up), and so are ``dense_layers``.
    ``buckets[i][layer][head]``; layers are numbered as the session numbers them, and all buckets have
    the same layers and heads. ``density`` share of all block pairs that the sparse calls compute.
    ``compensate``: the patterns were searched with the blocks left out taking part as mean keys and
    values, and run so: errors that were measured without it say nothing of it.

    Raises SparseError when sizes disagree, starts do not ascend, or a stripe's column lies outside.
    """

    grid: TokenGrid
    block_size: int
    starts: tuple[float, ...]
    buckets: tuple[tuple[Heads, ...], ...]
    density: float
    dense_layers: int = 0
    compensate: bool = False

    def __post_init__(self) -> None:
        starts = self.starts
        if not starts or not all(0 <= share < 1 for share in starts):
            raise SparseError(f"starts={starts!r}: needs at least one share of the run in [0, 1).")
        if any(b <= a for a, b in pairwise(starts)):
            raise SparseError(f"starts={starts!r}: needs ascending shares of the run.")
        if len(self.buckets) != len(starts):
            raise SparseError(
                f"{len(starts)} starts need as many buckets; found {len(self.buckets)}."
            )
        shape = self.heads
        if not shape or any(not heads for heads in shape):
            raise SparseError("A pattern table needs at least one layer, each with a head.")
        for number, bucket in enumerate(self.buckets):
            if tuple(len(heads) for heads in bucket) != shape:
                raise SparseError(
                    f"buckets[{number}] has other layers or heads than buckets[0]; needs the same."
                )
        if not 0 <= self.density <= 1:
            raise SparseError(f"density={self.density!r}: needs a share in [0, 1].")
        if self.grid.order != RASTER:
            raise SparseError(f"{self.grid}: the patterns of a plan need a grid in raster order.")
        self._check_columns()

    def _check_columns(self) -> None:
        blocks = block_count(self.grid.tokens, self.block_size)
        for i, bucket in enumerate(self.buckets):
            for j, heads in enumerate(bucket):
                for k, head in enumerate(heads):
                    if isinstance(head.pattern, Stripe) and head.pattern.columns[-1] >= blocks:
                        raise SparseError(
                            f"buckets[{i}][{j}][{k}]: column {head.pattern.columns[-1]} is outside; "
                            f"{self.grid} in blocks of {self.block_size} has {blocks} columns."
                        )

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of heads of every layer."""
        return tuple(len(heads) for heads in self.buckets[0])

    @property
    def warmup(self) -> float:
        """Share of the steps, at the start, that run dense."""
        return self.starts[0]

    def bucket(self, step: Step) -> int:
        """Number of the bucket that a sparse step belongs to."""
        if step.total is None:
            return max(0, bisect_right(self.starts, step.progress) - 1)
        schedules = [Schedule(warmup=share) for share in self.starts]
        begins = [schedule.dense_steps(step.total) for schedule in schedules]
        return max(0, bisect_right(begins, step.index) - 1)

    @property
    def entries(self) -> int:
        """Number of patterns: one per bucket, layer and head."""
        return len(self.starts) * sum(self.heads)

    @property
    def modes(self) -> dict[str, int]:
        """How often each mode is planned, the commonest first."""
        found = Counter(
            MODES[type(head.pattern)]
            for bucket in self.buckets
            for heads in bucket
            for head in heads
        )
        return dict(found.most_common())

    @property
    def stripes(self) -> int:
        """How many patterns name blocks of this grid and mean nothing on another."""
        return self.modes.get(Stripe.mode, 0)
