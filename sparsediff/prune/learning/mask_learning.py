"""MaskLearning: learning masks as a whole: start or resume, iterate, keep checkpoints and a log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.training.acceleration import accelerator_for
from sparsediff.distill.training.checkpoints import Checkpoints
from sparsediff.distill.training.distillation import is_due
from sparsediff.distill.training.shared_failure import shared_failure
from sparsediff.distill.training.trainer import NotFiniteError
from sparsediff.distill.training.training_log import TrainingLog
from sparsediff.distill.training.training_start import named, write_start
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.frozen import frozen
from sparsediff.prune.learning.chain import chain_of
from sparsediff.prune.learning.checkpointed_blocks import checkpointed_blocks
from sparsediff.prune.learning.fisher import check_along
from sparsediff.prune.learning.learning_folder import (
    RESUME,
    check_folder,
    check_model,
    checkpoints_of,
    write_model,
)
from sparsediff.prune.learning.mask_trainer import LearnFigures, MaskTrainer
from sparsediff.prune.learning.settings import LearnSettings
from sparsediff.prune.pipeline_model import prunable_model
from sparsediff.prune.plain_model import check_plain
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import Kind, structures_of

logger = logging.getLogger("sparsediff")

Tell = Callable[[LearnFigures, float], None]


class MaskLearning:
    """One training of masks for the model of a pipeline, which is as it was afterwards.

    `prompts`: texts, or what was recorded of them. ``folder`` holds settings.json, prompts.json,
    model.json, log.jsonl (a line of figures an iteration) and checkpoints. `resume`: "latest" or the
    name of a checkpoint, None to start; `tell` is called with every iteration's figures and seconds,
    `tell_start` with how many samples of ``settings.draws_first`` are done. Raises SparseError when
    the folder holds another training, or one for another model.
    """

    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[str | Conditions],
        settings: LearnSettings,
        accelerator: Any,
        folder: Path,
        *,
        resume: str | None = None,
        tell: Tell = lambda figures, seconds: None,
        tell_start: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.settings, self.accelerator = settings, accelerator
        self.folder, self.tell, self.tell_start = folder, tell, tell_start
        self.resumes = resume is not None
        self.prompts = named(prompts)
        check_folder(folder, settings, self.prompts, resume)
        if settings.draws_first:
            check_along(settings.fisher_along, self.prompts)
        _, self.model = prunable_model(pipe)
        check_plain(self.model)
        check_model(folder, self.model)
        self.structures = structures_of(self.model, cast(Sequence[Kind], settings.target))
        chain, conditions = chain_of(
            pipe,
            self.model,
            prompts,
            call=settings.call,
            steps=settings.steps,
            guidance=settings.guidance,
            latents_every=settings.latents_every,
        )
        self.trainer = MaskTrainer(chain, self.structures, conditions, settings, accelerator)
        accelerator.register_for_checkpointing(self.trainer.learner.schedule)
        self.checkpoints = Checkpoints(
            checkpoints_of(folder),
            accelerator,
            self.trainer.gates.named(),
            keep=settings.keep_checkpoints,
            flag=RESUME,
        )
        if resume is not None:
            self._resume(resume)

    def run(self) -> Scores:
        """Learn until the iterations are done; the logits, as scores.

        Raises SparseError, naming the last good checkpoint, when something is not finite.
        """
        settings, trainer = self.settings, self.trainer
        self.accelerator.wait_for_everyone()  # each has looked whether the folder holds a training
        with shared_failure(self.accelerator):
            if self.accelerator.is_main_process:
                if not self.resumes:  # another run may have started here since that was looked at
                    check_folder(self.folder, settings, self.prompts, None)
                write_start(self.folder, settings, self.prompts)
                write_model(self.folder, self.model)
            path = self.folder / "log.jsonl"
            log = TrainingLog(path, self.accelerator, done=trainer.iteration, flag=RESUME)
        with frozen(self.model), checkpointed_blocks(self.model, settings.gradient_checkpointing):
            if trainer.iteration == 0:
                trainer.start(self.tell_start)
            while trainer.iteration < settings.iterations:
                try:
                    figures = trainer.train_iteration()
                except NotFiniteError as error:
                    raise SparseError(f"{error} {self.checkpoints.way_back()}") from error
                with shared_failure(self.accelerator):
                    self.tell(figures, log.note(figures))
                if is_due(settings.checkpoint_every, trainer.iteration, settings.iterations):
                    self.checkpoints.save(trainer.iteration)
        self.accelerator.wait_for_everyone()
        return trainer.gates.scores()

    def _resume(self, name: str) -> None:
        """Go on from a checkpoint; "latest" starts anew where there is none yet, as a job restarts."""
        if name == "latest" and not self.checkpoints.all():
            logger.warning("There is no checkpoint in %s yet: starting anew.", self.folder)
            return
        done = self.trainer.iteration = self.checkpoints.load(self.checkpoints.find(name))
        if done > self.settings.iterations:
            raise SparseError(
                f"iterations={self.settings.iterations}, and {done} are done in {self.folder}. Resume "
                f"with as many or more, or name an earlier checkpoint."
            )
        self.trainer.learner.take_rate()


def learn_masks(
    pipe: Any,
    prompts: Sequence[str | Conditions],
    settings: LearnSettings,
    folder: Path,
    *,
    resume: str | None = None,
    accelerator: Any = None,
    tell: Tell = lambda figures, seconds: None,
    tell_start: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Learn which units of a pipeline's model matter; see `MaskLearning`.

    Without an `accelerator`, one is made for where the model is.
    """
    if accelerator is None:
        _, model = prunable_model(pipe)
        cpu = next(model.parameters()).device.type == "cpu"
        accelerator = accelerator_for(settings, folder, cpu=cpu)
    return MaskLearning(
        pipe,
        prompts,
        settings,
        accelerator,
        folder,
        resume=resume,
        tell=tell,
        tell_start=tell_start,
    ).run()
