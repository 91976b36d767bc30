"""The GPU table: every contestant of a shape checked, then timed in turns, within a limit of time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from sparsediff.bench.backward_pass import dense_backward, sparse_backward
from sparsediff.bench.competition import compete, words_of
from sparsediff.bench.contestant import Contestant
from sparsediff.bench.forward_pass import (
    absent_kernels,
    dense_contestants,
    search_contestants,
    sparse_contestants,
)
from sparsediff.bench.gpu_row import GpuRow, GpuTable
from sparsediff.bench.plan import Plan, Shape
from sparsediff.bench.problem import make_problem
from sparsediff.bench.stopwatch import Stopwatch, stopwatch_for
from sparsediff.kernels import SparseError

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Limit of the run: ``now`` counts seconds from any start, ``begin`` is when the run started."""

    now: Callable[[], float]
    begin: float
    minutes: float

    @property
    def left(self) -> float:
        """Seconds until the limit; negative beyond it."""
        return self.begin + 60 * self.minutes - self.now()


def measure_gpu(
    plan: Plan,
    *,
    tell: Tell = lambda line: None,
    stopwatch: Stopwatch | None = None,
    now: Callable[[], float] = time.monotonic,
) -> GpuTable:
    """Measure a plan, forward passes first; a part that would end too late is left out and named.

    Raises SparseError where there is no such device and BackendError where a backend of the plan cannot
    run on it. A kernel that fails becomes a row with the failure; the others go on.
    """
    _check_device(plan.device)
    stopwatch = stopwatch or stopwatch_for(plan.device)
    clock = Clock(now=now, begin=now(), minutes=plan.minutes)
    rows: list[GpuRow] = []
    notes: dict[str, str] = {}
    failed: dict[str, str] = {}
    left_out, longest = [], 0.0
    parts = _parts(plan)
    for number, (of, shape) in enumerate(parts):
        name = f"{of}, {shape.tokens} tokens x {shape.heads} heads x {shape.dim}"
        if clock.left < longest:
            left_out.append(name)
            continue
        began = now()
        seconds = min(plan.case_seconds, clock.left / (len(parts) - number))
        try:
            rows += _measure_part(plan, of, shape, stopwatch, seconds=seconds, notes=notes)
        except RuntimeError as error:  # out of memory, or a device that answers no more
            failed[name] = words_of(error)
        longest = max(longest, now() - began)
        tell(f"{name}: {now() - began:.0f} s, {clock.left:.0f} s left")
    return GpuTable(
        rows=tuple(rows),
        notes=notes,
        left_out=tuple(left_out),
        failed=failed,
        minutes=(now() - clock.begin) / 60,
    )


def _check_device(device: str) -> None:
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise SparseError("torch finds no CUDA device here; leave out --device to measure the CPU.")


def _parts(plan: Plan) -> list[tuple[str, Shape]]:
    passes = ("forward", "backward") if plan.backward else ("forward",)
    return [(of, shape) for of in passes for shape in plan.shapes]


def _measure_part(
    plan: Plan,
    of: str,
    shape: Shape,
    stopwatch: Stopwatch,
    *,
    seconds: float,
    notes: dict[str, str],
) -> list[GpuRow]:
    problem = make_problem(shape, plan.dtype, plan.device)
    if of == "backward":
        groups = _groups(
            dense_backward(plan, shape, problem), sparse_backward(plan, shape, problem)
        )
        rows = compete(shape, groups, stopwatch, plan.repeat, seconds)
    else:
        notes.update(absent_kernels(plan, problem))
        with torch.no_grad():
            groups = _groups(
                dense_contestants(plan, shape, problem),
                sparse_contestants(plan, shape, problem),
                search_contestants(plan, shape, problem),
            )
            rows = compete(shape, groups, stopwatch, plan.repeat, seconds)
    del groups, problem
    gc.collect()  # contestants hold one another's tensors in cycles
    if torch.device(plan.device).type == "cuda":
        torch.cuda.empty_cache()
    return rows


def _groups(
    dense: Iterable[list[Contestant]], *others: Iterable[Contestant]
) -> Iterator[list[Contestant]]:
    yield from dense
    for contestants in others:
        for one in contestants:
            yield [one]
