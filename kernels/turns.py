"""Turns: calls timed one after another, round by round, so that a busy machine slows all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch
from torch import Tensor

Run = Callable[[], object]
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """How often calls on a device are timed.

    At most ``most`` rounds; after ``seconds`` no further round begins once there are ``enough``, after
    twice as many seconds none at all. ``clock`` says what a call takes, by default wall-clock time.
    """

    device: torch.device
    most: int
    enough: int
    seconds: float
    clock: Callable[[], float] | None = None

    def rounds(self, runs: Sequence[Run]) -> list[list[float]]:
        """Seconds of every run in every round: the first run leads, the rest go forwards and backwards.

        What is compiled or allocated at first use takes no part: an untimed round goes before.
        """
        for run in runs:
            run()
        found: list[list[float]] = []
        started = perf_counter()
        while len(found) < self.most:
            others = range(1, len(runs))
            order = [0, *(others if len(found) % 2 == 0 else reversed(others))]
            times = {number: self._seconds(runs[number]) for number in order}
            found.append([times[number] for number in range(len(runs))])
            spent = perf_counter() - started
            if spent > (self.seconds if len(found) >= self.enough else 2 * self.seconds):
                break
        return found

    def _seconds(self, run: Run) -> float:
        clock = self.clock or perf_counter
        self._wait()
        started = clock()
        run()
        self._wait()
        return clock() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def shares(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Median over the rounds of each run's time over that of the round's first run; the first is 1."""
    return [
        median(times[number] / times[0] for times in rounds) for number in range(len(rounds[0]))
    ]


def least(rounds: Sequence[Sequence[float]]) -> list[float]:
    """The shortest time of each run: what interrupts a call can only make it longer."""
    return [min(times) for times in zip(*rounds, strict=True)]


def timeable(*tensors: Tensor) -> bool:
    """Whether calls on such tensors may be timed now: real ones, and no CUDA graph being captured."""
    if torch._guards.detect_fake_mode(tensors) is not None:
        return False
    return tensors[0].device.type != "cuda" or not torch.cuda.is_current_stream_capturing()


def aside(function: Callable[[], Found]) -> Found:
    """The function's result, from a thread of its own.

    Grad mode, autocast, hooks of saved tensors and modes belong to the caller's thread: aside, a
    measurement neither sees nor changes them.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(function).result()
