"""PatternTrial: every candidate of every head, tried on the trajectory that the chosen ones make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sparsediff.search.call import AttentionCall
from sparsediff.search.method import Memory, Method
from sparsediff.search.offline.candidates import Row
from sparsediff.search.offline.sampled_steps import SampledSteps
from sparsediff.search.offline.trial_record import TrialRecord
from sparsediff.search.patterns.online_heads import OnlineHeads
from sparsediff.search.patterns.pattern import Full, Skip
from sparsediff.search.patterns.planned_layer import PlannedLayer
from sparsediff.search.schedule import Schedule, Step

# A head whose output varies less than this share of its layer's mean adds next to nothing to it, and
# its error is measured against that much: otherwise noise would be guarded as if it mattered.
_LEAST_VARIANCE = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTrials:
    """What to try in one layer: ``rows[bucket][candidate]`` patterns by head, and their ``costs``.

    ``costs`` float64 ``[s, c, h]``: share of the dense call's time. Row 0 is full attention.
    """

    rows: tuple[tuple[Row, ...], ...]
    costs: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PatternTrial(Method):
    """The search of Sparse-vDiT (§2.2) as a method: steps, layers and heads in the order of the run.

    At a sampled step every candidate runs, and its error is the mean squared difference from full
    attention over the variance of the head's full output. Each head goes on with the candidate of
    least mean error + ``price`` x cost, in the steps between as well, so that what comes later sees
    the sparse trajectory. The choice looks at this run only; ``record`` keeps all errors.
    """

    name: ClassVar[str] = "pattern-trial"

    trials: Mapping[int, LayerTrials] = field(repr=False)
    price: float
    density: float = 1.0
    steps: SampledSteps = field(default_factory=SampledSteps)
    record: TrialRecord = field(default_factory=TrialRecord, repr=False)
    refresh: tuple[float, ...] = (0.6,)

    @property
    def schedule(self) -> Schedule:
        """The warm-up that the plan will have, and the marks of online heads."""
        return Schedule(
            warmup=self.steps.starts[0], refresh=self.refresh, dense_layers=self.dense_layers
        )

    def attend(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Dense by the schedule; all candidates at a sampled step; else the chosen ones."""
        schedule = self.schedule
        if schedule.is_dense(call.step, call.depth):
            if call.depth < self.dense_layers or not schedule.is_last_dense(call.step):
                return call.dense()
            return self._last_dense(call, memory)
        bucket = self.steps.bucket(call.step)
        # The second model of Wan 2.2 may begin after the sampled steps of a bucket.
        if self.steps.is_sampled(call.step) or not self.record.has_seen(call.layer, bucket):
            return self._try_all(bucket, call, memory)
        return self._run(self._best(bucket, call), bucket, call, memory)

    def _last_dense(self, call: AttentionCall, memory: Memory) -> Tensor:
        """Online candidates are searched here, as those of a plan are; later steps find them stale."""
        after = Step(index=call.step.index + 1, total=call.step.total)
        bucket = self.steps.bucket(after)
        rows = self.trials[call.layer].rows[bucket]
        found = [OnlineHeads.of(row, call.grid, self.block_size) for row in rows]
        if not any(found):
            return call.dense()
        out, lse = call.dense_with_lse()
        for online in found:
            if online is not None:
                kept = memory.extra.setdefault("online", {})[online] = Memory(lse=lse)
                online.search(call, kept, bucket, self.schedule.marks(call.step))
        return out

    def _try_all(self, bucket: int, call: AttentionCall, memory: Memory) -> Tensor:
        """Run every candidate, keep for each head the output of the best so far."""
        trial = self.trials[call.layer]
        self.record.begin(call.layer, trial.costs)
        out = full = call.dense()
        scale = _variance(full)
        best = torch.full_like(scale, torch.inf)
        errors = []
        for candidate, row in enumerate(trial.rows[bucket]):
            found = full if candidate == 0 else self._run(row, bucket, call, memory)
            errors.append((_squared(found, full) / scale).cpu())
            mean = self.record.mean_with(call.layer, bucket, candidate, errors[-1])
            loss = (mean + self.price * trial.costs[bucket, candidate]).to(best.device)
            better = loss < best
            out = torch.where(better[:, None], found, out)
            best = torch.where(better, loss, best)
        self.record.add(call.layer, bucket, torch.stack(errors))
        return out

    def _choice(self, bucket: int, layer: int) -> Tensor:
        """The candidate of least loss for every head: int64 ``[h]``."""
        mean = self.record.mean(layer, bucket)
        return (mean + self.price * self.trials[layer].costs[bucket]).argmin(dim=0)

    def _best(self, bucket: int, call: AttentionCall) -> Row:
        rows = self.trials[call.layer].rows[bucket]
        chosen = self._choice(bucket, call.layer).tolist()
        return tuple(rows[best][head] for head, best in enumerate(chosen))

    def _run(self, row: Row, bucket: int, call: AttentionCall, memory: Memory) -> Tensor:
        if all(isinstance(pattern, Full) for pattern in row):
            return call.dense()
        if all(isinstance(pattern, Skip) for pattern in row):
            return torch.zeros_like(call.q)
        layer = PlannedLayer.of(row, call.grid, self.block_size, call.q.device)
        kept = memory if layer.online is None else self._searched(layer.online, memory)
        marks = self.schedule.marks(call.step)
        return layer.run(call, kept, bucket=bucket, marks=marks, compensate=self.compensate)

    @staticmethod
    def _searched(online: OnlineHeads, memory: Memory) -> Memory:
        """A memory per set of online heads, all with the first one's log-sum-exp."""
        kept: dict[OnlineHeads, Memory] = memory.extra.setdefault("online", {})
        if online not in kept:
            kept[online] = Memory(lse=next((m.lse for m in kept.values()), None))
        return kept[online]


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of every head: ``[b, s, h, d]`` to float64 ``[h]``."""
    return (a.float() - b.float()).square().mean(dim=(0, 1, 3)).double()


def _variance(out: Tensor) -> Tensor:
    """Variance of every head's output, float64 ``[h]``, no less than a share of the layer's mean."""
    found = out.float().var(dim=(0, 1, 3), unbiased=False).double()
    return found.clamp(min=max(_LEAST_VARIANCE * float(found.mean()), 1e-30))
