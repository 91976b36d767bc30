"""How much the units of a model matter in each bucket of timesteps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.distill.recording.denoiser import Denoiser
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.buckets.timestep_buckets import Buckets
from sparsediff.prune.calibration import layer_inputs_by_part
from sparsediff.prune.criteria.wanda import Wanda, read_layers
from sparsediff.prune.denoising_loss import denoising_loss
from sparsediff.prune.gates import gated
from sparsediff.prune.scores import Scores
from sparsediff.prune.structures import Structure
from sparsediff.prune.subject import Subject


def wanda_scores(subject: Subject, buckets: Buckets, *, wanda: Wanda | None = None) -> list[Scores]:
    """Wanda's scores by bucket, from one run of the pipeline over the subject's prompts.

    Raises SparseError as `Wanda` does, and where a bucket has none of the run's steps.
    """
    wanda = wanda or Wanda()
    paths = read_layers(subject.structures)
    inputs = layer_inputs_by_part(
        subject, paths, buckets.place, buckets.count, step_weights=wanda.step_weights
    )
    return [
        Scores(
            values={
                one.key: wanda.unit_scores(subject.model, one, seen) for one in subject.structures
            }
        )
        for seen in inputs
    ]


def loss_scores(
    denoiser: Denoiser,
    structures: Sequence[Structure],
    buckets: Buckets,
    latents: Tensor,
    conditions: Conditions,
    *,
    samples: int = 32,
    seed: int = 0,
) -> list[Scores]:
    """By bucket, how much the denoising loss would change without a unit, to first order.

    The mean over ``samples`` of |d loss / d gate| at gate 1 (Molchanov et al., arXiv 1906.10771;
    for heads Michel et al., 1905.10650), one backward pass each. ``latents`` ``[n, ...]`` fp32 and the
    conditions of the same n, as `train_masks` takes them. The model should be in evaluation mode.
    Raises SparseError where a bucket has no level of the model's noise.
    """
    times = torch.arange(1, int(denoiser.levels.steps) + 1, dtype=torch.float32)
    told = denoiser.levels.at(times).timestep * denoiser.inputs.time_scale
    told = told + denoiser.inputs.time_offset
    place = torch.tensor([buckets.place(time) for time in told])
    found = []
    for bucket in range(buckets.count):
        inside = times[place == bucket]
        if not len(inside):
            raise SparseError(
                f"Bucket {bucket} of {buckets.boundaries} has no timestep of this model, which is told "
                f"{float(told.min()):g} to {float(told.max()):g}. Choose other boundaries."
            )
        draws = [Draws([seed_of("bucket", seed, bucket, number)]) for number in range(samples)]
        found.append(_scores(denoiser, structures, latents, conditions, inside, samples=draws))
    return found


def _scores(
    denoiser: Denoiser,
    structures: Sequence[Structure],
    latents: Tensor,
    conditions: Conditions,
    times: Tensor,
    *,
    samples: Sequence[Draws],
) -> Scores:
    device = next(denoiser.model.parameters()).device
    gates = {
        one.key: torch.ones(one.units, device=device, requires_grad=True) for one in structures
    }
    sums = {key: torch.zeros_like(gate, requires_grad=False) for key, gate in gates.items()}
    with torch.enable_grad(), gated(denoiser.model, structures, gates):
        for draws in samples:
            row = (draws.uniform() * len(latents)).long()
            time = times[(draws.uniform() * len(times)).long()].to(device)
            clean = latents[row.to(latents.device)].to(device).float()
            noise = draws.normal(clean)
            loss = denoising_loss(denoiser, clean, noise, time, conditions.select(row).to(device))
            gradients = torch.autograd.grad(loss.sum(), list(gates.values()))
            for key, gradient in zip(gates, gradients, strict=True):
                sums[key] += gradient.abs()
    return Scores(values={key: total / len(samples) for key, total in sums.items()})
