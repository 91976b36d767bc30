"""The second pass: candidates fitted to all profiles, tried on every prompt's sparse trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.api import sparse_attention
from sparsediff.pattern_search.costs import Shape
from sparsediff.pattern_search.options import SearchOptions
from sparsediff.pattern_search.profiles import Profiles, require_layers
from sparsediff.pattern_search.units import Statistics, Units
from sparsediff.search.offline.candidates import Row, candidates, densities
from sparsediff.search.offline.choice import Chooser, LayerChoices
from sparsediff.search.offline.cost import Cost
from sparsediff.search.offline.trial import LayerTrials, PatternTrial
from sparsediff.search.offline.trial_record import TrialRecord
from sparsediff.search.patterns.pattern import MODES, MultiDiagonal, Pattern
from sparsediff.timed_run import Runner

STAGE, PILOT = "trial", "pilot"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LayerCandidates:
    """What is tried in one layer: ``rows[bucket][candidate]``; float64 ``[s, c, h]`` figures of them.

    ``source[bucket]``: the bucket whose measurements hold, another one where no step falls into it.
    """

    rows: tuple[tuple[Row, ...], ...]
    costs: Tensor
    densities: Tensor
    source: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """What is tried in every layer of the model, and the ``steps`` that every bucket has."""

    layers: tuple[LayerCandidates, ...]
    steps: tuple[int, ...]

    @classmethod
    def of(
        cls,
        profiles: Profiles,
        shapes: Sequence[Shape],
        costs: Mapping[Shape, Cost],
        options: SearchOptions,
    ) -> Candidates:
        """Fitted to the profiles; the same whatever process does it."""
        layers = []
        for layer, shape in enumerate(shapes):
            profile = profiles.record.layers[layer]
            source = _sources(profile.calls)
            known = {
                bucket: tuple(
                    candidates(
                        profile, bucket, profiles.grid, options.block_size, options.candidates
                    )
                )
                for bucket in set(source)
            }
            rows = tuple(known[bucket] for bucket in source)
            share = torch.stack([densities(row, profiles.grid, options.block_size) for row in rows])
            layers.append(
                LayerCandidates(
                    rows=rows,
                    costs=_costs(rows, share, costs[shape]),
                    densities=share,
                    source=source,
                )
            )
        return cls(layers=tuple(layers), steps=tuple(options.steps.steps(profiles.steps)))

    def trials(self) -> dict[int, LayerTrials]:
        """As `PatternTrial` takes them."""
        return {
            number: LayerTrials(rows=layer.rows, costs=layer.costs)
            for number, layer in enumerate(self.layers)
        }

    def chooser(self, record: TrialRecord) -> Chooser:
        """Chooses by the mean errors of a record."""
        layers = [
            LayerChoices(
                rows=layer.rows,
                errors=torch.stack([record.mean(number, bucket) for bucket in layer.source]),
                costs=layer.costs,
                densities=layer.densities,
            )
            for number, layer in enumerate(self.layers)
        ]
        return Chooser(layers, self.steps)


def trial(
    runner: Runner, options: SearchOptions, found: Candidates, *, price: float, backend: str
) -> Statistics:
    """The unit of one prompt: the sums of the errors along the trajectory of the choices at `price`.

    A price of 0 chooses full attention, so that the trajectory is the dense one.
    """
    record = TrialRecord()
    method = PatternTrial(
        trials=found.trials(),
        price=price,
        steps=options.steps,
        block_size=options.block_size,
        compensate=options.compensate,
        record=record,
    )
    with sparse_attention(runner.pipe, method, backend=backend, gate=False) as session:
        runner.run(decode=False)
    require_layers(session, len(found.layers), list(record.errors))
    return record.state()


def total_record(units: Units, stage: str, prompts: Sequence[int]) -> TrialRecord:
    """The sums over prompts, in their order, so that nothing depends on who did which."""
    return TrialRecord.total(
        [TrialRecord.from_state(units.load(stage, prompt)) for prompt in prompts]
    )


def _sources(calls: Tensor) -> tuple[int, ...]:
    """For every bucket the nearest one that had a call: a short run skips some, so does Wan 2.2."""
    seen = [bucket for bucket, count in enumerate(calls.tolist()) if count]
    return tuple(min(seen, key=lambda s: abs(s - bucket)) for bucket in range(len(calls)))


def _costs(rows: Sequence[Sequence[Row]], shares: Tensor, cost: Cost) -> Tensor:
    """Cost of every pattern, ``[s, c, h]``."""
    known: dict[Pattern, float] = {}
    for bucket, per_bucket in enumerate(rows):
        for candidate, row in enumerate(per_bucket):
            for head, pattern in enumerate(row):
                if pattern not in known:
                    known[pattern] = cost.share(
                        MODES[type(pattern)],
                        float(shares[bucket, candidate, head]),
                        by_place=isinstance(pattern, MultiDiagonal) and pattern.by_place,
                    )
    return torch.tensor(
        [[[known[pattern] for pattern in row] for row in bucket] for bucket in rows],
        dtype=torch.float64,
    )
