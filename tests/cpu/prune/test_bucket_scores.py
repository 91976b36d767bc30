"""Scores by bucket of timesteps: Wanda's from one run, and the change of the denoising loss."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_pipelines.unet import _unet as tiny_unet
from torch import Tensor
from toy_structures import ToyModel, toy_subject

from sparsediff.distill.draws import Draws, seed_of
from sparsediff.distill.recording.conditions import Conditions
from sparsediff.kernels.errors import SparseError
from sparsediff.prune.buckets import Buckets, loss_scores, wanda_scores
from sparsediff.prune.calibration import layer_inputs, layer_inputs_by_part
from sparsediff.prune.criteria.wanda import Wanda
from sparsediff.prune.denoising_loss import denoising_loss
from sparsediff.prune.gates import gated
from sparsediff.prune.mask_unet import unet_denoiser
from sparsediff.prune.structures import structures_of

TOKENS = torch.tensor([[[1.0, 2.0], [3.0, -4.0]], [[0.0, 1.0], [2.0, 0.0]]])


class GrowingModel(ToyModel):
    """Sees twice the tokens after the middle of the run, so that its parts differ."""

    def forward(self, hidden_states: Tensor, timestep: Tensor) -> Tensor:
        larger = 1 if float(timestep) >= 500 else 2
        return super().forward(hidden_states[..., :1] * torch.tensor([larger, 1.0]), timestep)


def test_the_parts_of_a_run_are_the_whole_run() -> None:
    subject = toy_subject(GrowingModel(), TOKENS, call={"num_inference_steps": 4})
    buckets = Buckets(boundaries=(500.0,))
    whole = layer_inputs(subject, ["up.0"])
    noisy, clean = layer_inputs_by_part(subject, ["up.0"], buckets.place, buckets.count)
    assert torch.equal(noisy.squares["up.0"] + clean.squares["up.0"], whole.squares["up.0"])
    assert clean.squares["up.0"].tolist() == [
        4 * noisy.squares["up.0"][0],
        noisy.squares["up.0"][1],
    ]
    assert noisy.tokens["up.0"] == clean.tokens["up.0"] == whole.tokens["up.0"] / 2


def test_wandas_scores_are_of_each_bucket() -> None:
    subject = toy_subject(GrowingModel(), TOKENS)
    one = Buckets(boundaries=())
    assert {key: value.tolist() for key, value in wanda_scores(subject, one)[0].values.items()} == {
        key: value.tolist() for key, value in Wanda().scores(subject).values.items()
    }
    noisy, clean = wanda_scores(subject, Buckets(boundaries=(500.0,)))
    assert any(not torch.equal(noisy.values[key], clean.values[key]) for key in noisy.values)
    with pytest.raises(SparseError, match="never called"):
        wanda_scores(subject, Buckets(boundaries=(5000.0,)))


def test_loss_scores_are_the_slope_of_the_loss() -> None:
    unet = tiny_unet().double()
    structures = structures_of(unet)[-6:]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 3, 32, generator=generator).double()
    conditions = Conditions.of_batch({"encoder_hidden_states": text})
    denoiser = unet_denoiser(unet, DDIMScheduler())
    buckets = Buckets(boundaries=(700.0,))
    noisy, clean = loss_scores(
        denoiser, structures, buckets, latents, conditions, samples=1, seed=3
    )
    draws = Draws([seed_of("bucket", 3, 1, 0)])
    row = (draws.uniform() * 2).long()
    time = torch.arange(1.0, 701.0)[(draws.uniform() * 700).long()]  # timestep t has the time t + 1
    noise = draws.normal(latents[row])
    one = max(structures, key=lambda one: float(clean.values[one.key].max()))
    unit, step = int(clean.values[one.key].argmax()), 0.05

    def loss(value: float) -> float:
        gate = torch.ones(one.units, dtype=torch.float64)
        gate[unit] = value
        with torch.no_grad(), gated(unet, [one], {one.key: gate}):
            told = conditions.select(row)
            return float(denoising_loss(denoiser, latents[row], noise, time, told))

    slope = abs(loss(1 + step) - loss(1 - step)) / (2 * step)
    # The loss comes in float32: 1e-7 of about 1, over 0.1 between the two values.
    assert float(clean.values[one.key][unit]) == pytest.approx(slope, rel=0.01, abs=2e-6)
    assert slope > 1e-4, "the tolerance would hide it"
    assert any(not torch.equal(noisy.values[k], clean.values[k]) for k in noisy.values)
    assert all(parameter.grad is None for parameter in unet.parameters())


def test_a_bucket_without_timesteps_is_refused() -> None:
    unet = tiny_unet()
    conditions = Conditions.of_batch({})
    with pytest.raises(SparseError, match="0 to 999"):
        loss_scores(
            unet_denoiser(unet, DDIMScheduler()),
            structures_of(unet),
            Buckets(boundaries=(1200.0,)),
            torch.zeros(1, 4, 8, 8),
            conditions,
        )
