"""Probes: what a plan gives in a run, for budgets that ask for a PSNR or a speed."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from statistics import median

import torch
from torch import Tensor

from sparsediff.api import sparse_attention
from sparsediff.kernels.errors import SparseError
from sparsediff.pattern_search.profiles import as_bytes, dense_frames
from sparsediff.pattern_search.units import Statistics, Units
from sparsediff.quality import psnr
from sparsediff.search import PatternTable, SparseVDiT
from sparsediff.timed_run import Runner

PROMPTS = 4  # at most, whose videos are compared
_TURNS = 3
_WARM_UP_STEPS = 2


def stage_of(kind: str, table: PatternTable) -> str:
    """Name of the stage of a table's probes: another one for any other table."""
    return f"{kind}-{sha256(repr(table).encode()).hexdigest()[:12]}"


def psnr_probe(
    runner: Runner,
    units: Units,
    prompt: int,
    method: SparseVDiT,
    backend: str,
    *,
    keep_frames: bool = False,
) -> Statistics:
    """PSNR of one prompt against its dense video, both as written: 8 bits a value.

    With `keep_frames` also the video, uint8 ``[f, h, w, c]``.
    """
    with sparse_attention(runner.pipe, method, backend=backend, gate=False):
        frames = runner.run().frames
    if frames is None:
        raise SparseError("The pipeline returned no frames.")
    shown = as_bytes(frames)
    found = psnr(dense_frames(units, prompt), shown.float() / 255)
    kept = {"frames": shown} if keep_frames else {}
    return {"psnr": torch.tensor(found, dtype=torch.float64), **kept}


def planned_frames(units: Units, table: PatternTable, prompt: int) -> Tensor:
    """The kept video of a prompt with the plan of a table: float ``[f, h, w, c]`` in [0, 1].

    Raises KeyError where none was kept.
    """
    stage = stage_of("psnr", table)
    if prompt not in units.done(stage):
        raise KeyError("frames")
    return units.load(stage, prompt, only=("frames",))["frames"].float() / 255


def speed_probe(runner: Runner, method: SparseVDiT, backend: str) -> Statistics:
    """Seconds of the denoising loop, dense and sparse in turns after a short run of each."""
    _sparse_seconds(runner, method, backend, steps=_WARM_UP_STEPS)
    runner.run(decode=False, steps=_WARM_UP_STEPS)
    dense, sparse = [], []
    for _ in range(_TURNS):
        dense.append(runner.run(decode=False).seconds)
        sparse.append(_sparse_seconds(runner, method, backend))
    return {"dense": torch.tensor(dense).double(), "sparse": torch.tensor(sparse).double()}


def mean_psnr(units: Units, stage: str, prompts: Sequence[int]) -> float:
    """Mean over the prompts, in dB; infinite when all videos equal the dense ones."""
    found = [float(units.load(stage, prompt, only=("psnr",))["psnr"]) for prompt in prompts]
    return sum(found) / len(found)


def speedup(units: Units, stage: str, prompt: int) -> float:
    """Median of the ratios of dense to sparse time, turn by turn."""
    times = units.load(stage, prompt)
    return float(median((times["dense"] / times["sparse"]).tolist()))


def _sparse_seconds(
    runner: Runner, method: SparseVDiT, backend: str, *, steps: int | None = None
) -> float:
    with sparse_attention(runner.pipe, method, backend=backend, gate=False):
        return runner.run(decode=False, steps=steps).seconds
