"""Averaged student weights: what training ends with is steadier than where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Averages:
    """The exponential moving average of the student's weights; `average` 0 keeps none."""

    def __init__(self, parameters: dict[str, nn.Parameter], average: float) -> None:
        from diffusers.training_utils import EMAModel

        self.parameters = list(parameters.values())
        self.kept: Any = EMAModel(self.parameters, decay=average) if average else None

    def follow(self) -> None:
        """Take in what an update made of the weights."""
        if self.kept is not None:
            self.kept.step(self.parameters)

    def to(self, device: Any) -> None:
        """Move the averages, which a checkpoint brings back on the CPU."""
        if self.kept is not None:
            self.kept.to(device=device)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the with-block the student has the averaged weights."""
        if self.kept is None:
            yield
            return
        self.kept.store(self.parameters)
        self.kept.copy_to(self.parameters)
        try:
            yield
        finally:
            self.kept.restore(self.parameters)
