"""Trainer: rounds of distillation on accelerate, until the iterations asked for are done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparsediff.distill.conditions import Conditions
from sparsediff.distill.denoiser import Denoiser
from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.learner import Learner
from sparsediff.distill.noise import Level
from sparsediff.distill.roles import TRAINED, Role
from sparsediff.distill.settings import DistillSettings
from sparsediff.distill.setup import Setup
from sparsediff.distill.tdm_loss import guided
from sparsediff.distill.trajectory import State
from sparsediff.kernels.errors import SparseError


class NotFiniteError(SparseError):
    """A loss or gradient became NaN or infinite; the iteration changed nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one iteration measured: losses and gradient norms, means over processes."""

    iteration: int
    student_loss: float
    fake_loss: float
    student_norm: float
    fake_norm: float
    rate: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Part:
    """What one micro-batch keeps between the update of the fake and that of the student."""

    state: State
    conditions: Conditions
    seeds: tuple[int, ...]


class Trainer:
    """Two learners taking turns: the fake follows the student, the student follows teacher - fake.

    All random numbers follow from the seed, the iteration and the number of the sample.
    """

    def __init__(self, setup: Setup, settings: DistillSettings, accelerator: Any) -> None:
        self.setup, self.settings, self.accelerator = setup, settings, accelerator
        self.iteration = 0
        roles = setup.roles
        rates: dict[Role, float] = {
            "student": settings.learning_rate,
            "fake": settings.fake_learning_rate,
        }
        self.learners = {
            role: Learner(roles.parameters(role), rate, settings) for role, rate in rates.items()
        }
        if settings.gradient_checkpointing:
            roles.each(lambda model: model.enable_gradient_checkpointing())
        roles.prepare(accelerator)
        for role in TRAINED:
            learner = self.learners[role]
            learner.optimizer = accelerator.prepare(learner.optimizer)

    def train_iteration(self) -> Figures:
        """One round; raises NotFiniteError, with nothing changed, when something is not finite."""
        parts = [self._rolled_out(micro) for micro in range(self.settings.accumulation)]
        fake_loss = fake_norm = 0.0
        for number in range(self.settings.fake_updates):
            fake_loss, fake_norm = self._update("fake", parts, partial(self._fake_loss, number))
        student_loss, student_norm = self._update("student", parts, self._student_loss)
        self.iteration += 1
        self.setup.roles.rest()
        return Figures(
            iteration=self.iteration,
            student_loss=student_loss,
            fake_loss=fake_loss,
            student_norm=student_norm,
            fake_norm=fake_norm,
            rate=self.learners["student"].schedule.get_last_lr()[0],
        )

    def _rolled_out(self, micro: int) -> _Part:
        settings, setup = self.settings, self.setup
        samples = self._samples(micro)
        draws = Draws([seed_of(settings.seed, "sample", sample) for sample in samples])
        conditions = self._prompts(samples)
        device = self.accelerator.device
        x = draws.normal(torch.empty(len(samples), *setup.inputs.shape, device=device))
        picks = draws.picks(settings.segments, setup.grid.steps)
        state = setup.matching.states(self._student(conditions), x, picks, draws)
        items = torch.arange(len(samples)).repeat_interleave(settings.segments)
        seeds = [
            seed_of(settings.seed, "state", sample, number)
            for sample in samples
            for number in range(settings.segments)
        ]
        return _Part(state=state, conditions=conditions.select(items), seeds=tuple(seeds))

    def _samples(self, micro: int) -> list[int]:
        """Numbers of this process's samples among all samples of the training."""
        settings, processes = self.settings, self.accelerator.num_processes
        first = (self.iteration * settings.accumulation + micro) * processes * settings.batch
        first += self.accelerator.process_index * settings.batch
        return list(range(first, first + settings.batch))

    def _prompts(self, samples: list[int]) -> Conditions:
        """The conditions of samples: all prompts in one random order after another."""
        known = self.setup.conditions
        chosen = []
        for sample in samples:
            epoch, place = divmod(sample, len(known))
            generator = torch.Generator().manual_seed(seed_of(self.settings.seed, "order", epoch))
            order = torch.randperm(len(known), generator=generator)
            chosen.append(known[int(order[place])])
        return Conditions.stack(chosen).to(self.accelerator.device)

    def _update(
        self, role: Role, parts: list[_Part], loss_of: Callable[[_Part], Tensor]
    ) -> tuple[float, float]:
        total = 0.0
        for number, part in enumerate(parts):
            with self._gathering(role, last=number == len(parts) - 1):
                loss = loss_of(part) / len(parts)
                # The role again: a checkpointed model computes its forward anew in here.
                with self.setup.roles.playing(role):
                    self.accelerator.backward(loss)
            total += float(self.accelerator.reduce(loss.detach(), reduction="mean"))
        if not math.isfinite(total):
            raise NotFiniteError(
                f"The loss of the {role} is {total} at iteration {self.iteration}."
            )
        norm = self.learners[role].update(self.accelerator)
        if not math.isfinite(norm):
            raise NotFiniteError(
                f"The gradients of the {role} have norm {norm} at iteration {self.iteration}."
            )
        return total, norm

    @contextmanager
    def _gathering(self, role: Role, *, last: bool) -> Iterator[None]:
        """Gradients are exchanged between processes with the last micro-batch only."""
        if last:
            yield
            return
        with self.accelerator.no_sync(self.setup.roles.called(role)):
            yield

    def _fake_loss(self, number: int, part: _Part) -> Tensor:
        draws = Draws([seed_of(seed, "fake", number) for seed in part.seeds])
        return self.setup.matching.fake_loss(
            part.state,
            self._clean("fake", part.conditions),
            draws,
            teacher=self._teacher(part.conditions, guidance=1.0),
        )

    def _student_loss(self, part: _Part) -> Tensor:
        draws = Draws([seed_of(seed, "student") for seed in part.seeds])
        return self.setup.matching.student_loss(
            part.state,
            self._student(part.conditions),
            self._teacher(part.conditions, guidance=self.setup.guidance),
            self._clean("fake", part.conditions),
            draws,
        )

    def _student(self, conditions: Conditions) -> Callable[[Tensor, Level], tuple[Tensor, Tensor]]:
        def denoise(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            with self.setup.roles.playing("student") as model:
                return self._denoiser(model)(x, level, conditions)

        return denoise

    def _clean(self, role: Role, conditions: Conditions) -> Callable[[Tensor, Level], Tensor]:
        def clean(x: Tensor, level: Level) -> Tensor:
            with self.setup.roles.playing(role) as model:
                return self._denoiser(model)(x, level, conditions)[0]

        return clean

    @torch.no_grad()
    def _guided(self, x: Tensor, level: Level, conditions: Conditions, guidance: float) -> Tensor:
        with self.setup.roles.playing("teacher") as model:
            denoise = self._denoiser(model)
            positive = denoise(x, level, conditions)[0]
            if guidance == 1.0 or conditions.negative is None:
                return positive
            return guided(positive, denoise(x, level, conditions, negative=True)[0], guidance)

    def _teacher(
        self, conditions: Conditions, *, guidance: float
    ) -> Callable[[Tensor, Level], Tensor]:
        return lambda x, level: self._guided(x, level, conditions, guidance)

    def _denoiser(self, model: Any) -> Denoiser:
        return Denoiser(model=model, inputs=self.setup.inputs, levels=self.setup.levels)
