"""TransformerResult: the measured times of a model's steps, and the run they add up to."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from sparsediff.bench import spread
from sparsediff.token_size import Size
from sparsediff.transformer_bench.denoising import Kind, StepTime

STEADY = 1.1  # what the same work may differ by on a quiet machine
NOTE = "Random weights: these figures are about speed and say nothing about quality."


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimes:
    """The rounds of one kind of step."""

    rounds: tuple[StepTime, ...]

    @property
    def seconds(self) -> float:
        """Median time of a step."""
        return statistics.median(found.seconds for found in self.rounds)

    @property
    def iqr(self) -> float:
        """Range of the middle half of the times, in seconds."""
        return spread([found.seconds for found in self.rounds])

    @property
    def attention(self) -> float:
        """Median time that a step spends in self-attention, search included."""
        return statistics.median(found.attention for found in self.rounds)

    @property
    def attention_share(self) -> float:
        """Part of a step that is self-attention."""
        return self.attention / self.seconds

    @property
    def rest(self) -> float:
        """Seconds of a step outside of self-attention: the same work in every kind of step."""
        return self.seconds - self.attention

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            "seconds": self.seconds,
            "iqr": self.iqr,
            "attention_seconds": self.attention,
            "attention_share": self.attention_share,
            "rounds": [asdict(found) for found in self.rounds],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSize:
    """What was built and for which size; ``layers`` are the built ones, ``all_layers`` the model's."""

    name: str
    model: str
    source: str
    step: str
    size: Size
    grid: tuple[int, int, int]
    text_tokens: int
    tokens: int
    layers: int
    all_layers: int
    heads: int
    head_dim: int
    batch: int
    parameters: int
    dtype: str
    build_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerResult:
    """Everything one run of the benchmark found.

    ``dense`` without the plug-in, ``kinds`` what the plug-in did, of which each kind was timed in
    ``times``; ``peak_gib`` largest memory in use by phase, None where the device does not say.
    ``density`` as asked for, ``sparse_density`` as measured over all block pairs, text included.
    """

    model: ModelSize
    dense_kernel: str
    dense_trials: dict[str, float]
    dense: StepTimes
    times: dict[Kind, StepTimes]
    kinds: tuple[Kind, ...]
    density: float
    sparse_density: float
    sparse_calls: int
    backends: dict[str, int]
    peak_gib: dict[str, float] | None

    @property
    def counts(self) -> dict[str, int]:
        """Steps of each kind in the projected run."""
        return dict(Counter(self.kinds))

    @property
    def projected_dense(self) -> float:
        """Seconds of the whole run, dense."""
        return self.dense.seconds * len(self.kinds)

    @property
    def projected(self) -> float:
        """Seconds of the whole run: the time of every kind of step, times how many there are."""
        times: dict[Kind, StepTimes] = {"dense": self.dense, **self.times}
        return sum(times[kind].seconds for kind in self.kinds)

    @property
    def step_speedup(self) -> float:
        """A dense step over a sparse one that searches nothing."""
        return self.dense.seconds / self.times["sparse"].seconds

    @property
    def attention_speedup(self) -> float:
        """The same of their self-attention alone."""
        return self.dense.attention / self.times["sparse"].attention

    @property
    def unsteady(self) -> float:
        """The longest of the steps' other work over the shortest; 1 on a quiet machine.

        Above `STEADY` the machine was busy with something else, and the ratios of the steps with it.
        """
        rests = [found.rest for found in (self.dense, *self.times.values())]
        return max(rests) / min(rests)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            **asdict(self.model),
            "note": NOTE,
            "density": self.density,
            "sparse_density": self.sparse_density,
            "dense_kernel": self.dense_kernel,
            "dense_trials": self.dense_trials,
            "steps": {
                "dense": self.dense.to_dict(),
                **{kind: found.to_dict() for kind, found in self.times.items()},
            },
            "step_speedup": self.step_speedup,
            "attention_speedup": self.attention_speedup,
            "unsteady": self.unsteady,
            "sparse_calls": self.sparse_calls,
            "backends": self.backends,
            "peak_gib": self.peak_gib,
            "projected": {
                "steps": len(self.kinds),
                "counts": self.counts,
                "dense_seconds": self.projected_dense,
                "seconds": self.projected,
                "speedup": self.projected_dense / self.projected,
            },
        }
