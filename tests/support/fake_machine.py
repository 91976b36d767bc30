"""A machine whose kernels take the times that a test says: no decision depends on a clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsediff.gain.case import GainCase
from sparsediff.gain.times import AttentionTimes
from sparsediff.gain.trial import GainTrial
from sparsediff.search.offline.cost_curves import Curve


@dataclass
class Machine:
    """What a trial would find; ``setup`` is what a sparse call costs beside its share of blocks."""

    setup: float = 0.0
    setups: dict[int, float] = field(default_factory=dict)  # at certain lengths another one
    trials: list[GainCase] = field(default_factory=list)
    error: Exception | None = None

    def times(self, trial: GainTrial) -> AttentionTimes:
        if self.error is not None:
            raise self.error
        self.trials.append(trial.case)
        setup = self.setups.get(trial.case.tokens, self.setup)
        return AttentionTimes(
            dense_seconds=0.5,
            sparse=Curve(points=((0.1, setup + 0.1), (1.0, setup + 1.0))),
            dense_with_lse=1.1,
            mass=0.4,
            choice=0.05,
            probe=0.06,
            joined=0.03,
        )
