"""MaskTrainer: iterations in which gates learn which units the final latents depend on (EcoDiff)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.training.acceleration import exchanging
from sparsediff.distill.training.learner import Learner, is_overflow
from sparsediff.distill.training.objective import Samples
from sparsediff.distill.training.sample_order import SampleOrder
from sparsediff.distill.training.trainer import NotFiniteError
from sparsediff.prune.gates import gated
from sparsediff.prune.learning.chain import Chain, distance
from sparsediff.prune.learning.fisher import fisher_information
from sparsediff.prune.learning.gate_logits import GateLogits
from sparsediff.prune.learning.settings import LearnSettings
from sparsediff.prune.structures import Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnFigures:
    """What one iteration measured: ``distance`` of the final latents, ``penalty``, expected
    ``densities`` by kind after the update, the gradients' ``norm`` and the first kind's ``rate``."""

    iteration: int
    distance: float
    penalty: float
    densities: dict[str, float]
    norm: float
    rate: float

    def values(self) -> dict[str, float]:
        """Figures by the names that the log has."""
        found = {"rate": self.rate, "distance": self.distance, "penalty": self.penalty}
        found |= {f"{kind}_density": value for kind, value in self.densities.items()}
        return found | {"norm": self.norm}


class MaskTrainer:
    """Compares the masked chain with the dense one from the same noise; only logits are trained.

    All random numbers follow from the seed and the number of the sample. The model's weights must be
    frozen.
    """

    def __init__(
        self,
        chain: Chain,
        structures: Sequence[Structure],
        conditions: Sequence[Conditions],
        settings: LearnSettings,
        accelerator: Any,
    ) -> None:
        self.chain, self.structures = chain, list(structures)
        self.settings, self.accelerator = settings, accelerator
        self.iteration = 0
        self.order = SampleOrder(conditions, settings, accelerator)
        chain.model.to(accelerator.device)
        self.gates = GateLogits(self.structures, settings)
        self.called = accelerator.prepare(self.gates)  # as several processes call it
        self.learner = Learner(self.gates.named(), settings.rates, settings, betas=(0.9, 0.999))
        self.learner.optimizer = accelerator.prepare(self.learner.optimizer)

    def start(self, tell: Callable[[int], None]) -> None:
        """Set the logits before the first iteration; `tell` is told how many samples are done."""
        if draws := self.settings.draws_first:
            scores = fisher_information(
                self.chain,
                self.structures,
                self.order,
                draws=draws,
                along=self.settings.fisher_along,
                tell=tell,
            )
            self.gates.start_from(scores)

    def train_iteration(self) -> LearnFigures:
        """One update; raises NotFiniteError, nothing being changed, when something is not finite."""
        count = self.settings.accumulation
        summed = torch.zeros(2, device=self.accelerator.device)
        for micro in range(count):
            samples = self.order.samples(self.iteration, micro)
            summed += self._learn(samples, last=micro == count - 1) / count
        apart, penalty = self.accelerator.reduce(summed, reduction="mean").tolist()
        if not math.isfinite(apart + penalty):
            raise NotFiniteError(f"The loss is {apart + penalty} at iteration {self.iteration}.")
        norm = self.learner.update(self.accelerator)
        if not math.isfinite(norm) and not is_overflow(self.accelerator):
            raise NotFiniteError(f"The gradients have norm {norm} at iteration {self.iteration}.")
        self.iteration += 1
        return LearnFigures(
            iteration=self.iteration,
            distance=apart,
            penalty=penalty,
            densities=self.gates.densities(),
            norm=norm,
            rate=self.learner.schedule.get_last_lr()[0],
        )

    def _learn(self, samples: Samples, *, last: bool) -> Tensor:
        """Gradients of one micro-batch; its distance and penalty ``[2]``."""
        x, wanted = self._dense(samples)
        with exchanging(self.accelerator, self.called, last=last):
            # Drawn before the chain, which is computed again in the backward pass: one mask a sample.
            values, penalty = self.called(samples.numbers)
            # The backward pass in here: what is computed again must meet the same gates.
            with gated(self.chain.model, self.structures, values):
                with self.accelerator.autocast():
                    latents = self.chain.latents(x, samples.conditions)
                apart = distance(latents, wanted, self.settings.distance)
                loss = apart + self.settings.beta * penalty
                self.accelerator.backward(loss / self.settings.accumulation)
        return torch.stack([apart.detach(), penalty.detach()])

    @torch.no_grad()
    def _dense(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Noise of the samples, and the final latents that the whole model makes of it."""
        draws = Draws([seed_of(self.settings.seed, "sample", number) for number in samples.numbers])
        shape = (len(samples.numbers), *self.chain.inputs.shape)
        x = draws.normal(torch.empty(shape, device=self.accelerator.device))
        with self.accelerator.autocast():
            return x, self.chain.latents(x, samples.conditions)
