"""Conditions: what a model is told besides noise and timestep, recorded from its pipeline's own call.

So every pipeline is understood alike: prompts, pooled embeddings, positions and guidance embeddings
come as the pipeline makes them, and nothing here knows a family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsediff.distill.recording.tree import Tree, joined, leaves, selected


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Conditions:
    """The keyword arguments of a batch of prompts: with the prompt, and without for guidance.

    ``negative`` is None where the pipeline makes no second prediction. ``batched`` names the leaves
    whose first dimension is the batch.
    """

    positive: Mapping[str, Tree]
    negative: Mapping[str, Tree] | None
    batched: frozenset[str]

    def select(self, items: Tensor) -> Conditions:
        """Those of some items ``[n]`` of the batch, repeated where an item is named twice."""
        return self._each(lambda side: selected(side, items, self.batched))

    def to(self, device: torch.device | str) -> Conditions:
        """The same on a device."""
        return self._each(lambda side: joined([side], frozenset(), device=device))

    def _each(self, change: Callable[[Any], Any]) -> Conditions:
        return Conditions(
            positive=change(self.positive),
            negative=None if self.negative is None else change(self.negative),
            batched=self.batched,
        )

    @classmethod
    def of_batch(cls, told: Mapping[str, Tree]) -> Conditions:
        """A model's arguments at hand, every tensor having the batch first, without a negative side."""
        return cls(positive=dict(told), negative=None, batched=frozenset(leaves(told)))

    @classmethod
    def stack(cls, several: Sequence[Conditions]) -> Conditions:
        """One batch of several; SparseError when their shapes differ."""
        first = several[0]

        def side(name: str) -> Any:
            return joined([getattr(one, name) for one in several], first.batched)

        negative = None if first.negative is None else side("negative")
        return cls(positive=side("positive"), negative=negative, batched=first.batched)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Inputs:
    """How a pipeline calls its model: shape ``[...]`` of one sample, what the timestep is told in.

    ``noisy_name`` and ``time_name`` are the model's own names of the two; the model is told the
    scheduler's timestep times ``time_scale`` plus ``time_offset``, once for each of ``time_shape``
    (Wan 2.2 5B: for each token), and the noise in ``dtype``. Its output times ``sign`` is what the
    scheduler gets.
    """

    shape: tuple[int, ...]
    noisy_name: str
    time_name: str
    time_scale: float
    time_offset: float = 0.0
    time_shape: tuple[int, ...] = ()
    sign: int = 1
    dtype: torch.dtype = torch.float32
