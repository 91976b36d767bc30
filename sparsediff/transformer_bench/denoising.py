"""Denoising: a run of a model's steps, as its pipeline would drive it, that may leave steps out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.search import AdaSpa, Step
from sparsediff.transformer_bench.architectures import Architecture
from sparsediff.transformer_bench.model_inputs import Inputs, timestep
from sparsediff.transformer_bench.stopwatch import Stopwatch, wait

Kind = Literal["dense", "search", "refresh", "sparse"]


class Clock:
    """Stands in for the scheduler: says which step of how many it is, and computes nothing."""

    def __init__(self, steps: int) -> None:
        self.num_inference_steps = steps
        self.begin_index = 0
        self.step_index = 0
        self.start_run()

    def start_run(self) -> None:
        """The next step is one of a new run."""
        self.timesteps = torch.linspace(1.0, 0.0, self.num_inference_steps + 1)[:-1]
        self.step_index = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of a step, seconds of its self-attention (search included), calls of self-attention."""

    seconds: float
    attention: float
    calls: int


class Denoising:
    """Stands in for the pipeline: its components, its scheduler, and its steps.

    A step is the forwards of one denoising step; what the pipeline adds (guidance, the scheduler) is a
    few operations on the latents, and left out.
    """

    def __init__(
        self, model: nn.Module, architecture: Architecture, inputs: Inputs, *, steps: int
    ) -> None:
        self.model: Any = model
        self.architecture = architecture
        self.inputs = inputs
        self.scheduler = Clock(steps)

    @property
    def components(self) -> dict[str, Any]:
        """What the plug-in looks for denoisers in."""
        return {"transformer": self.model}

    def step(self, index: int) -> None:
        """Run the forwards of step `index`."""
        self.scheduler.step_index = index
        noise = float(self.scheduler.timesteps[index])
        where = timestep(self.architecture, noise, self.inputs["hidden_states"])
        for branch in self.architecture.branches:
            with torch.no_grad(), self.model.cache_context(branch):
                self.model(**self.inputs, timestep=where, return_dict=False)

    def timed_step(self, index: int, stopwatch: Stopwatch) -> StepTime:
        """Run a step; `stopwatch` is around its self-attention."""
        stopwatch.read()
        start = time.perf_counter()
        self.step(index)
        wait(stopwatch.device)
        seconds = time.perf_counter() - start
        attention, calls = stopwatch.read()
        return StepTime(seconds=seconds, attention=attention, calls=calls)


def kinds_of(method: AdaSpa, steps: int) -> list[Kind]:
    """What each of `steps` steps is under the method's schedule.

    ``search`` is the last dense step, or without dense ones the first; it also finds the first
    pattern. ``refresh`` finds it again and runs sparse.

    Raises SparseError when no step would reuse a pattern: there is no steady sparse step to time.
    """
    schedule = method.schedule
    found: list[Kind] = []
    seen = 0
    for index in range(steps):
        step = Step(index=index, total=steps, progress=index / steps)
        marks = schedule.marks(step)
        if schedule.is_dense(step, schedule.dense_layers):
            found.append("search" if schedule.is_last_dense(step) else "dense")
        elif "search" not in found:
            found.append("search")
        else:
            found.append("refresh" if marks > seen else "sparse")
        seen = marks
    if "sparse" not in found:
        raise SparseError(f"--steps {steps} leaves no step that only reuses a pattern; give 6.")
    return found
