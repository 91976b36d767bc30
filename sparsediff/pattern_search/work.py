"""Work: passes over the prompts, each prompt of a pass a unit that is saved when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from sparsediff.pattern_search.processes import Processes
from sparsediff.pattern_search.units import Units
from sparsediff.pattern_search.watch import Progress, Watch


class Work:
    """Does the units that are not done yet, divided among the processes.

    ``plan`` number of units of every stage that is known to come, in order.
    """

    def __init__(
        self, units: Units, processes: Processes, watch: Watch, plan: Mapping[str, int]
    ) -> None:
        self.units = units
        self.processes = processes
        self.watch = watch
        self.plan = dict(plan)

    def run(
        self,
        stage: str,
        prompts: Sequence[int],
        compute: Callable[[int], Mapping[str, Tensor]],
    ) -> list[int]:
        """Do one stage; the prompts whose unit is done when every process has finished its part.

        They are all, unless the time was up. Raises SearchStopped when the caller wants to end.
        """
        self.plan.setdefault(stage, len(prompts))
        done = self.units.done(stage)
        self.processes.wait()  # before anybody adds to what the others are looking at
        for prompt in self.processes.share([p for p in prompts if p not in done]):
            self.watch.check()
            if self.watch.time_is_up:
                break
            kind = stage.partition("-")[0]  # of a probe, whose table follows
            self._tell(f"{kind}, prompt {prompt + 1} of {len(prompts)}")
            begun = self.watch.clock()
            statistics = compute(prompt)
            self.units.save(stage, prompt, statistics, round(self.watch.clock() - begun, 3))
        self.processes.wait()
        found = self.units.done(stage)
        return [prompt for prompt in prompts if prompt in found]

    def _tell(self, text: str) -> None:
        if not self.processes.is_main:
            return
        seconds = self.units.seconds()
        self.watch.progress(
            Progress(
                text=text,
                done=sum(map(len, seconds.values())),
                total=sum(self.plan.values()),
                seconds_left=self._left(seconds),
            )
        )

    def _left(self, seconds: Mapping[str, Sequence[float]]) -> float | None:
        """Time of the units that are left, where an unknown stage takes as long as the others."""
        known = [value for values in seconds.values() for value in values]
        if not known:
            return None
        left = 0.0
        for stage, count in self.plan.items():
            values = seconds.get(stage, [])
            mean = sum(values) / len(values) if values else sum(known) / len(known)
            left += mean * max(0, count - len(values))
        return left / self.processes.count
