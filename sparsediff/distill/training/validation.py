"""Validation: what the student makes of fixed prompts and seeds while it is trained."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import Setup
from sparsediff.kernels.errors import SparseError


class Validation:
    """Videos or images of the validation prompts, prompt n from seed n, in a folder per iteration."""

    def __init__(self, setup: Setup, settings: DistillSettings, folder: Path, *, fps: int) -> None:
        self.setup, self.settings, self.folder, self.fps = setup, settings, folder, fps

    def generate(self, iteration: int, *, write: bool = True) -> list[Path]:
        """Generate as a user of the student would; returns the files.

        All are generated before one is written: the processes of a sharded model generate together,
        and only one of them writes.

        Raises SparseError when they cannot be written, with nothing of them left.
        """
        target = self.folder / f"iteration-{iteration:06d}"
        try:
            with torch.no_grad(), self._student_in_pipeline():
                prompts = enumerate(self.settings.validation_prompts)
                made = [self._frames(prompt, number) for number, prompt in prompts]
            if not write:
                return []
            target.mkdir(parents=True, exist_ok=True)
            return [self._write(frames, number, target) for number, frames in enumerate(made)]
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            raise SparseError(
                f"The validation of iteration {iteration} could not be written: {error}. Make room, "
                f"then go on with --resume_from_checkpoint latest."
            ) from error

    def _frames(self, prompt: str, number: int) -> Any:
        from sparsediff.timed_run import frames_of

        output: Any = self.setup.pipe(
            prompt=prompt,
            generator=torch.Generator().manual_seed(number),
            output_type="np",
            **self.setup.call,
        )
        return frames_of(output)

    def _write(self, frames: Any, number: int, target: Path) -> Path:
        from sparsediff.media import write_frames

        suffix = ".mp4" if len(frames) > 1 else ".png"
        return write_frames(frames, target / f"{number:02d}{suffix}", fps=self.fps)

    @contextmanager
    def _student_in_pipeline(self) -> Iterator[None]:
        """Where all weights are trained, the pipeline holds the teacher's otherwise."""
        setup = self.setup
        before = getattr(setup.pipe, setup.component)
        setattr(setup.pipe, setup.component, setup.roles.trained("student"))
        try:
            with setup.roles.playing("student"):
                yield
        finally:
            setattr(setup.pipe, setup.component, before)
            setup.roles.rest()
