"""The GPU table: every contestant of a shape checked, then timed in turns, within a limit of time."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

import torch

from sparsediff.bench.backward_pass import dense_backward, sparse_backward
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
from sparsediff.bench.stopwatch import Stopwatch, rounds, stopwatch_for
from sparsediff.kernels import SparseError

LEAST_ROUNDS = 3
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
    if torch.device(plan.device).type == "cuda" and not torch.cuda.is_available():
        raise SparseError("torch finds no CUDA device here; leave out --device to measure the CPU.")
    stopwatch = stopwatch or stopwatch_for(plan.device)
    clock = Clock(now=now, begin=now(), minutes=plan.minutes)
    parts = [("forward", shape) for shape in plan.shapes]
    if plan.backward:
        parts += [("backward", shape) for shape in plan.shapes]
    rows: list[GpuRow] = []
    notes: dict[str, str] = {}
    failed: dict[str, str] = {}
    left_out = []
    longest = 0.0
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
            failed[name] = _words(error)
        longest = max(longest, now() - began)
        tell(f"{name}: {now() - began:.0f} s, {clock.left:.0f} s left")
    return GpuTable(
        rows=tuple(rows),
        notes=notes,
        left_out=tuple(left_out),
        failed=failed,
        minutes=(now() - clock.begin) / 60,
    )


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
        rows = _compete(shape, groups, stopwatch, plan.repeat, seconds)
    else:
        notes.update(absent_kernels(plan, problem))
        with torch.no_grad():
            groups = _groups(
                dense_contestants(plan, shape, problem),
                sparse_contestants(plan, shape, problem),
                search_contestants(plan, shape, problem),
            )
            rows = _compete(shape, groups, stopwatch, plan.repeat, seconds)
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


def _compete(
    shape: Shape,
    groups: Iterable[list[Contestant]],
    stopwatch: Stopwatch,
    repeat: int,
    seconds: float,
) -> list[GpuRow]:
    """Check all, take the faster of those with a choice, time all in turns."""
    entered: list[tuple[Contestant, float]] = []
    failed: list[GpuRow] = []
    for group in groups:
        checked = [_checked(one, shape) for one in group]
        failed += [found for found in checked if isinstance(found, GpuRow)]
        usable = [
            (one, found)
            for one, found in zip(group, checked, strict=True)
            if isinstance(found, float)
        ]
        entered += [_faster(usable, stopwatch)] if usable else []
    times = rounds(
        stopwatch,
        [one.run for one, _ in entered],
        limit=repeat,
        least=LEAST_ROUNDS,
        seconds=seconds,
    )
    return _rows(shape, entered, times) + failed


def _checked(one: Contestant, shape: Shape) -> float | GpuRow:
    """Its error, or the row of its failure: one kernel must not cost the table of the others."""
    try:
        return one.error()
    except Exception as error:  # a compiler's, a driver's or ours: it is printed and fails the run
        return GpuRow.of_contestant(one, shape, error=math.inf, failure=_words(error))


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _faster(
    candidates: list[tuple[Contestant, float]], stopwatch: Stopwatch
) -> tuple[Contestant, float]:
    if len(candidates) == 1:
        return candidates[0]
    times = rounds(stopwatch, [one.run for one, _ in candidates], limit=2, least=2, seconds=0)
    fastest = min(range(len(candidates)), key=lambda i: sum(times[i]))
    return candidates[fastest]


def _rows(
    shape: Shape, entered: list[tuple[Contestant, float]], times: list[list[float]]
) -> list[GpuRow]:
    fastest = [
        (median(seconds), one.kernel, seconds)
        for (one, error), seconds in zip(entered, times, strict=True)
        if one.baseline and error <= 1
    ]
    _, name, base = min(fastest, default=(0.0, "", []))
    return [
        GpuRow.of_contestant(
            one,
            shape,
            error=error,
            seconds=tuple(seconds),
            speedups=tuple(b / own for b, own in zip(base, seconds, strict=False)),
            baseline=name,
        )
        for (one, error), seconds in zip(entered, times, strict=True)
    ]
