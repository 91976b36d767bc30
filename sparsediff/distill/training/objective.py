"""Objective: what a trainer lets the roles learn, whatever the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.training.roles import Role


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """A micro-batch: the samples' ``numbers`` in the whole training, and their prompts' conditions."""

    numbers: tuple[int, ...]
    conditions: Conditions


# One update: who learns, and the loss of what was prepared of a micro-batch.
Update = tuple[Role, Callable[[Any], Tensor]]


class Objective(Protocol):
    """One iteration of training: something is prepared of every micro-batch, then roles learn."""

    @property
    def learners(self) -> Sequence[Role]:
        """The roles that are trained."""

    def prepare(self, samples: Samples) -> Any:
        """What the updates of an iteration need of a micro-batch; without gradients."""

    def updates(self) -> Sequence[Update]:
        """The updates of an iteration, in order."""
