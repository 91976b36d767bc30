"""Distances between sets of videos of the same prompts, with the error that few prompts leave.

Sets are features `[videos, features]`, in the same order of prompts. Errors are of the jackknife: what
the figure would be without one prompt, for each; no random draw is in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsediff.distill.mmd_loss import mmd_squared, polynomial_kernel


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    error: float

    def to_dict(self) -> dict[str, float]:
        """Six digits of both."""
        return {"value": round(self.value, 6), "error": round(self.error, 6)}


def kernel_distance(ours: Tensor, reference: Tensor) -> Estimate:
    """Squared maximum mean discrepancy of two sets of the same prompts, 0 on average if alike.

    A video is never compared with that of its own prompt (the one-sample statistic of Gretton et al.
    2012, lemma 6): the unpaired one would come out below 0 for two sets of one model, because only
    its pairs across the sets have prompts in common. So the noise that sets share does not count
    either. Raises ValueError for sets of different lengths, or of fewer than three videos.
    """
    return _mean_of_pairs(_discrepancy(ours, reference))


def closer(ours: Tensor, others: Tensor, reference: Tensor) -> Estimate:
    """How much nearer `ours` are to the reference than `others`, prompts paired; above 0 if nearer."""
    return _mean_of_pairs(_discrepancy(others, reference) - _discrepancy(ours, reference))


def halves_distance(features: Tensor, splits: int = 500, seed: int = 31) -> Estimate:
    """Distance of a random half of the prompts from the other half: 0 on average, so its spread counts.

    The error is the standard deviation over splits. Halves have other prompts, and half as many, so
    that a distance between sets of the same prompts varies less.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(splits):
        a, b = features[torch.randperm(len(features), generator=generator)].tensor_split(2)
        found.append(float(mmd_squared(a, b)))
    spread = torch.tensor(found, dtype=torch.float64)
    return Estimate(float(spread.mean()), float(spread.std()))


def mean_distance(points: Tensor) -> Estimate:
    """Mean root mean square difference of two videos of one prompt, from `[prompts, seeds, values]`.

    0 where all seeds give the same video. The error is of leaving out one seed of all prompts.
    """
    pairs = (
        sum(torch.cdist(p, p) for p in points.double()) / len(points) / math.sqrt(points.shape[2])
    )
    return _mean_of_pairs(pairs)


def sign_test(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """How often the first of a pair is larger, and the exact two-sided p of that without the ties."""
    wins = sum(a > b for a, b in pairs)
    losses = sum(a < b for a, b in pairs)
    tail = sum(math.comb(wins + losses, k) for k in range(min(wins, losses) + 1))
    p = min(1.0, 2 * tail / 2 ** (wins + losses))
    return {"wins": wins, "losses": losses, "ties": len(pairs) - wins - losses, "p": round(p, 4)}


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    if x.shape != y.shape or len(x) < 3:
        raise ValueError(
            f"Found sets of {len(x)} and {len(y)} videos; needed as many of both, at least 3, of the "
            f"same prompts. Generate the rows that are not complete."
        )
    x, y = x.double(), y.double()
    across = polynomial_kernel(x, y)
    return polynomial_kernel(x, x) + polynomial_kernel(y, y) - across - across.T


def _mean_of_pairs(pairs: Tensor) -> Estimate:
    """Mean of a symmetric `[n, n]` without its diagonal, and its jackknife error."""
    n = len(pairs)
    pairs = pairs - pairs.diagonal().diag()
    total, rows = pairs.sum(), pairs.sum(dim=1)
    without = (total - 2 * rows) / ((n - 1) * (n - 2))
    error = ((n - 1) / n * (without - without.mean()).square().sum()).sqrt()
    return Estimate(float(total / (n * (n - 1))), float(error))
