"""Stopwatches: seconds of several runs in turns, on a GPU by events behind a flushed cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Run = Callable[[], object]
FLUSH_BYTES = 256 << 20  # several times the L2 of every GPU there is
LEAD = 8  # flushes before the first run, so that Python is ahead of the GPU when it starts


class Stopwatch(Protocol):
    """Times every run once, in the order given."""

    def seconds(self, runs: Sequence[Run]) -> list[float]:
        """Seconds of each run; returns when all are done."""
        ...


class EventStopwatch:
    """CUDA events around each run, and all of the L2 overwritten before it.

    The whole round is queued before anything is read back, so launch times of Python are not measured
    unless a run launches more slowly than the GPU works.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)

    def seconds(self, runs: Sequence[Run]) -> list[float]:
        """Seconds of each run."""
        with torch.cuda.device(self._device):
            marks = [(_event(), _event()) for _ in runs]
            for _ in range(LEAD):
                self._flush.zero_()
            for run, (start, end) in zip(runs, marks, strict=True):
                self._flush.zero_()
                start.record()
                run()
                end.record()
            torch.cuda.synchronize(self._device)
            return [start.elapsed_time(end) / 1e3 for start, end in marks]


class WallStopwatch:
    """The clock of the process, for devices that work while Python waits."""

    def seconds(self, runs: Sequence[Run]) -> list[float]:
        """Seconds of each run."""
        found = []
        for run in runs:
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return found


def stopwatch_for(device: str) -> Stopwatch:
    """Events on CUDA, else the clock."""
    place = torch.device(device)
    return EventStopwatch(place) if place.type == "cuda" else WallStopwatch()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def rounds(
    stopwatch: Stopwatch, runs: Sequence[Run], *, limit: int, least: int, seconds: float
) -> list[list[float]]:
    """Times of every run in each round, after one that is thrown away.

    At most `limit` rounds; after `least` of them as soon as `seconds` are used up, the first included.
    """
    used = sum(stopwatch.seconds(runs))
    found: list[list[float]] = []
    while len(found) < limit and (len(found) < least or used < seconds):
        found.append(stopwatch.seconds(runs))
        used += sum(found[-1])
    return [list(times) for times in zip(*found, strict=True)]
