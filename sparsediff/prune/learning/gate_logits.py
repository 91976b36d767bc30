"""GateLogits: one logit for every unit, and the gates that a sample draws from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.prune.learning.settings import LearnSettings
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import Structure


class GateLogits(nn.Module):
    """All that is trained: fp32 logits, ``[units]`` for each structure."""

    def __init__(self, structures: Sequence[Structure], settings: LearnSettings) -> None:
        super().__init__()
        self.keys = [one.key for one in structures]
        self.kinds = [one.kind for one in structures]
        self.units = [one.units for one in structures]
        self.settings, self.relaxation = settings, settings.relaxation
        start = settings.initial_logit
        self.logits = nn.ParameterList(torch.full((units,), start) for units in self.units)

    def forward(self, numbers: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Gates ``[b, units]`` by key for samples of these numbers, and the penalty, a scalar.

        Every sample draws once, for all steps of its chain, from a seed that is its own.
        """
        draws = Draws([seed_of(self.settings.seed, "gates", number) for number in numbers])
        drawn = draws.uniforms(sum(self.units)).to(self.logits[0].device)
        parts = zip(self.keys, self.logits, drawn.split(self.units, dim=1), strict=True)
        gates = {key: self.relaxation.gates(logits, uniform) for key, logits, uniform in parts}
        return gates, self._penalty()

    def named(self) -> dict[str, nn.Parameter]:
        """The logits by structure's key."""
        return dict(zip(self.keys, self.logits, strict=True))

    @torch.no_grad()
    def start_from(self, scores: Scores) -> None:
        """Logits by the units' ranks among those of their kind, evenly spread about initial_logit."""
        first, spread = self.settings.initial_logit, self.settings.start_spread
        for kind in dict.fromkeys(self.kinds):
            keys = [key for key, of in zip(self.keys, self.kinds, strict=True) if of == kind]
            ranked = ranks(torch.cat([scores.values[key] for key in keys]))
            logits = first + spread * (ranked - 0.5)
            sizes = [len(scores.values[key]) for key in keys]
            for key, part in zip(keys, logits.split(sizes), strict=True):
                self.named()[key].copy_(part)

    def scores(self) -> Scores:
        """The logits as scores: units that the chain could do without have been driven down."""
        return Scores(values={key: logits.detach().clone() for key, logits in self.named().items()})

    @torch.no_grad()
    def densities(self) -> dict[str, float]:
        """By kind, the expected share of units that stay."""
        found: dict[str, float] = {}
        for kind in dict.fromkeys(self.kinds):
            logits = [one for one, of in zip(self.logits, self.kinds, strict=True) if of == kind]
            found[kind] = float(self.relaxation.expected_l0(torch.cat(logits)).mean())
        return found

    def _penalty(self) -> Tensor:
        """The mean over the layers of each kind, summed over the kinds."""
        total: Tensor = self.logits[0].new_zeros(())
        for kind in dict.fromkeys(self.kinds):
            layers = [
                self.relaxation.penalty(logits, self.settings.regulariser)
                for logits, of in zip(self.logits, self.kinds, strict=True)
                if of == kind
            ]
            total = total + torch.stack(layers).mean()
        return total


def ranks(values: Tensor) -> Tensor:
    """From 0, the lowest, to 1: fp32 ``[units]``; the first of equal ones is higher, one alone 1/2."""
    order = values.argsort(descending=True, stable=True).argsort()
    most = len(values) - 1
    return 1 - order.float() / most if most else torch.full_like(values, 0.5)
