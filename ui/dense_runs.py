"""DenseRuns: dense results that later comparisons of the same settings share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from sparsediff.timed_run import TimedRun


class DenseRuns:
    """The dense runs used last, as many as fit into `most_bytes` of memory, at least one."""

    def __init__(self, *, most_bytes: int = 2**30) -> None:
        self.most_bytes = most_bytes
        self._runs: OrderedDict[Hashable, TimedRun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, key: Hashable) -> TimedRun | None:
        """The run of these settings, if it is still there."""
        if key in self._runs:
            self._runs.move_to_end(key)
        return self._runs.get(key)

    def put(self, key: Hashable, run: TimedRun) -> None:
        """Keep a run; those that were not used for longest make room."""
        self._runs[key] = run
        self._runs.move_to_end(key)
        while len(self._runs) > 1 and sum(map(_bytes, self._runs.values())) > self.most_bytes:
            self._runs.popitem(last=False)


def _bytes(run: TimedRun) -> int:
    return 0 if run.frames is None else run.frames.numel() * run.frames.element_size()
