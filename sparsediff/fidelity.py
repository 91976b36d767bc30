"""Fidelity: how close sparse videos stay to the dense ones, over prompts, methods and densities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from torch import Tensor

from sparsediff.api import sparse_attention
from sparsediff.kernels.errors import SparseError
from sparsediff.quality import quality
from sparsediff.search import AdaSpa, BladeASA, Method, RandomBlocks, TrueMass, Window
from sparsediff.timed_run import Runner

GLOBAL_WINDOW = 30  # of the authors' code for Wan
WARMUP = 0.2  # the same dense steps for every method: the first ones settle most of the video

SELECTIONS: dict[str, Method] = {
    "random blocks": RandomBlocks(warmup=WARMUP),
    "window": Window(warmup=WARMUP),
    "window in time": Window(warmup=WARMUP, temporal=True),
    "AdaSpa, equal heads": AdaSpa(warmup=WARMUP, head_budgets=False),
    "AdaSpa": AdaSpa(warmup=WARMUP),
    "true mass, every step": TrueMass(warmup=WARMUP),
    "AdaSpa, equal heads + compensation": AdaSpa(
        warmup=WARMUP, head_budgets=False, compensate=True
    ),
    "AdaSpa + compensation": AdaSpa(warmup=WARMUP, compensate=True),
    "BladeASA": BladeASA(warmup=WARMUP),
    "BladeASA + global tokens": BladeASA(warmup=WARMUP, global_window=GLOBAL_WINDOW),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FidelityRow:
    """One method at one density: PSNR (dB) and SSIM against dense for every prompt."""

    name: str
    density: float
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    realised: tuple[float, ...] = field(default=())

    @property
    def mean_psnr(self) -> float:
        """Mean PSNR over the prompts, in dB."""
        return sum(self.psnr) / len(self.psnr)

    @property
    def mean_ssim(self) -> float:
        """Mean SSIM over the prompts."""
        return sum(self.ssim) / len(self.ssim)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; the PSNR of identical videos, infinity, is null."""
        return {
            "name": self.name,
            "density": self.density,
            "psnr": [value if isfinite(value) else None for value in self.psnr],
            "ssim": list(self.ssim),
            "realised_density": list(self.realised),
        }


def measure_fidelity(
    runner_for: Callable[[str, int], Runner],
    prompts: Sequence[str],
    densities: Iterable[float],
    *,
    selections: Mapping[str, Method] = SELECTIONS,
    planned: Mapping[tuple[str, float], Method] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[FidelityRow]:
    """Generate every prompt dense once, then with every method at every density from the same noise.

    `runner_for` makes a Runner from a prompt and a seed; prompt number i uses seed i. `planned`:
    methods whose density is fixed, by name and the density that they are compared at. Raises
    SparseError when a run that was to be sparse was not.
    """
    runners = [runner_for(prompt, seed) for seed, prompt in enumerate(prompts)]
    references = []
    for number, runner in enumerate(runners):
        progress(f"dense {number + 1}/{len(runners)}")
        references.append(_frames(runner))
    fixed = []
    for (name, density), method in (planned or {}).items():  # first: they may not fit the size
        progress(f"{name}, density {density}")
        fixed.append(_row(name, density, method, runners, references))
    rows = []
    for density in densities:
        for name, method in selections.items():
            progress(f"{name}, density {density}")
            chosen = method.with_options(density=density)
            rows.append(_row(name, density, chosen, runners, references))
    return rows + fixed


def _row(
    name: str,
    density: float,
    method: Method,
    runners: Sequence[Runner],
    references: Sequence[Tensor],
) -> FidelityRow:
    psnr, ssim, realised = [], [], []
    for runner, reference in zip(runners, references, strict=True):
        with sparse_attention(runner.pipe, method, gate=False) as session:
            frames = _frames(runner)
            report = session.report()
        if not report.sparse_calls or report.fallbacks:
            raise SparseError(f"{name} did not run sparse: {report}")
        result = quality(reference, frames)
        psnr.append(result.psnr)
        ssim.append(result.ssim)
        realised.append(report.sparse_density)
    return FidelityRow(
        name=name,
        density=density,
        psnr=tuple(psnr),
        ssim=tuple(ssim),
        realised=tuple(realised),
    )


def _frames(runner: Runner) -> Tensor:
    frames = runner.run().frames
    if frames is None:
        raise SparseError("The pipeline returned no frames.")
    return frames
