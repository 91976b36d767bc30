"""What a training says of itself: one JSON line an iteration, and the trackers of accelerate."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from sparsediff.distill.trainer import Figures


class TrainingLog:
    """Appends to ``log.jsonl``; a resumed training cuts off what was logged after its checkpoint."""

    def __init__(self, path: Path, accelerator: Any, *, done: int) -> None:
        self.path, self.accelerator = path, accelerator
        self._last = time.monotonic()
        if accelerator.is_main_process and path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["iteration"] <= done]
            path.write_text("".join(kept))

    def note(self, figures: Figures) -> float:
        """Write one iteration; returns the seconds it took."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        values: dict[str, Any] = {"iteration": figures.iteration, "rate": figures.rate}
        values |= {f"{role}_loss": value for role, value in figures.losses.items()}
        values |= {f"{role}_norm": value for role, value in figures.norms.items()}
        if self.accelerator.is_main_process:
            line = json.dumps({**values, "seconds": round(seconds, 3)})
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        iteration = values.pop("iteration")
        self.accelerator.log(values, step=iteration)
        return seconds
