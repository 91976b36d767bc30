"""Stopwatch: time of parts of a step, on the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the time of the spans it is put around, without making a GPU wait.

    On CUDA a span is two events in the stream, read when somebody asks; elsewhere it is wall-clock
    time. A span inside a span is part of the outer one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0
        self._spans = 0
        self._open = False

    @contextmanager
    def span(self) -> Iterator[None]:
        """Count the time of the block."""
        if self._open:
            yield
            return
        self._open = True
        try:
            if self.device.type == "cuda":
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                yield
                last.record()
                self._events.append((first, last))
            else:
                start = time.perf_counter()
                yield
                self._seconds += time.perf_counter() - start
            self._spans += 1
        finally:
            self._open = False

    def read(self) -> tuple[float, int]:
        """Seconds and number of the spans since the last reading; waits for the device."""
        wait(self.device)
        seconds = self._seconds + sum(a.elapsed_time(b) for a, b in self._events) / 1e3
        spans, self._seconds, self._spans = self._spans, 0.0, 0
        self._events.clear()
        return seconds, spans


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
