"""Progress: which denoising step and guidance branch a forward belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsediff.search import Step

_MOST_BRANCHES = 4  # unnamed calls of one step; more reuse the first ones, so memory stays bounded


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a pipeline said through diffusers' ``cache_context``; None where it said nothing."""

    name: str | None = None
    step_index: int | None = None
    total: int | None = None


class Progress:
    """Follows one pipeline or model from the calls of its attention layers.

    A forward begins when its root hook fires, or, in a compiled model, when a layer is seen again: a
    fully compiled one has no eager hook. Its step is, in this order, the step index of the cache
    context, the step index of the scheduler if that is in use, a change of the timestep; never the
    number of calls, because caches skip calls and guidance doubles them. Its branch is the name of
    the cache context, else its place among the forwards of the step.
    """

    def __init__(self, scheduler: Callable[[], Any] = lambda: None) -> None:
        self.scheduler = scheduler
        self.context = Context()
        self.step = Step(index=0)
        self.branch = "0"
        self.run = 0
        self._forward_pending = True
        self.seen: set[int] = set()  # layers of the forward in progress
        self._timesteps: Any = None  # the schedule of the run in progress
        self._spent: Any = None  # the schedule of a run that is over
        self._ended = True
        self._key: object = None
        self._index = -1
        self._ordinal = 0
        self._value: float | None = None
        self._first_value = 1.0

    def forward_begins(self) -> None:
        """The root hook fired: the next layer call opens a forward."""
        self._forward_pending = True

    def run_ends(self) -> None:
        """The pipeline said that its run is over: the next forward opens a run."""
        self._ended, self._spent = True, self._timesteps

    def at_layer(self, layer: int, timestep: Tensor | None, *, compiled: bool = False) -> bool:
        """Note a call of `layer`; True when it opens a new run."""
        if not self._forward_pending and not (compiled and layer in self.seen):
            self.seen.add(layer)
            return False
        self._forward_pending = False
        self.seen = {layer}
        return self._open_forward(timestep)

    def _open_forward(self, timestep: Tensor | None) -> bool:
        index, key, total, restarted = self._where(timestep)
        fresh = self._ended or restarted
        if fresh:
            self.run += 1
            self._ended, self._key, self._index = False, None, -1
            self._first_value = self._value or 1.0
        if key != self._key:
            self._key, self._ordinal = key, 0
            self._index = self._index + 1 if index is None else index
        else:
            self._ordinal = (self._ordinal + 1) % _MOST_BRANCHES
        self.branch = self.context.name or str(self._ordinal)
        self.step = Step(index=self._index, total=total, progress=self._progress(total))
        return fresh

    def _where(self, timestep: Tensor | None) -> tuple[int | None, object, int | None, bool]:
        """(step index or None to count, key that changes with the step, total, run restarted)."""
        scheduler = self._scheduler_in_use()
        schedule = getattr(scheduler, "timesteps", None)
        restarted = schedule is not None and schedule is not self._timesteps
        self._timesteps = schedule
        begin = getattr(scheduler, "begin_index", None) or 0
        total = None if schedule is None else len(schedule) - begin
        if self.context.total is not None:
            total = self.context.total
        index, position = self.context.step_index, getattr(scheduler, "step_index", None)
        if index is None and position is not None:
            index = position - begin
        if index is not None and total is not None:
            return index, ("index", index), total, restarted or index < self._index
        # Somebody has to be asked: reading the timestep makes a GPU wait, once a forward. Wan 2.2 TI2V
        # gives every token its own timestep; conditioned ones are at 0, the rest agree.
        value = float(timestep.max()) if timestep is not None else 0.0
        back_at_the_start = value == self._first_value and self._value != value
        self._value = value
        key = ("timestep", value) if index is None else ("index", index)
        return index, key, total, restarted or (schedule is None and back_at_the_start)

    def _scheduler_in_use(self) -> Any:
        """The pipeline's scheduler, read anew (users replace it), or None if it does not count here.

        A model that two pipelines share may be called by the other one: this scheduler then stands
        where its own last run left it, or was never started.
        """
        scheduler = self.scheduler()
        schedule = getattr(scheduler, "timesteps", None)
        if schedule is None or not getattr(scheduler, "num_inference_steps", None):
            return None
        position = getattr(scheduler, "step_index", None)
        over = schedule is self._spent or (position is not None and position >= len(schedule))
        return None if over else scheduler

    def _progress(self, total: int | None) -> float:
        if total:
            return min(1.0, self._index / total)
        if self._value is None or self._first_value <= 0:
            return 0.0
        return min(1.0, max(0.0, 1.0 - self._value / self._first_value))
