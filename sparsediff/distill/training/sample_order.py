"""SampleOrder: which samples a process has in an iteration, whatever is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sparsediff.distill.draws import seed_of, shuffled_place
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.training.objective import Samples


class Portions(Protocol):
    """The settings that say how many samples an iteration has."""

    @property
    def batch(self) -> int:
        """Samples of a process at a time."""

    @property
    def accumulation(self) -> int:
        """How often an iteration takes so many."""

    @property
    def seed(self) -> int:
        """Of the training."""


class SampleOrder:
    """All samples of a training are numbered; several processes divide them."""

    def __init__(
        self, conditions: Sequence[Conditions], settings: Portions, accelerator: Any
    ) -> None:
        self.conditions, self.settings, self.accelerator = conditions, settings, accelerator

    def samples(self, iteration: int, micro: int) -> Samples:
        """This process's part of a micro-batch, on its device."""
        settings, processes = self.settings, self.accelerator.num_processes
        first = (iteration * settings.accumulation + micro) * processes * settings.batch
        first += self.accelerator.process_index * settings.batch
        numbers = tuple(range(first, first + settings.batch))
        conditions = Conditions.stack([self._conditions(number) for number in numbers])
        return Samples(numbers=numbers, conditions=conditions.to(self.accelerator.device))

    def other_prompts(self, samples: Samples) -> Conditions:
        """Of each sample, another prompt than its own, of which there must be two at least."""
        found = [self.conditions[self._another(number)] for number in samples.numbers]
        return Conditions.stack(found).to(self.accelerator.device)

    def _another(self, number: int) -> int:
        count = len(self.conditions)
        further = 1 + seed_of(self.settings.seed, "other", number) % (count - 1)
        return (shuffled_place(self.settings.seed, number, count) + further) % count

    def _conditions(self, number: int) -> Conditions:
        """The prompt of a sample: all prompts in one random order after another."""
        place = shuffled_place(self.settings.seed, number, len(self.conditions))
        return self.conditions[place]
