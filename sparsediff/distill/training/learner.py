"""Learner: the optimiser side of one trained role: clipping, rates, the check that all is finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from sparsediff.distill.training.sharding import whole


class Pace(Protocol):
    """The settings that say how fast is learnt."""

    @property
    def clip(self) -> float:
        """The largest norm of all gradients."""

    @property
    def schedule(self) -> str:
        """diffusers' name of the rate's schedule."""

    @property
    def warmup_iterations(self) -> int:
        """Iterations in which the rate rises."""

    @property
    def iterations(self) -> int:
        """All iterations."""


class Learner:
    """AdamW, by default with betas (0, 0.95) as in TDM and BLADE, its rate, the norm of its gradients.

    `rate`: one for all parameters, or by the beginning of their names. `updates` an iteration: the
    rate's schedule counts iterations, whoever learns how often in them.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rate: float | Mapping[str, float],
        settings: Pace,
        *,
        updates: int = 1,
        betas: tuple[float, float] = (0.0, 0.95),
    ) -> None:
        from diffusers.optimization import get_scheduler

        self.parameters = list(parameters.values())
        rates = rate if isinstance(rate, Mapping) else {"": rate}
        groups: list[dict[str, Any]] = [
            {"params": [v for n, v in parameters.items() if n.startswith(start)], "lr": one}
            for start, one in rates.items()
        ]
        groups = [group for group in groups if group["params"]]
        self.clip, self.rates = settings.clip, [group["lr"] for group in groups]
        # The two betas are floats of one kind: torch refuses a mixture.
        self.optimizer: Any = torch.optim.AdamW(groups, betas=betas, weight_decay=0.0)
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
        self.schedule.base_lrs = list(self.rates)
        for group, rate, share in zip(groups, self.rates, self.schedule.lr_lambdas, strict=True):
            group["initial_lr"] = rate
            group["lr"] = rate * share(self.schedule.last_epoch)
        self.schedule._last_lr = [group["lr"] for group in groups]


def is_overflow(accelerator: Any) -> bool:
    """Whether gradients that are not finite are the fp16 scaler's business: it tries lower scales.

    Below 1 it has nothing left to try.
    """
    scaler = accelerator.scaler
    return scaler is not None and scaler.get_scale() >= 1.0
