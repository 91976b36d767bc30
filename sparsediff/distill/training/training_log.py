"""What a training says of itself: one JSON line an iteration, and the trackers of accelerate."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Protocol

from sparsediff.distill.training.checkpoints import RESUME
from sparsediff.distill.whole_file import write_whole
from sparsediff.kernels.errors import SparseError


class Noted(Protocol):
    """What one iteration of any training measured."""

    @property
    def iteration(self) -> int:
        """Its number, from 1."""

    def values(self) -> dict[str, float]:
        """Figures by name."""


class TrainingLog:
    """Appends to ``log.jsonl``; a resumed training cuts off what was logged after its checkpoint.

    `flag` is how a user goes on, for errors.
    """

    def __init__(self, path: Path, accelerator: Any, *, done: int, flag: str = RESUME) -> None:
        self.path, self.accelerator, self.flag = path, accelerator, flag
        self._last = time.monotonic()
        if accelerator.is_main_process and path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            write_whole(path, "".join(line for line in lines if 0 < _iteration(line) <= done))

    def note(self, figures: Noted) -> float:
        """Write one iteration; returns the seconds it took. Raises SparseError when it cannot."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        told = {name: _told(value) for name, value in figures.values().items()}
        values: dict[str, Any] = {"iteration": figures.iteration, **told}
        if self.accelerator.is_main_process:
            line = json.dumps({**values, "seconds": round(seconds, 3)}, allow_nan=False)
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(f"{line}\n")
            except OSError as error:
                raise SparseError(
                    f"{self.path} could not be written at iteration {figures.iteration}: {error}. Make "
                    f"room, then go on with {self.flag}."
                ) from error
        iteration = values.pop("iteration")
        self.accelerator.log({k: v for k, v in values.items() if v is not None}, step=iteration)
        return seconds


def _told(value: float) -> float | None:
    """A figure as JSON has it: None where fp16 overflowed and its scaler skipped the step."""
    return value if math.isfinite(value) else None


def _iteration(line: str) -> int:
    """The iteration of a line; 0 for a line of which a crash or a full disk left a part."""
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return 0
