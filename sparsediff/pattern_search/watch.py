"""Watch: how a caller follows a search, and ends it early."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sparsediff.kernels.errors import SparseError
from sparsediff.step_watch import Watcher


class SearchStopped(Exception):
    """The caller's `stop` said so; finished units are saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a search is: ``done`` of ``total`` units, and what comes next.

    ``text`` what is being done; ``seconds_left`` an estimate, None while nothing was timed.
    """

    text: str
    done: int
    total: int
    seconds_left: float | None = None


def _ignored(progress: Progress) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """What a caller wants to know, and when the search has to end.

    ``progress`` is told before every unit, ``step`` of every denoising step of its runs, and what it
    raises ends the search as `stop` does; ``stop`` is asked before every forward, in each process of
    a launch, and has to say the same in all. After ``max_minutes`` no unit begins. ``bars`` shows the
    denoising steps on stderr. ``clock`` in seconds. Raises SparseError for minutes below 0.
    """

    progress: Callable[[Progress], None] = _ignored
    step: Watcher | None = None
    stop: Callable[[], bool] = lambda: False
    max_minutes: float | None = None
    bars: bool = False
    clock: Callable[[], float] = time.monotonic
    _begun: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        minutes = self.max_minutes
        if minutes is not None and not minutes >= 0:
            raise SparseError(f"max_minutes={minutes!r}: needs a number >= 0.")

    def begin(self) -> None:
        """Start the time that `max_minutes` limits."""
        self._begun[:] = [self.clock()]

    @property
    def time_is_up(self) -> bool:
        """Whether no further unit may begin."""
        if self.max_minutes is None or not self._begun:
            return False
        return self.clock() - self._begun[0] >= 60 * self.max_minutes

    def check(self) -> None:
        """Raise SearchStopped when the caller wants the search to end."""
        if self.stop():
            raise SearchStopped
