"""Trainer: iterations of an objective on accelerate: micro-batches, updates, what must be finite."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.distill.training.acceleration import exchanging
from sparsediff.distill.training.imitation_objective import ImitationObjective
from sparsediff.distill.training.learner import Learner, is_overflow
from sparsediff.distill.training.objective import Objective
from sparsediff.distill.training.roles import Role
from sparsediff.distill.training.sample_order import SampleOrder
from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.setup import Setup
from sparsediff.distill.training.tdm_objective import TdmObjective
from sparsediff.kernels.errors import SparseError


class NotFiniteError(SparseError):
    """A loss or gradient became NaN or infinite; the update changed nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one iteration measured, by role: losses and gradient norms, means over processes."""

    iteration: int
    losses: dict[Role, float]
    norms: dict[Role, float]
    rate: float

    def values(self) -> dict[str, float]:
        """Figures by the names that the log has."""
        found = {"rate": self.rate}
        found |= {f"{role}_loss": value for role, value in self.losses.items()}
        return found | {f"{role}_norm": value for role, value in self.norms.items()}


class Trainer:
    """The learners of an objective taking turns.

    All random numbers follow from the seed, the iteration and the number of the sample.
    """

    def __init__(
        self,
        setup: Setup,
        settings: DistillSettings,
        accelerator: Any,
        objective: Objective | None = None,
    ) -> None:
        self.setup, self.settings, self.accelerator = setup, settings, accelerator
        self.iteration = 0
        own = ImitationObjective if settings.objective == "imitation" else TdmObjective
        self.objective: Objective = objective or own(
            setup=setup, settings=settings, device=accelerator.device
        )
        self.order = SampleOrder(setup.conditions, settings, accelerator)
        roles = setup.roles
        if settings.gradient_checkpointing:
            roles.each(lambda model: model.enable_gradient_checkpointing())
        roles.prepare(accelerator, sharded=settings.shard)
        rates: dict[Role, float] = {
            "student": settings.learning_rate,
            "fake": settings.fake_learning_rate,
        }
        turns = Counter(role for role, _ in self.objective.updates())
        self.learners = {
            role: Learner(roles.parameters(role), rates[role], settings, updates=turns[role])
            for role in self.objective.learners
        }
        # Of sharded optimisers accelerate would save the main process's part; see `Shards`.
        for learner in () if settings.shard else self.learners.values():
            learner.optimizer = accelerator.prepare(learner.optimizer)

    def train_iteration(self) -> Figures:
        """One iteration; raises NotFiniteError when something is not finite."""
        parts = [
            self.objective.prepare(self.order.samples(self.iteration, micro))
            for micro in range(self.settings.accumulation)
        ]
        losses: dict[Role, float] = {}
        norms: dict[Role, float] = {}
        for role, loss_of in self.objective.updates():
            losses[role], norms[role] = self._update(role, parts, loss_of)
        self.iteration += 1
        self.setup.roles.rest()
        rate = self.learners["student"].schedule.get_last_lr()[0]
        return Figures(iteration=self.iteration, losses=losses, norms=norms, rate=rate)

    def _update(
        self, role: Role, parts: list[Any], loss_of: Callable[[Any], Tensor]
    ) -> tuple[float, float]:
        summed = torch.zeros((), device=self.accelerator.device)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with exchanging(self.accelerator, self.setup.roles.called(role), last=last):
                loss = loss_of(part) / len(parts)
                # The role again: a checkpointed model computes its forward anew in here.
                with self.setup.roles.playing(role):
                    self.accelerator.backward(loss)
            summed += loss.detach()
        total = float(self.accelerator.reduce(summed, reduction="mean"))  # the only wait for a GPU
        if not math.isfinite(total):
            raise NotFiniteError(
                f"The loss of the {role} is {total} at iteration {self.iteration}."
            )
        norm = self.learners[role].update(self.accelerator)
        if not math.isfinite(norm) and not is_overflow(self.accelerator):
            raise NotFiniteError(
                f"The gradients of the {role} have norm {norm} at iteration {self.iteration}."
            )
        return total, norm
