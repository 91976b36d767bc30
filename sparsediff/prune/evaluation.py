"""What masks cost: the denoising loss of a masked model, and how far it is from the dense one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.grid import StepGrid
from sparsediff.distill.noise import Level
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.distill.sample_chain import sample_chain
from sparsediff.distill.tdm_loss import guided
from sparsediff.distill.trajectory import step_down
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.gates import gated
from sparsediff.prune.masks import Masks
from sparsediff.prune.structures import Structure

# Shares of the way to pure noise: away from both ends, where nothing is asked or nothing known.
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Mean squares per number of the model's output: of its distance from a perfect output
    (``loss``; ``dense``, that of the whole model) and from the whole model's (``distance``)."""

    loss: float
    dense: float
    distance: float


@torch.no_grad()
def evaluated(
    denoiser: Denoiser,
    structures: Sequence[Structure],
    masks: Mapping[str, Masks],
    conditions: Sequence[Conditions],
    clean: Tensor,
    *,
    times: Sequence[float] = TIMES,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Every masked model and the dense one on the same noisy samples; nothing is cut.

    ``clean`` ``[n, ...]``: a sample for each of the n ``conditions``, in the model's own space; real
    ones, or `own_samples`. Each is mixed with its own noise, which follows from ``seed`` and its
    number, at each of ``times`` in 0..1, 1 being pure noise. Raises SparseError where masks do not
    fit, and for other numbers of samples than conditions.
    """
    if len(clean) != len(conditions) or not conditions or not times:
        raise SparseError(
            f"{len(clean)} clean samples, {len(conditions)} conditions and {len(times)} times: needs "
            f"as many samples as conditions, and at least one of each."
        )
    for one in masks.values():
        one.check(structures)
    values = {n: {k: kept.float() for k, kept in one.kept.items()} for n, one in masks.items()}
    losses = dict.fromkeys(masks, 0.0)
    distances = dict.fromkeys(masks, 0.0)
    whole = 0.0
    for number, told in enumerate(conditions):
        for time in times:
            x, level, target = _noisy(denoiser, clean[number : number + 1], time, seed, number)
            dense = denoiser.output(x, level, told).float()
            whole += _apart(dense, target)
            for name, value in values.items():
                with gated(denoiser.model, structures, value):
                    output = denoiser.output(x, level, told).float()
                losses[name] += _apart(output, target)
                distances[name] += _apart(output, dense)
    n = len(conditions) * len(times)
    return {
        name: Evaluation(loss=losses[name] / n, dense=whole / n, distance=distances[name] / n)
        for name in masks
    }


@torch.no_grad()
def own_samples(
    denoiser: Denoiser,
    conditions: Sequence[Conditions],
    grid: StepGrid,
    *,
    guidance: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """What the model itself makes of conditions, fp32 ``[n, ...]``, where there are no real samples."""
    made = []
    for number, told in enumerate(conditions):

        def denoise(x: Tensor, level: Level, told: Conditions = told) -> tuple[Tensor, Tensor]:
            sides = denoiser(x, level, told)
            if told.negative is None or guidance == 1:
                return sides
            other = denoiser(x, level, told, negative=True)
            clean, noise = (guided(a, b, guidance) for a, b in zip(sides, other, strict=True))
            return clean, noise

        start = _drawn(denoiser, "samples", seed, number)
        made.append(sample_chain(denoise, denoiser.levels, grid, start))
    return torch.cat(made)


def _noisy(
    denoiser: Denoiser, clean: Tensor, time: float, seed: int, number: int
) -> tuple[Tensor, Level, Tensor]:
    """A noisy sample, its level and the output of a perfect model."""
    levels = denoiser.levels
    level = levels.at(torch.tensor([time * levels.steps], device=clean.device))
    noise = _drawn(denoiser, "noise", seed, number).to(clean.device)
    return step_down(clean, noise, level, 0.0, noise), level, levels.target(clean, noise, level)


def _drawn(denoiser: Denoiser, what: str, seed: int, number: int) -> Tensor:
    """Standard noise of one sample, on the model's device."""
    device = next(denoiser.model.parameters()).device
    draws = Draws([seed_of("evaluation", what, seed, number)])
    return draws.normal(torch.empty((1, *denoiser.inputs.shape), device=device))


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean())
