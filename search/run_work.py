"""RunWork: what a method computes for one layer and one guidance branch in a whole run."""

from __future__ import annotations

from collections.abc import Callable
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
    probes: int = 0
    probed: float = 0.0
    pooled: float = 0.0


def scheduled(schedule: Schedule, steps: int) -> RunWork:
    """Dense steps and sparse steps by the schedule, without any search."""
    dense = min(steps, schedule.dense_steps(steps))
    return RunWork(dense=dense, sparse=steps - dense)


def searched(
    schedule: Schedule, steps: int, bucket: Callable[[Step], int] = lambda step: 0
) -> RunWork:
    """The same, searched in the last dense step, or before the first sparse one, and at every mark.

    `bucket` numbers the parts of the run; each is searched for anew.
    """
    plain = scheduled(schedule, steps)
    if not plain.sparse:
        return plain
    first = steps - plain.sparse
    known = (
        bucket(Step(index=first, total=steps)),
        schedule.marks(Step(index=max(0, first - 1), total=steps)),
    )
    searches = 1
    for index in range(first, steps):
        step = Step(index=index, total=steps)
        state = bucket(step), schedule.marks(step)
        searches += state != known
        known = state
    return RunWork(
        dense=max(0, first - 1), sparse=plain.sparse, dense_with_lse=1, searches=searches
    )
