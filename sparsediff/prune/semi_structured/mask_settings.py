"""MaskSettings: how 2:4 masks are learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsediff.distill.draws import seed_of
from sparsediff.distill.training.setting_checks import (
    check_real,
    check_whole,
    settings_dict,
    settings_from,
)
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.semi_structured.relaxation import Draw


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskSettings:
    """``iterations`` of ``batch`` samples each.

    ``kappa`` and ``tau`` go linearly from the first value to the second: masks become sharper.
    ``learning_rate`` falls to ``final_learning_rate`` as a cosine, for AdamW with betas 0.9 and 0.95.
    ``prior_strength``: how far gates lean to the prior's mask. ``reward``: weight of the share of
    squared weights that masks keep, falling linearly to 0; it keeps large weights, and gradients with
    them. MaskLLM subtracts 1e-5 times the sum, which depends on the model's size; a share does not.
    ``memory_gb``: the most that gates, gradients and moments may take, None for no limit.

    Raises SparseError for a value out of range.
    """

    iterations: int = 2000
    batch: int = 1
    learning_rate: float = 5e-4
    final_learning_rate: float = 5e-5
    weight_decay: float = 0.1
    kappa: tuple[float, float] = (100.0, 500.0)
    tau: tuple[float, float] = (4.0, 0.05)
    prior_strength: float = 3.0
    reward: float = 0.1
    seed: int = 0
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("batch", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least=least)
        for name in ("kappa", "tau"):
            ends = getattr(self, name)
            if not isinstance(ends, tuple | list) or len(ends) != 2:
                raise SparseError(f"{name}={ends!r}: needs two numbers, the first and the last.")
            for end in ends:
                check_real(name, end, 1e-6, 1e6)
            object.__setattr__(self, name, (float(ends[0]), float(ends[1])))
        for name, (low, high) in _RANGES.items():
            check_real(name, getattr(self, name), low, high, optional=name == "memory_gb")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str) -> MaskSettings:
        """Read what `to_dict` gave; `source` names it in errors."""
        return settings_from(cls, values, source=source)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return settings_dict(self)

    def draw(self, iteration: int) -> Draw:
        """How masks are drawn in an iteration, the first being 0."""
        share = iteration / max(1, self.iterations - 1)
        kappa, tau = ((1 - share) * first + share * last for first, last in (self.kappa, self.tau))
        return Draw(seed=seed_of(self.seed, "masks", iteration), kappa=kappa, tau=tau)

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration."""
        share = iteration / max(1, self.iterations - 1)
        height = (1 + math.cos(math.pi * share)) / 2
        return self.final_learning_rate + height * (self.learning_rate - self.final_learning_rate)

    def reward_at(self, iteration: int) -> float:
        """The reward's weight in an iteration: nothing after the last."""
        return self.reward * (1 - iteration / self.iterations)


_RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (0.0, 1.0),
    "final_learning_rate": (0.0, 1.0),
    "weight_decay": (0.0, 1.0),
    "prior_strength": (0.0, 1e3),
    "reward": (0.0, 1e3),
    "memory_gb": (1e-9, 1e6),
}
