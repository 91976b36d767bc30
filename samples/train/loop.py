"""The loop that both trainings share: steps, log lines, checkpoints, and a clean stop on Ctrl-C."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import checkpoint
from torch import Tensor

STOPPED = 130


class Training(Protocol):
    """What a training gives to the loop; after `load` it goes on as if never interrupted."""

    steps: int

    def train_step(self, step: int) -> dict[str, float]:
        """Do step number `step`; gives the losses to log."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes, by name."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""

    def export(self, folder: Path) -> None:
        """Write the model as diffusers reads it."""


class StopFlag:
    """Turns the first Ctrl-C into a flag; a second one interrupts as usual."""

    def __init__(self) -> None:
        self.stopped = False

    def __enter__(self) -> StopFlag:
        self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def train(
    training: Training,
    folder: Path,
    info: dict[str, Any],
    *,
    resume: bool,
    save_every: float,
    log_every: int = 25,
    stop_after: int | None = None,
) -> int:
    """Train to the end, saving to `folder` every `save_every` seconds; gives the exit status.

    `info` is what a resumed run needs to build the same training. `stop_after` ends early at that
    step, as Ctrl-C does.
    """
    step, before, averages = 0, 0.0, dict[str, float]()
    if resume:
        training.load(checkpoint.tensors_of(folder))
        found = checkpoint.info_of(folder)
        step, before, averages = found["step"], found["elapsed"], found["losses"]
    end = min(training.steps, stop_after or training.steps)
    start = saved = time.monotonic()
    with StopFlag() as flag:
        while step < end and not flag.stopped:
            for name, loss in training.train_step(step).items():
                averages[name] = 0.95 * averages.get(name, loss) + 0.05 * loss
            step += 1
            now = time.monotonic()
            if step % log_every == 0:
                losses = " ".join(f"{name} {loss:.4f}" for name, loss in sorted(averages.items()))
                clock = f"{before + now - start:6.0f} s"
                print(f"{clock}  step {step}/{training.steps}  {losses}", flush=True)
            if step == end or flag.stopped or now - saved > save_every:
                saved = now
                info = {**info, "elapsed": round(before + now - start, 1), "losses": averages}
                checkpoint.save(folder, step, training.tensors(), info, training.export)
    if step < training.steps:
        print(f"Stopped at step {step} of {training.steps}; go on with --resume {folder}")
        return STOPPED
    print(f"Finished {step} steps; the weights are in {checkpoint.newest(folder)}")
    return 0
