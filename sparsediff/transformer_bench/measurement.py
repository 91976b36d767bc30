"""Measuring a full-size model: build it, time its steps dense, then with sparse attention."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsediff.kernels.errors import SparseError
from sparsediff.layout import grid_of
from sparsediff.models import facts_of, self_attention
from sparsediff.search import AdaSpa
from sparsediff.token_size import Size
from sparsediff.transformer_bench import random_model
from sparsediff.transformer_bench.architectures import Architecture
from sparsediff.transformer_bench.denoising import Denoising, kinds_of
from sparsediff.transformer_bench.dense_kernel import fastest_dense
from sparsediff.transformer_bench.model_inputs import Inputs, model_inputs
from sparsediff.transformer_bench.phases import Plan, dense_steps, sparse_steps
from sparsediff.transformer_bench.result import ModelSize, TransformerResult
from sparsediff.transformer_bench.stopwatch import wait

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerCase:
    """What is measured.

    ``size`` (width, height, frames) in pixels; ``layers`` blocks to build, None for all; ``steps`` of
    the projected run; ``repeat`` timed steps of a kind at most. Raises SparseError for bad numbers.
    """

    architecture: Architecture
    size: Size
    layers: int | None = None
    density: float = 0.2
    block_size: int = 64
    steps: int = 50
    repeat: int = 3
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise SparseError(f"--repeat {self.repeat}: needs at least 1 round.")
        self.architecture.with_layers(self.layers)
        self.architecture.latents(self.size)
        kinds_of(self.method, self.steps)
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise SparseError("There is no CUDA device here; give --device cpu and a small --size.")

    @property
    def method(self) -> AdaSpa:
        """AdaSpa with its default schedule."""
        return AdaSpa(density=self.density, block_size=self.block_size)


def measure_transformer(
    case: TransformerCase, say: Progress = lambda text: None
) -> TransformerResult:
    """Build the model of `case` and time its steps; `say` hears what is under way.

    Kernels compile and choose themselves in a rehearsal of the first blocks, which is not timed.
    Raises SparseError when the model does not fit the device, or when a call that should have run
    sparse did not.
    """
    try:
        return _measured(case, say)
    except torch.OutOfMemoryError as error:
        where = f"{case.architecture.name} at {'x'.join(map(str, case.size))} on {case.device}"
        raise SparseError(
            f"Out of memory with {where}: give fewer blocks with --layers, or a smaller --size. "
            f"({str(error).split('. ')[0]}.)"
        ) from error


def _measured(case: TransformerCase, say: Progress) -> TransformerResult:
    device = torch.device(case.device)
    say("building the model")
    run, facts = _built(case, device)
    shape = (facts.batch, facts.tokens, facts.heads, facts.head_dim)
    kernel = fastest_dense(shape, device=device, dtype=case.dtype)
    peaks: dict[str, float] = {}
    plan = Plan(
        tokens=facts.tokens,
        calls=facts.layers * len(case.architecture.branches),
        repeat=case.repeat,
        device=device,
        say=say,
    )
    with _peak(peaks, "dense", device):
        dense = dense_steps(run, kernel, plan)
    with _peak(peaks, "sparse", device):
        times, report = sparse_steps(run, case.method, plan)
    return TransformerResult(
        model=facts,
        dense_kernel=kernel.name,
        dense_trials=kernel.trials,
        dense=dense,
        times=times,
        kinds=tuple(kinds_of(case.method, case.steps)),
        density=case.density,
        sparse_density=report.sparse_density,
        sparse_calls=report.sparse_calls,
        backends=report.backends,
        peak_gib=peaks or None,
    )


def _built(case: TransformerCase, device: torch.device) -> tuple[Denoising, ModelSize]:
    found, start = case.architecture, time.perf_counter()
    model = random_model.skeleton(found.model, found.with_layers(case.layers))
    random_model.fill(model, device=device, dtype=case.dtype)
    wait(device)
    seconds = time.perf_counter() - start
    inputs = model_inputs(found, case.size, device=device, dtype=case.dtype)
    run = Denoising(model, found, inputs, steps=case.steps)
    return run, _facts(case, model, inputs, seconds)


def _facts(case: TransformerCase, model: nn.Module, inputs: Inputs, seconds: float) -> ModelSize:
    known, found = facts_of(model), case.architecture
    if known is None:
        raise SparseError(f"{found.model} is not supported by sparse attention.")
    grid = grid_of(known.layout(model, inputs), None)
    if grid is None:
        raise SparseError(f"{case.size} leaves no token of {found.model}.")
    layers: list[Any] = list(self_attention(model, known).values())
    heads = int(layers[0].heads)
    return ModelSize(
        name=found.name,
        model=found.model,
        source=found.source,
        step=found.step,
        size=case.size,
        grid=(grid.frames, grid.height, grid.width),
        text_tokens=grid.text_tokens,
        tokens=grid.tokens,
        layers=len(layers),
        all_layers=found.layers,
        heads=heads,
        head_dim=int(layers[0].to_q.out_features) // heads,
        batch=found.batch,
        parameters=sum(p.numel() for p in model.parameters()),
        dtype=str(case.dtype).removeprefix("torch."),
        build_seconds=seconds,
    )


@contextmanager
def _peak(peaks: dict[str, float], phase: str, device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats(device)
    yield
    peaks[phase] = torch.cuda.max_memory_allocated(device) / 2**30
