"""The training of 2:4 masks: a small loop on one process; the model's weights are never changed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparsediff.distill.training.trainer import NotFiniteError
from sparsediff.prune.frozen import frozen
from sparsediff.prune.semi_structured.learnable_masks import LearnableMasks
from sparsediff.prune.semi_structured.mask_settings import MaskSettings
from sparsediff.prune.semi_structured.memory_need import MemoryNeed
from sparsediff.prune.semi_structured.pattern_masks import SemiStructuredMasks

logger = logging.getLogger("sparsediff.prune")

_BETAS, _EPSILON = (0.9, 0.95), 1e-5  # MaskLLM's AdamW


class Lesson(Protocol):
    """What masks learn from."""

    def prepare(self, iteration: int) -> Any:
        """What an iteration needs of the model without masks; without gradients."""

    def loss(self, part: Any) -> Tensor:
        """The loss of a prepared part, of the model with masks: ``[]``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskFigures:
    """What one iteration measured: the lesson's loss, the share of squared weights kept."""

    iteration: int
    loss: float
    kept_share: float
    rate: float


class MaskTraining:
    """Gates and their optimiser; states the memory they take, and refuses, before they are made.

    Raises SparseError where `settings.memory_gb` is not enough, or a prior does not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Linear],
        lesson: Lesson,
        settings: MaskSettings,
        *,
        prior: SemiStructuredMasks | None = None,
    ) -> None:
        need = MemoryNeed.of(layers)
        logger.info("%s", need.words())
        need.check(settings.memory_gb)
        self.model, self.lesson, self.settings = model, lesson, settings
        self.iteration = 0
        self.masks = LearnableMasks(
            layers, seed=settings.seed, prior=prior, strength=settings.prior_strength
        )
        self.optimizer = torch.optim.AdamW(
            self.masks.gates.values(),
            lr=settings.learning_rate,
            betas=_BETAS,
            eps=_EPSILON,
            weight_decay=settings.weight_decay,
        )

    def train(self, told: Callable[[MaskFigures], None] | None = None) -> SemiStructuredMasks:
        """All iterations that are left, then the masks; `told` hears of each.

        Raises NotFiniteError when a loss is not finite.
        """
        with frozen(self.model):
            while self.iteration < self.settings.iterations:
                figures = self._iterate()
                if told is not None:
                    told(figures)
        return self.masks.export()

    def _iterate(self) -> MaskFigures:
        settings, number = self.settings, self.iteration
        with torch.no_grad():
            part = self.lesson.prepare(number)
        draw, rate = settings.draw(number), settings.rate(number)
        with self.masks.at_work(draw):
            loss = self.lesson.loss(part)
            kept = self.masks.kept_share(draw)
            self.optimizer.zero_grad()
            # In here: a model that checkpoints its blocks computes them again while masks work.
            (loss - settings.reward_at(number) * kept).backward()
        value, share = float(loss.detach()), float(kept.detach())
        if not math.isfinite(value):
            raise NotFiniteError(
                f"The loss is {value} at iteration {number}. Use a lower learning_rate, or a model in "
                f"bfloat16 or float32."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.iteration += 1
        return MaskFigures(iteration=self.iteration, loss=value, kept_share=share, rate=rate)
