"""Learner: the optimiser side of one trained role: clipping, rates, the check that all is finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sparsediff.distill.training.settings import DistillSettings
from sparsediff.distill.training.sharding import whole


class Learner:
    """AdamW with betas (0, 0.95) as in TDM and BLADE, its rate, the norm of its gradients.

    `updates` an iteration: the rate's schedule counts iterations, whoever learns how often in them.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rate: float,
        settings: DistillSettings,
        *,
        updates: int = 1,
    ) -> None:
        from diffusers.optimization import get_scheduler

        self.parameters = list(parameters.values())
        self.clip, self.rate = settings.clip, rate
        # The two betas are floats of one kind: torch refuses a mixture.
        self.optimizer: Any = torch.optim.AdamW(
            self.parameters, lr=rate, betas=(0.0, 0.95), weight_decay=0.0
        )
        self.schedule = get_scheduler(
            settings.schedule,
            optimizer=self.optimizer,
            num_warmup_steps=settings.warmup_iterations * updates,
            num_training_steps=settings.iterations * updates,
        )

    def update(self, accelerator: Any) -> float:
        """Clip and step; returns the norm of the gradients. Nothing is changed if it is not finite."""
        size = float(whole(accelerator.clip_grad_norm_(self.parameters, self.clip)))
        finite = math.isfinite(size)
        if finite or accelerator.scaler is not None:
            self.optimizer.step()  # a scaler skips the step itself, and lowers its scale
        if finite:
            self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return size

    def take_rate(self) -> None:
        """After a checkpoint was loaded, the rate is again what the settings say, not what it says."""
        groups = self.optimizer.param_groups
        self.schedule.base_lrs = [self.rate] * len(groups)
        for group, share in zip(groups, self.schedule.lr_lambdas, strict=True):
            group["initial_lr"] = self.rate
            group["lr"] = self.rate * share(self.schedule.last_epoch)
        self.schedule._last_lr = [group["lr"] for group in groups]


def is_overflow(accelerator: Any) -> bool:
    """Whether gradients that are not finite are the fp16 scaler's business: it tries lower scales.

    Below 1 it has nothing left to try.
    """
    scaler = accelerator.scaler
    return scaler is not None and scaler.get_scale() >= 1.0
