"""A competition: every contestant of a shape checked, then all timed in turns."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from sparsediff.bench.contestant import Contestant
from sparsediff.bench.gpu_row import GpuRow
from sparsediff.bench.plan import Shape
from sparsediff.bench.stopwatch import Stopwatch, rounds

LEAST_ROUNDS = 3


def compete(
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
        return GpuRow.of_contestant(one, shape, error=math.inf, failure=words_of(error))


def words_of(error: Exception) -> str:
    """Kind and message of an error in one line."""
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
