"""Masks learnt on a tiny Wan, as the command line does it, and in processes that are killed."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fresh_accelerate import forget_accelerate
from tiny_pipelines import wan

from sparsediff.distill.training.acceleration import accelerator_for
from sparsediff.prune.learning.mask_learning import MaskLearning
from sparsediff.prune.learning.mask_trainer import MaskTrainer
from sparsediff.prune.learning.settings import LearnSettings

PROMPTS = ("a red circle", "a blue ring", "a green box")
CALL = {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "guidance_scale": 4.0,
    "max_sequence_length": 16,
}


def learning_of(
    folder: Path,
    *,
    resume: str | None = None,
    prompts: Sequence[str] = PROMPTS,
    **changes: Any,
) -> MaskLearning:
    """Four iterations of two steps, at rates and with noise that move every gate."""
    forget_accelerate()
    given: dict[str, Any] = {
        "steps": 2,
        "call": CALL,
        "iterations": 4,
        "accumulation": 1,
        "warmup_iterations": 2,
        "damping": 0.0,
        "initial_logit": 0.0,
        "checkpoint_every": 2,
        "beta": 0.0,
    }
    settings = LearnSettings(**(given | changes))
    accelerator = accelerator_for(settings, folder, cpu=True)
    pipe = wan(layers=2)
    pipe.set_progress_bar_config(disable=True)
    return MaskLearning(pipe, prompts, settings, accelerator, folder, resume=resume)


def killed_in_the_fourth(rank: int, folder: Path, **changes: Any) -> None:
    """Dies in its fourth iteration, its gradients computed; the checkpoint is that of the second."""
    learn = MaskTrainer._learn

    def killed(self: MaskTrainer, *args: Any, **words: Any) -> Any:
        found = learn(self, *args, **words)
        if self.iteration == 3:
            signal.raise_signal(signal.SIGKILL)
        return found

    MaskTrainer._learn = killed  # type: ignore[method-assign]
    learning_of(folder, **changes).run()


def learnt(rank: int, results: Path, folder: Path, **changes: Any) -> None:
    """Starts or goes on, learns to the end; writes where it began and the scores."""
    learning = learning_of(folder, resume="latest", **changes)
    done, count = learning.trainer.iteration, learning.accelerator.num_processes
    torch.save((done, count, dict(learning.run().values)), results / f"{rank}.pt")
