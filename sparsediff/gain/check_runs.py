"""The outlook of whole denoising runs against the pipeline itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from time import perf_counter

import torch

from sparsediff.api import sparse_attention
from sparsediff.estimate import ModelEstimate, estimate
from sparsediff.gain.check import CheckedGain, Clock
from sparsediff.gain.outlook import (
    Outlook,
    attention_share,
    model_case,
    model_grid,
    torch_attention,
)
from sparsediff.gain.prediction import predict
from sparsediff.gain.trial import GainTrial
from sparsediff.generation import GenerationRecipe
from sparsediff.kernels.errors import SparseError
from sparsediff.kernels.turns import aside
from sparsediff.loading import load_pipeline, resolve_dtype
from sparsediff.model_files import ModelFiles
from sparsediff.search import AdaSpa, Method
from sparsediff.timed_run import Runner
from sparsediff.token_size import Size


def check_runs(
    model: str,
    sizes: Sequence[Size],
    densities: Sequence[float],
    *,
    device: str,
    repeat: int,
    clock: Clock = perf_counter,
) -> Iterator[CheckedGain]:
    """Whole calls of `model` at each size, not decoded, dense and with AdaSpa in turns, gate off.

    Raises SparseError where nothing can be timed, and what generating raises.
    """
    files = ModelFiles(name=model)
    recipe = GenerationRecipe.of(files)
    dtype = resolve_dtype(None, recipe, device)
    pipe = load_pipeline(files, dtype=dtype, device=device)
    for size in sizes:
        width, height, frames = size
        sized = recipe.with_call(width=width, height=height, num_frames=frames)
        runner = Runner(pipe, sized, prompt=recipe.prompt, seed=0, device=device)
        for density in densities:
            figures = estimate(files, size=size, density=density, dtype=dtype)
            method = AdaSpa(density=density)
            found = _predicted(figures, method, torch.device(device), clock)
            _seconds(runner, None, clock, steps=2)
            _seconds(runner, method, clock, steps=2)
            turns = [
                (_seconds(runner, None, clock), _seconds(runner, method, clock))
                for _ in range(repeat)
            ]
            yield CheckedGain(
                kind="run",
                shape=f"{model} at {'x'.join(map(str, size))}, {dtype}",
                tokens=figures.tokens,
                density=found.prediction.density,
                steps=figures.steps,
                predicted=1 / found.speedup,
                ratio=min(own for _, own in turns) / min(dense for dense, _ in turns),
                runs=tuple(own / dense for dense, own in turns),
            )


def _predicted(
    figures: ModelEstimate, method: Method, device: torch.device, clock: Clock
) -> Outlook:
    """What doctor would say, from times measured anew by `clock` and not kept."""
    case, grid = model_case(figures, method, device), model_grid(figures)
    reason = case.untimed()
    if reason is not None:
        raise SparseError(f"Nothing can be predicted here: {reason}.")
    times = aside(partial(GainTrial.of(case, torch_attention).times, clock))
    density = method.computed_density(grid)
    return Outlook(
        prediction=predict(case, times, method, density=density, steps=figures.steps),
        attention_share=attention_share(case, figures, clock),
        break_even=None,
    )


def _seconds(
    runner: Runner, method: Method | None, clock: Clock, *, steps: int | None = None
) -> float:
    """One call of the pipeline, dense without a method; its denoising loop alone by the usual clock."""
    started = clock()
    if method is None:
        run = runner.run(decode=False, steps=steps)
    else:
        with sparse_attention(runner.pipe, method, gate=False):
            run = runner.run(decode=False, steps=steps)
    return run.seconds if clock is perf_counter else clock() - started
