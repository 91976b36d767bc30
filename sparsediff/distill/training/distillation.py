"""Distillation: a training as a whole: start or resume, iterate, keep checkpoints, save."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.student.student_adapter import adapter_tensors
from sparsediff.distill.student.student_card import StudentCard
from sparsediff.distill.student.student_files import save_student
from sparsediff.distill.student.visited_grid import visited_grid
from sparsediff.distill.training.averages import Averages
from sparsediff.distill.training.checkpoints import Checkpoints
from sparsediff.distill.training.earlier_student import read_adapter
from sparsediff.distill.training.objective import Objective
from sparsediff.distill.training.roles import TRAINED
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import Setup
from sparsediff.distill.training.sharding import Shards, whole, whole_model
from sparsediff.distill.training.shared_failure import shared_failure
from sparsediff.distill.training.trainer import Figures, NotFiniteError, Trainer
from sparsediff.distill.training.training_log import TrainingLog
from sparsediff.distill.training.training_start import check_place, named, write_start
from sparsediff.distill.training.validation import Validation
from sparsediff.environment import versions
from sparsediff.kernels.errors import SparseError

logger = logging.getLogger("sparsediff")


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where a training keeps its things: the student in ``out``, the rest in ``out/training``."""

    out: Path

    @property
    def training(self) -> Path:
        """Checkpoints, log, settings, validation videos."""
        return self.out / "training"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints alone."""
        return self.training / "checkpoints"


class Distillation:
    """One training of one student.

    `prompts`: texts, or what was recorded of them. `resume`: "latest" or the name of a checkpoint in
    the folder, None to start; `tell` is called with every iteration's figures and seconds; `objective`
    makes another one than TDM. Raises SparseError when the folder holds another training.
    """

    def __init__(  # noqa: PLR0917
        self,
        pipe: Any,
        prompts: Sequence[str | Conditions],
        settings: DistillSettings,
        accelerator: Any,
        out: Path,
        resume: str | None = None,
        start_from: Path | None = None,
        fps: int = 16,
        objective: Callable[[Setup], Objective] | None = None,
        tell: Callable[[Figures, float], None] = lambda figures, seconds: None,
    ) -> None:
        self.settings, self.accelerator, self.tell = settings, accelerator, tell
        self.places = Places(out=out)
        self.prompts = named(prompts)
        check_folder(out, settings, self.prompts, resume)
        if settings.objective == "mmd" and objective is None:
            raise SparseError(
                f"objective={settings.objective!r} compares with real samples; needs an objective that "
                f"has them, such as MmdObjective."
            )
        self.setup = Setup.of(pipe, prompts, settings)
        if start_from is not None:
            earlier = read_adapter(start_from, settings, self.setup.component, self.setup.base)
            self.setup.roles.start_from(earlier)
        made = None if objective is None else objective(self.setup)
        self.trainer = Trainer(self.setup, settings, accelerator, made)
        roles = self.setup.roles
        self.averages = Averages(roles.parameters("student"), settings.average)
        for learner in self.trainer.learners.values():
            accelerator.register_for_checkpointing(learner.schedule)
        if self.averages.kept is not None and not settings.shard:
            accelerator.register_for_checkpointing(self.averages.kept)
        self.checkpoints = Checkpoints(
            self.places.checkpoints,
            accelerator,
            self._weights(),
            self._shards() if settings.shard else None,
            keep=settings.keep_checkpoints,
        )
        if resume is not None:
            self._resume(resume)
        self.validation = Validation(
            self.setup, settings, self.places.training / "validation", fps=fps
        )

    def run(self) -> None:
        """Train until the iterations are done.

        Raises SparseError, naming the last good checkpoint, when something is not finite.
        """
        settings, trainer = self.settings, self.trainer
        path = self.places.training / "log.jsonl"
        self.accelerator.wait_for_everyone()  # each has looked whether the folder holds a training
        with shared_failure(self.accelerator):
            if self.accelerator.is_main_process:
                write_start(self.places.training, settings, self.prompts)
            log = TrainingLog(path, self.accelerator, done=trainer.iteration)
        while trainer.iteration < settings.iterations:
            try:
                figures = trainer.train_iteration()
            except NotFiniteError as error:
                raise SparseError(f"{error} {self.checkpoints.way_back()}") from error
            self.averages.follow()
            with shared_failure(self.accelerator):
                self.tell(figures, log.note(figures))
            if is_due(settings.checkpoint_every, trainer.iteration, settings.iterations):
                self.checkpoints.save(trainer.iteration)
            if is_due(settings.validate_every, trainer.iteration, settings.iterations):
                self._validate()
        self.accelerator.wait_for_everyone()

    def save(self, *, model: str | None = None, command: str | None = None) -> None:
        """Write the student, with its averaged weights, into the folder; see `save_student`.

        Every process calls it, and the main one writes.
        """
        with self.averages.in_place():
            weights, trained = self._student()
            with shared_failure(self.accelerator):
                if self.accelerator.is_main_process:
                    self._write(trained, weights, model=model, command=command)

    def _write(
        self,
        trained: nn.Module,
        weights: dict[str, Tensor] | None,
        *,
        model: str | None,
        command: str | None,
    ) -> None:
        setup, settings = self.setup, self.settings
        timesteps, sigmas = visited_grid(setup.scheduler)
        lora = settings.lora_rank > 0
        save_student(
            self.places.out,
            card=StudentCard(
                component=setup.component,
                base=setup.base,
                steps=settings.steps,
                timesteps=timesteps,
                sigmas=sigmas,
                own_sigmas=setup.own_sigmas,
                method=None if setup.method is None else setup.method.name,
                teacher_guidance=setup.guidance,
                guidance=float(setup.call.get(setup.guidance_name or "", 1.0)),
                guidance_name=setup.guidance_name or "guidance_scale",
                rank=settings.lora_rank if lora else None,
                alpha=settings.lora_alpha if lora else None,
                model=model,
                command=command,
                versions=versions(),
                figures={"iterations": float(self.trainer.iteration)},
            ),
            model=trained,
            scheduler=setup.scheduler,
            method=setup.method,
            weights=weights,
        )

    def _student(self) -> tuple[dict[str, Tensor] | None, nn.Module]:
        """The weights of a student whose model does not have them all, and its model."""
        model = self.setup.roles.trained("student")
        if not self.settings.shard:
            return None, model
        if self.settings.lora_rank == 0:
            return None, whole_model(model)
        return {n: whole(v) for n, v in adapter_tensors(model, "student").items()}, model

    def _shards(self) -> Shards:
        learners = self.trainer.learners
        optimizers: dict[str, Any] = {role: learner.optimizer for role, learner in learners.items()}
        return Shards(self.accelerator, self._weights(), optimizers, self.averages.kept)

    def _weights(self) -> dict[str, nn.Parameter]:
        """Everything that is trained, by role and name."""
        roles = self.setup.roles
        return {f"{r}.{n}": v for r in TRAINED for n, v in roles.parameters(r).items()}

    def _validate(self) -> None:
        main = self.accelerator.is_main_process
        with shared_failure(self.accelerator):
            if main or self.settings.shard:
                with self.averages.in_place():
                    self.validation.generate(self.trainer.iteration, write=main)

    def _resume(self, name: str) -> None:
        """Go on from a checkpoint; "latest" starts anew where there is none yet, as a job restarts."""
        if name == "latest" and not self.checkpoints.all():
            logger.warning("There is no checkpoint in %s yet: starting anew.", self.places.training)
            return
        self.trainer.iteration = self.checkpoints.load(self.checkpoints.find(name))
        for learner in self.trainer.learners.values():
            learner.take_rate()
        self.averages.to(self.accelerator.device)


def check_folder(
    out: Path, settings: DistillSettings, prompts: Sequence[str], resume: str | None
) -> None:
    """Raise SparseError where a training cannot start, or go on, in a folder; see `check_place`."""
    places = Places(out=out)
    check_place(out, places.training, places.checkpoints, settings, prompts, resume)


def is_due(every: int, iteration: int, last: int) -> bool:
    """Whether something that is done every so often, and at the end, is done now."""
    return bool(every) and (iteration % every == 0 or iteration == last)
