"""Learner: the optimiser side of one trained role: clipping, rates, the check that all is finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsediff.distill.settings import DistillSettings


class Learner:
    """AdamW with betas (0, 0.95) as in TDM and BLADE, its rate, the norm of its gradients."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], rate: float, settings: DistillSettings
    ) -> None:
        from diffusers.optimization import get_scheduler

        self.parameters = list(parameters.values())
        self.clip = settings.clip
        # The two betas are floats of one kind: torch refuses a mixture.
        self.optimizer: Any = torch.optim.AdamW(
            self.parameters, lr=rate, betas=(0.0, 0.95), weight_decay=0.0
        )
        self.schedule = get_scheduler(
            settings.schedule,
            optimizer=self.optimizer,
            num_warmup_steps=settings.warmup_iterations,
            num_training_steps=settings.iterations,
        )

    def update(self, accelerator: Any) -> float:
        """Clip and step; returns the norm of the gradients. Nothing is changed if it is not finite."""
        norm = accelerator.clip_grad_norm_(self.parameters, self.clip)
        size = float(norm)
        if torch.isfinite(torch.tensor(size)):
            self.optimizer.step()
            self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return size
