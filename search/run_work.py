"""RunWork: what a method computes for one layer and one guidance branch in a whole run."""

from __future__ import annotations

from dataclasses import dataclass

from sparsediff.search.schedule import Schedule, Step


@dataclass(frozen=True, kw_only=True, slots=True)
class RunWork:
    """How often a run calls each kind of kernel.

    ``dense`` by the user's attention; ``dense_with_lse`` dense calls that also give the log-sum-exp,
    and the log-sum-exp alone, which costs as much; ``searches`` measurements of the block mass and
    choices from it (of a share of the heads: that share); ``sparse`` calls over a mask.
    """

    dense: int
    sparse: int
    dense_with_lse: int = 0
    searches: float = 0.0


def scheduled(schedule: Schedule, steps: int) -> RunWork:
    """Dense steps and sparse steps by the schedule, without any search."""
    dense = min(steps, schedule.dense_steps(steps))
    return RunWork(dense=dense, sparse=steps - dense)


def searched(schedule: Schedule, steps: int) -> RunWork:
    """The same, searched in the last dense step, or before the first sparse one, and at every mark."""
    plain = scheduled(schedule, steps)
    refreshes = count_marks(schedule, steps)
    if not plain.sparse:
        return plain
    return RunWork(
        dense=max(0, plain.dense - 1),
        sparse=plain.sparse,
        dense_with_lse=1,
        searches=1 + refreshes,
    )


def count_marks(schedule: Schedule, steps: int) -> int:
    """How many sparse steps reach a refresh mark that the search before them had not."""
    first = schedule.dense_steps(steps)
    seen = schedule.marks(Step(index=max(0, first - 1), total=steps))
    found = 0
    for index in range(first, steps):
        marks = schedule.marks(Step(index=index, total=steps))
        found += marks > seen
        seen = max(seen, marks)
    return found
