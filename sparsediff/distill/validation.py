"""Validation: what the student makes of fixed prompts and seeds while it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsediff.distill.settings import DistillSettings
from sparsediff.distill.setup import Setup


class Validation:
    """Videos or images of the validation prompts, prompt n from seed n, in a folder per iteration."""

    def __init__(self, setup: Setup, settings: DistillSettings, folder: Path, *, fps: int) -> None:
        self.setup, self.settings, self.folder, self.fps = setup, settings, folder, fps

    def generate(self, iteration: int) -> list[Path]:
        """Generate as a user of the student would; returns the files."""
        from sparsediff.media import write_frames
        from sparsediff.timed_run import frames_of

        target = self.folder / f"iteration-{iteration:06d}"
        target.mkdir(parents=True, exist_ok=True)
        call = {
            **self.settings.call,
            "num_inference_steps": self.settings.steps,
            "guidance_scale": 1.0,
        }
        files = []
        with torch.no_grad(), self.setup.roles.playing("student"):
            for number, prompt in enumerate(self.settings.validation_prompts):
                output: Any = self.setup.pipe(
                    prompt=prompt,
                    generator=torch.Generator().manual_seed(number),
                    output_type="np",
                    **call,
                )
                frames = frames_of(output)
                suffix = ".mp4" if len(frames) > 1 else ".png"
                files.append(write_frames(frames, target / f"{number:02d}{suffix}", fps=self.fps))
        return files
