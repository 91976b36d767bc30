"""Progress: which denoising step and guidance branch a forward belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.search import Step
from sparsediff.timetable import Timetable

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
        self._timesteps: Tensor | None = None  # the timetable of the run in progress
        self._spent: Tensor | None = None  # that of a run that is over
        self._begin = 0  # the place in the timetable where the run began
        self._ended = True
        self._key: object = None
        self._index = -1
        self._ordinal = 0
        self._noise = (0.0, 0.0)
        self._first_noise = 1.0

    def forward_begins(self) -> None:
        """The root hook fired: the next layer call opens a forward."""
        self._forward_pending = True

    def run_ends(self) -> None:
        """The pipeline said that its run is over: the next forward opens a run."""
        self._ended = True
        if self._timesteps is not None:
            self._spent = self._timesteps

    def at_layer(self, layer: int, timestep: Tensor | None, *, compiled: bool = False) -> bool:
        """Note a call of `layer`; True when it opens a new run."""
        if not self._forward_pending and not (compiled and layer in self.seen):
            self.seen.add(layer)
            return False
        self._forward_pending = False
        self.seen = {layer}
        return self._open_forward(timestep)

    def _open_forward(self, timestep: Tensor | None) -> bool:
        table = Timetable.of(self.scheduler(), spent=self._spent)
        place, total = self._place(table), self.context.total
        # Somebody has to be asked: reading the timestep makes a GPU wait, once a forward.
        noise = None if place is not None and (table or total) else _noise(timestep)
        fresh = self._ended or self._restarted(table, place, noise)
        if fresh:
            self._open_run(table, noise)
            place = self._place(table)
        if total is None and table is not None:
            total = len(table.timesteps) - self._begin
        self._follow(("noise", noise) if place is None else ("step", place), place)
        self.branch = self.context.name or str(self._ordinal)
        self.step = Step(index=self._index, total=total, progress=self._progress(total))
        return fresh

    def _place(self, table: Timetable | None) -> int | None:
        """The step as somebody counts it; None where only the noise level tells steps apart."""
        if self.context.step_index is not None:
            return self.context.step_index
        if table is None or table.position is None:
            return None
        return table.position - self._begin

    def _restarted(
        self, table: Timetable | None, place: int | None, noise: tuple[float, float] | None
    ) -> bool:
        """Whether a forward opens a run although nobody said that the last one is over."""
        timesteps = None if table is None else table.timesteps
        exchanged = timesteps is not None and timesteps is not self._timesteps
        self._timesteps = timesteps
        if noise is None:
            return exchanged or (place is not None and place < self._index)
        before, self._noise = self._noise, noise
        # A long video is made in pieces, each of which goes through the same timesteps.
        return exchanged or (noise[0] == self._first_noise and noise[0] != before[0])

    def _open_run(self, table: Timetable | None, noise: tuple[float, float] | None) -> None:
        self.run += 1
        self._ended, self._key, self._index = False, None, -1
        self._begin = 0
        if table is not None:
            self._timesteps = table.timesteps
            self._begin = table.first_step(None if noise is None else noise[0])
        if noise is not None:
            self._noise, self._first_noise = noise, noise[0]

    def _follow(self, key: object, place: int | None) -> None:
        """Note what the forward is known by; the same as before is another branch of the step."""
        if key == self._key:
            self._ordinal = (self._ordinal + 1) % _MOST_BRANCHES
            return
        self._key, self._ordinal = key, 0
        self._index = self._index + 1 if place is None else place

    def _progress(self, total: int | None) -> float:
        if total:
            return min(1.0, self._index / total)
        if self._first_noise <= 0:  # Lumina is told how much noise is gone: from 0 to 1
            return self._noise[0] if 0 < self._noise[0] <= 1 else 0.0
        return min(1.0, max(0.0, 1.0 - self._noise[0] / self._first_noise))


def _noise(timestep: Tensor | None) -> tuple[float, float]:
    """The noise level of a forward: its highest, and the mean where tokens or frames differ in it.

    Wan 2.2 TI2V gives conditioned tokens the timestep 0; SkyReels starts its frames one after another.
    """
    if timestep is None:
        return 0.0, 0.0
    levels = timestep.double()
    highest, mean = torch.stack([levels.max(), levels.mean()]).tolist()
    return highest, mean
