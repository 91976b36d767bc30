"""What `sparsediff prune` shows of a model before and after: the same seed, timed in turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsediff.generation_result import Timing
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.pruning_result import Sample
from sparsediff.timed_run import Runner, TimedRun


def sample(
    runner: Runner, models: tuple[Mapping[str, Any], Mapping[str, Any]], repeat: int
) -> Sample:
    """Both models in turns, so that a machine that slows down slows both."""
    runs: tuple[list[TimedRun], list[TimedRun]] = ([], [])
    for model in models:  # what is made at the first call is no part of the time
        runner.pipe.register_modules(**model)
        runner.run(steps=1, decode=False)
    for number in range(repeat):
        for done, model in zip(runs, models, strict=True):
            runner.pipe.register_modules(**model)
            done.append(runner.run(decode=number == 0))
    (before, after) = (Timing(seconds=tuple(run.seconds for run in done)) for done in runs)
    dense, pruned = runs[0][0].frames, runs[1][0].frames
    if dense is None or pruned is None:
        raise SparseError("Nothing was decoded; please report this.")
    return Sample(
        prompt=runner.prompt,
        seed=runner.seed,
        dense=dense,
        pruned=pruned,
        dense_time=before,
        pruned_time=after,
    )
