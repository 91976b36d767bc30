"""TrialRecord: the errors of every candidate of every head, summed over the calls of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(kw_only=True, slots=True)
class TrialRecord:
    """What `PatternTrial` fills: sums of errors ``[s, c, h]`` by layer, and calls ``[s]``."""

    errors: dict[int, Tensor] = field(default_factory=dict)
    calls: dict[int, Tensor] = field(default_factory=dict)

    def begin(self, layer: int, like: Tensor) -> None:
        """Zeros for a layer that was not seen before, of the shape ``[s, c, h]`` of `like`."""
        if layer not in self.errors:
            self.errors[layer] = torch.zeros_like(like, dtype=torch.float64)
            self.calls[layer] = torch.zeros(len(like), dtype=torch.float64)

    def has_seen(self, layer: int, bucket: int) -> bool:
        """Whether a call of that layer was tried in that bucket."""
        return layer in self.calls and bool(self.calls[layer][bucket] > 0)

    def add(self, layer: int, bucket: int, errors: Tensor) -> None:
        """Add one call's errors ``[c, h]``."""
        self.errors[layer][bucket] += errors
        self.calls[layer][bucket] += 1

    def mean_with(self, layer: int, bucket: int, candidate: int, error: Tensor) -> Tensor:
        """Mean error of a candidate over the calls so far and one more: ``[h]``."""
        return (self.errors[layer][bucket, candidate] + error) / (self.calls[layer][bucket] + 1)

    def mean(self, layer: int, bucket: int) -> Tensor:
        """Mean error of the calls so far: ``[c, h]``."""
        return self.errors[layer][bucket] / self.calls[layer][bucket].clamp(min=1)

    def state(self) -> dict[str, Tensor]:
        """All tensors by name, to be written to a file."""
        named = {f"{layer}.errors": errors for layer, errors in sorted(self.errors.items())}
        return named | {f"{layer}.calls": calls for layer, calls in sorted(self.calls.items())}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> TrialRecord:
        """The record that `state` was made of."""
        parts = {name: name.partition(".")[::2] for name in state}
        return cls(
            errors={int(layer): state[n] for n, (layer, kind) in parts.items() if kind == "errors"},
            calls={int(layer): state[n] for n, (layer, kind) in parts.items() if kind == "calls"},
        )

    @classmethod
    def total(cls, records: Sequence[TrialRecord]) -> TrialRecord:
        """The sum over several runs, in their order."""
        layers = records[0].errors
        return cls(
            errors={n: torch.stack([r.errors[n] for r in records]).sum(dim=0) for n in layers},
            calls={n: torch.stack([r.calls[n] for r in records]).sum(dim=0) for n in layers},
        )
