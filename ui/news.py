"""News: what is told of work in progress, as a sentence and a share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """Where a run is: ``step`` of ``total`` steps of a ``phase``, or ``waiting`` behind others.

    ``share`` of the whole work that is done, in [0, 1].
    """

    phase: str
    step: int = 0
    total: int | None = None
    waiting: int = 0
    share: float = 0.0

    def __str__(self) -> str:
        if self.waiting:
            others = "1 other run" if self.waiting == 1 else f"{self.waiting} other runs"
            return f"Waiting for {others} on this model"
        if self.total:
            return f"{self.phase}: step {self.step} of {self.total}"
        return self.phase


Teller = Callable[[News], None]
