"""The gate's predictions against what runs then take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal

import torch

from sparsediff.bench.case import spread
from sparsediff.gain.case import GainCase
from sparsediff.gain.outlook import torch_attention
from sparsediff.gain.prediction import BREAK_EVEN, predict
from sparsediff.gain.trial import GainTrial, random_call
from sparsediff.kernels.turns import Run, aside, least
from sparsediff.search import AttentionCall, Memory, Method, Step

Clock = Callable[[], float]

ALLOWED = 0.2
# Runs of a few short calls are repeated for so many seconds, at most so many times as others.
SHORT_SECONDS, SHORT_TIMES = 10.0, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedGain:
    """Sparse time over dense time, of a run's attention ("attention") or of its whole loop ("run").

    ``ratio`` what was measured, from the shortest times of ``runs``, which hold the ratio of each
    repetition. ``shape`` in words.
    """

    kind: Literal["attention", "run"]
    shape: str
    tokens: int
    density: float
    steps: int
    predicted: float
    ratio: float
    runs: tuple[float, ...]

    @property
    def iqr(self) -> float:
        """Range of the middle half of the repetitions' ratios; 0 for one."""
        return spread(self.runs)

    @property
    def error(self) -> float:
        """By how much the prediction is too high, as a share of what was measured."""
        return self.predicted / self.ratio - 1

    @property
    def met(self) -> bool:
        """Whether the prediction is as near as it is meant to be."""
        return abs(self.error) <= ALLOWED

    @property
    def right(self) -> bool:
        """Whether the decision for sparse or dense would have been the better one."""
        return (self.predicted < BREAK_EVEN) == (self.ratio < BREAK_EVEN)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        derived = {name: getattr(self, name) for name in ("iqr", "error", "met", "right")}
        return asdict(self) | derived


def check_attention(
    cases: Sequence[GainCase],
    methods: Sequence[Method],
    *,
    steps: int,
    repeat: int,
    clock: Clock = perf_counter,
) -> Iterator[CheckedGain]:
    """Attention of whole runs of one layer in full size, each step dense, then as the method says.

    Times are measured anew for every case, as a first run on this machine would, and not kept.
    """
    for case in cases:
        call = random_call(case, case.whole, torch_attention)
        times = aside(partial(GainTrial.of(case, torch_attention).times, clock))
        for method in methods:
            density = method.computed_density(call.grid)
            found = predict(case, times, method, density=density, steps=steps)
            runs = _repeated(call, method, steps, repeat, clock)
            yield CheckedGain(
                kind="attention",
                shape=case.words(),
                tokens=case.tokens,
                density=density,
                steps=steps,
                predicted=found.ratio,
                ratio=least_ratio(runs),
                runs=tuple(least_ratio([run]) for run in runs),
            )


def _repeated(
    call: AttentionCall, method: Method, steps: int, repeat: int, clock: Clock
) -> list[list[tuple[float, float]]]:
    """`step_times` of at least `repeat` runs."""
    started = perf_counter()
    runs = [step_times(call, method, steps, clock) for _ in range(repeat)]
    while len(runs) < SHORT_TIMES * repeat and perf_counter() - started < SHORT_SECONDS:
        runs.append(step_times(call, method, steps, clock))
    return runs


def step_times(
    call: AttentionCall, method: Method, steps: int, clock: Clock = perf_counter
) -> list[tuple[float, float]]:
    """Seconds of each step of a run, dense and then with `method`."""
    memory, found = Memory(), []
    with torch.no_grad():
        for index in range(steps):
            now = replace(call, step=Step(index=index, total=steps, progress=index / steps))
            runs: list[Run] = [now.user_dense, partial(method.attend, now, memory)]
            spent = []
            for run in runs:
                _wait(call)
                started = clock()
                run()
                _wait(call)
                spent.append(clock() - started)
            found.append((spent[0], spent[1]))
    return found


def least_ratio(runs: Sequence[Sequence[tuple[float, float]]]) -> float:
    """Sparse over dense seconds of a run, each step's shortest among the runs.

    What interrupts a call makes it longer, and short ones by many times.
    """
    by_step = [least(times) for times in zip(*runs, strict=True)]
    return sum(sparse for _, sparse in by_step) / sum(dense for dense, _ in by_step)


def _wait(call: AttentionCall) -> None:
    if call.q.is_cuda:
        torch.cuda.synchronize(call.q.device)
